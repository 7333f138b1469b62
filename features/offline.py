"""Offline tables: one Parquet file per view under `<home>/features/offline`, the history that everything else derives from."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.contract import VIEWS, Contract, ContractError, Feature
from features.homes import features_folder, home_contract
from features.layout import JOIN_KEY

EVENT_TIMESTAMP = "event_timestamp"
MOMENT = pa.timestamp("us", tz="UTC")


def offline_path(home: Path, view: str) -> Path:
    """The file of one view."""
    return features_folder(home) / "offline" / f"{view}.parquet"


def view_features(contract: Contract, view: str) -> tuple[Feature, ...]:
    """The features of one view. Raises ContractError where it has none."""
    found = tuple(f for f in contract.customer if f.view == view)
    if not found:
        known = ", ".join(f"`{name}`" for name in used_views(contract)) or "none"
        raise ContractError(f"Expected a view with features ({known}), got `{view}`")
    return found


def used_views(contract: Contract) -> tuple[str, ...]:
    """The customer views that have features."""
    views = {f.view for f in contract.customer}
    return tuple(view for view in VIEWS if view in views)


def view_schema(contract: Contract, view: str) -> pa.Schema:
    """Columns of a view's table: `customer_id`, `event_timestamp` (microseconds, UTC), then float64 or string features."""
    columns = [(JOIN_KEY, pa.string()), (EVENT_TIMESTAMP, MOMENT)]
    columns += [(f.name, pa.float64() if f.type == "number" else pa.string()) for f in view_features(contract, view)]
    return pa.schema(columns)


def write_view(home: Path, view: str, table: pa.Table) -> Path:
    """Add rows to a view's history; null is missing. A row with the same customer and moment replaces the older one.

    Columns may come in any order; numbers of any width are taken as float64. Raises ContractError naming the column that the
    contract does not know, that is absent, or that holds something else. One writer at a time: others wait. On disk when
    this returns.
    """
    schema = view_schema(home_contract(home), view)
    added = _conform(table, schema, where=view)
    path = offline_path(home, view)
    with _alone(path):
        before = [read_view(home, view)] if path.exists() else []
        _replace(path, _latest_written(pa.concat_tables([*before, added])))
    return path


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.parent.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(path: Path, table: pa.Table) -> None:
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as sink:
        pq.write_table(table, sink, compression="zstd")
        sink.flush()
        os.fsync(sink.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name is lost with the power, too
    finally:
        os.close(folder)


def read_view(home: Path, view: str) -> pa.Table:
    """The whole history of a view; empty where nothing was written. A feature added since is null throughout."""
    schema = view_schema(home_contract(home), view)
    path = offline_path(home, view)
    if not path.exists():
        return schema.empty_table()
    table = pq.read_table(path, schema=None)
    columns = [table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type) for f in schema]
    return pa.table(columns, schema=schema)


def _conform(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """The table with exactly these columns and types."""
    _check_names(table.column_names, schema.names, where)
    columns = [_cast(table[wanted.name], wanted, where) for wanted in schema]
    for name in (JOIN_KEY, EVENT_TIMESTAMP):
        if (missing := columns[schema.get_field_index(name)].null_count) > 0:
            raise ContractError(f"Expected a value in every row, got {missing} nulls - at `{where}.{name}`")
    return pa.table(columns, schema=schema)


def _check_names(found: Sequence[str], wanted: Sequence[str], where: str) -> None:
    absent = [f"`{name}`" for name in wanted if name not in found]
    unknown = [f"`{name}`" for name in found if name not in wanted]
    if absent or unknown:
        problems = [f"without {', '.join(absent)}"] * bool(absent) + [f"unknown {', '.join(unknown)}"] * bool(unknown)
        raise ContractError(
            f"Expected the columns {', '.join(f'`{n}`' for n in wanted)}, got {', '.join(problems)} - at `{where}`"
        )


def _cast(column: pa.ChunkedArray, wanted: pa.Field, where: str) -> pa.ChunkedArray:
    if pa.types.is_string(wanted.type) and not _is_text(column.type) and not pa.types.is_null(column.type):
        raise ContractError(f"Expected `string`, got `{column.type}` - at `{where}.{wanted.name}`")
    if pa.types.is_timestamp(wanted.type) and getattr(column.type, "tz", None) is None:
        raise ContractError(f"Expected `{MOMENT}`, a moment with its time zone, got `{column.type}` - at `{where}.{wanted.name}`")
    if pa.types.is_floating(wanted.type) and _is_text(column.type):
        raise ContractError(f"Expected `double`, got `{column.type}` - at `{where}.{wanted.name}`")
    try:
        return column.cast(wanted.type, safe=not pa.types.is_timestamp(wanted.type))
    except pa.ArrowException as error:
        raise ContractError(f"Expected `{wanted.type}`, got `{column.type}` - at `{where}.{wanted.name}`: {error}") from error


def _is_text(kind: pa.DataType) -> bool:
    is_dictionary = pa.types.is_dictionary(kind)
    value_type = kind.value_type if is_dictionary else kind
    return bool(pa.types.is_string(value_type) or pa.types.is_large_string(value_type))


def _latest_written(table: pa.Table) -> pa.Table:
    """One row per customer and moment, the last one written, in order of both."""
    numbered = table.append_column("written", pa.array(np.arange(table.num_rows)))
    last = numbered.group_by([JOIN_KEY, EVENT_TIMESTAMP]).aggregate([("written", "max")])["written_max"]
    return table.take(last).sort_by([(JOIN_KEY, "ascending"), (EVENT_TIMESTAMP, "ascending")])
