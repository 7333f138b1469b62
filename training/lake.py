"""The lake: decisions and outcomes as Parquet, by day. What was imported lies here."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MOMENT = pa.timestamp("us", tz="UTC")
DECISION_COLUMNS = {
    "decision_id": pa.string(), "customer_id": pa.string(), "decided_at": MOMENT, "placement": pa.string(), "slot": pa.int32(),
    "action_id": pa.string(), "choice_probability": pa.float64(), "source": pa.string(),
}  # fmt: skip
"""Then one column per value the decision was made from: `customer.<name>` and `context.<name>`."""

OUTCOME_COLUMNS = {
    "outcome_id": pa.string(), "decision_id": pa.string(), "type": pa.string(), "value": pa.float64(), "at": MOMENT,
    "placement": pa.string(), "action_id": pa.string(),
}  # fmt: skip

IMPRESSION = "impression"  # the outcome of everything that was shown


def lake_folder(home: Path, kind: str) -> Path:
    """Where `decisions` or `outcomes` lie."""
    return home / "lake" / kind


def write_by_day(home: Path, kind: str, name: str, table: pa.Table, column: str) -> list[Path]:
    """One file `date=YYYY-MM-DD/<name>.parquet` for each day (UTC) of a time column."""
    days = pc.strftime(table[column], format="%Y-%m-%d")
    written = []
    for day in pc.unique(days).to_pylist():
        path = lake_folder(home, kind) / f"date={day}" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        pq.write_table(table.filter(pc.equal(days, day)), unfinished, compression="zstd")
        written.append(unfinished.replace(path))
    return written


def read_tables(home: Path, kind: str) -> Iterator[pa.Table]:
    """Every file, oldest day first."""
    for path in sorted(lake_folder(home, kind).rglob("*.parquet")):
        yield pq.ParquetFile(path).read()


def imported_rows(home: Path, name: str) -> int:
    """How many decisions lie in files of this name: fewer than there were where a writer was interrupted between two days."""
    return sum(pq.read_metadata(path).num_rows for path in lake_folder(home, "decisions").rglob(f"{name}.parquet"))
