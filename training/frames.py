"""Logged decisions with what came of them, as a table: for notebooks, and for whoever learns in another way."""

import datetime as dt
import importlib
import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from features.contract import Contract
from features.homes import home_contract
from service.decision.records import DecisionRecord
from service.errors import BadRequest, NotReady
from training.backfill import MADE_UNDER, UNDER, Imported, Logged, backfill
from training.examples import LiveLog, decision_rows, filled, outcome_types, seconds_of, serving_zone, texts, together
from training.known_contracts import Keys
from training.lake import DECISION_COLUMNS, OUTCOME_COLUMNS, read_tables
from training.left_out import left_out

As = Literal["arrow", "pandas", "polars"]
Moment = dt.datetime | float

BATCH_ROWS = 20_000
MEMORY = "512MB"  # of DuckDB; what is more goes to a temporary file
SERVED_COLUMNS = {
    "treatment_id": pa.string(), "predicted_rate": pa.float64(), "utility": pa.float64(), "explored": pa.bool_(),
    "experiment": pa.string(), "arm": pa.string(), "catalog": pa.int64(), "bundle": pa.string(),
}  # fmt: skip
"""What a decision of our own knows besides; null where it was imported."""

BACKFILLED = pa.field("backfilled", pa.list_(pa.string()))

READ = """
    with d as (select distinct on (decision_id, placement, slot) * from decisions),
         o as (select distinct on (outcome_id) * from outcomes),
         joined as (
             select d.decision_id, d.placement, d.slot, {figures}
             from d join o on o.decision_id = d.decision_id
                  and coalesce(o.placement, d.placement) = d.placement and coalesce(o.action_id, d.action_id) = d.action_id
             group by all)
    select d.*, {columns} from d left join joined using (decision_id, placement, slot)
    order by d.decided_at, d.decision_id, d.placement, d.slot
"""


def load_decisions(
    home: Path,
    start: Moment | None = None,
    end: Moment | None = None,
    as_: As = "arrow",
    *,
    scratch: Path | None = None,
    backfill: bool = False,
) -> Any:  # noqa: ANN401  # the types of three libraries, two of which publish none
    """One row per served item, in the order of time, from lake and live log; `end` is excluded. Fallbacks are left out.

    So are customers who were erased, or do not want to be known (`training.left_out`).

    Moments are datetimes with a time zone, or seconds since 1970 UTC. Columns: `decision_id`, `customer_id`, `decided_at`,
    `placement`, `slot`, `action_id`, `choice_probability`, `source`; then, null where the decision was imported, `treatment_id`,
    `predicted_rate`, `utility`, `explored`, `experiment`, `arm`, `catalog`, `bundle`; then the inputs (`customer.*`,
    `context.*`); then `responses`, how many outcomes came of the item, and for each type how often it came (`outcome.click`) and
    what it brought (`value.click`).

    `arrow` is a `pyarrow.RecordBatchReader` of 20,000 rows a batch: memory stays bounded, the rest waits in a temporary file
    in `scratch` (the system's folder unless told) until the last batch is read. `pandas` and `polars` are whole data frames.

    Inputs are as they were logged. With `backfill` those that a row's contract did not know are filled as of its moment, as
    training does it, and a last column `backfilled` lists them.

    Raises BadRequest for another `as_` or a moment without a time zone, and NotReady where polars is not installed.
    """
    if as_ not in ("arrow", "pandas", "polars"):
        raise BadRequest(f"Expected `arrow`, `pandas` or `polars`, got `{as_}` - at `as_`")
    if as_ == "polars" and importlib.util.find_spec("polars") is None:
        raise NotReady("Expected polars, found that it is not installed: pip install polars - at `as_`")
    batches = _batches(home, (_seconds(start, "start"), _seconds(end, "end")), scratch, fill=backfill)
    reader = pa.RecordBatchReader.from_batches(next(batches), batches)
    if as_ == "arrow":
        return reader
    table = reader.read_all()
    return table.to_pandas() if as_ == "pandas" else importlib.import_module("polars").from_arrow(table)


def _seconds(moment: Moment | None, where: str) -> float | None:
    if not isinstance(moment, dt.datetime):
        return moment
    if moment.tzinfo is None:
        raise BadRequest(f"Expected a moment with a time zone, got `{moment}` - at `{where}`")
    return moment.timestamp()


def _batches(home: Path, span: tuple[float | None, float | None], scratch: Path | None, *, fill: bool) -> Iterator[Any]:
    """First the schema, then record batches of it. What DuckDB keeps is gone once the iterator is."""
    contract, types, zone = home_contract(home), sorted(outcome_types(home)), serving_zone(home)
    with (
        tempfile.TemporaryDirectory(prefix="nb-", dir=scratch) as folder,
        duckdb.connect(f"{folder}/decisions.duckdb", config={"memory_limit": MEMORY}) as connection,
    ):
        tables = _gather(connection, home, contract, span)
        found = connection.execute(_query(types), [one for name in types for one in (name, name)])
        reader = found.to_arrow_reader(BATCH_ROWS)
        schema = reader.schema.remove(reader.schema.get_field_index(MADE_UNDER))
        schema = schema.append(BACKFILLED) if fill else schema
        yield schema
        for batch in reader:
            columns = _completed(batch, contract, zone)
            columns |= _backfilled(home, contract, columns, tables) if fill else {}
            yield pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _gather(
    connection: duckdb.DuckDBPyConnection, home: Path, contract: Contract, span: tuple[float | None, float | None]
) -> Mapping[str, Keys]:
    """Decisions of the span, and every outcome, as tables on disk; which columns imported tables had."""
    start, end = (dt.datetime.fromtimestamp(at, dt.UTC) if at is not None else None for at in span)
    imported, out = Imported(), left_out(home)
    log, keys = LiveLog(home, contract, _served_rows), [feature.key for feature in contract.features]
    columns = DECISION_COLUMNS | SERVED_COLUMNS | UNDER
    connection.execute("set timezone = 'UTC'")
    connection.register("batch", together([], columns, contract, keys))
    connection.execute("create table decisions as select * from batch")
    connection.register("batch", together([], OUTCOME_COLUMNS, contract, []))
    connection.execute("create table outcomes as select * from batch")
    for source in (map(imported.marked, read_tables(home, "decisions")), log.decisions()):
        for table in source:
            connection.register("batch", out.without(together([table], columns, contract, keys)))
            within = "coalesce(decided_at >= $start, true) and coalesce(decided_at < $end, true)"
            connection.execute(f"insert into decisions select * from batch where {within}", {"start": start, "end": end})  # noqa: S608  # a constant of this function
    for source in (read_tables(home, "outcomes"), log.outcomes()):
        for table in source:
            connection.register("batch", together([table], OUTCOME_COLUMNS, contract, []))
            connection.execute("insert into outcomes select * from batch")
    connection.unregister("batch")
    return imported.tables


def _query(types: Sequence[str]) -> str:
    """Two columns for each type of outcome, whose name is a parameter in both."""
    figures, columns = ["count(*) as responses"], ["coalesce(responses, 0)::bigint as responses"]
    for place, name in enumerate(types):
        figures.append(f"count(*) filter (o.type = ?) as n{place}, sum(o.value) filter (o.type = ?) as v{place}")
        quoted = name.replace('"', '""')
        columns.append(f'coalesce(n{place}, 0)::bigint as "outcome.{quoted}", coalesce(v{place}, 0.0) as "value.{quoted}"')
    return READ.format(figures=", ".join(figures), columns=", ".join(columns))


def _completed(batch: pa.RecordBatch, contract: Contract, zone: str) -> dict[str, pa.Array]:
    """The columns of a batch, with what follows from the moment of a request."""
    decided_at = seconds_of(pa.chunked_array([batch["decided_at"]]))
    return filled(contract, {name: batch[name] for name in batch.schema.names}, decided_at, zone)


def _backfilled(
    home: Path, contract: Contract, columns: Mapping[str, pa.Array], tables: Mapping[str, Keys]
) -> dict[str, pa.Array]:
    """What rows could not record, as of their moments, and which of it each was given."""
    moments = seconds_of(pa.chunked_array([columns["decided_at"]]))
    rows = Logged(texts(columns["customer_id"]), moments, columns[MADE_UNDER], tables)
    values, told = backfill(home, contract, rows, {f.key: columns[f.key] for f in contract.features})
    given = [[key for key, one in told.items() if one.filled[row]] for row in range(len(moments))]
    return {**values, BACKFILLED.name: pa.array(given, BACKFILLED.type)}


def _served_rows(record: DecisionRecord, contract: Contract) -> list[dict[str, Any]]:
    """One row per served item, with what only a decision of our own knows."""
    served = [item for placement in record.placements if not placement.fallback for item in placement.items]
    assigned, versions = record.experiment, record.versions
    common = {
        "experiment": assigned and assigned.id, "arm": assigned and assigned.arm,
        "catalog": versions.catalog, "bundle": versions.bundle,
    }  # fmt: skip
    return [
        {
            **row, **common, "treatment_id": item.treatment_id, "predicted_rate": item.predicted_rate,
            "utility": item.utility, "explored": item.explored,
        }
        for row, item in zip(decision_rows(record, contract), served, strict=True)
    ]  # fmt: skip
