"""What was known of customers at moments of the past: Feast's point-in-time join over the offline tables, without Redis."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.contract import Feature
from features.definitions import customer_entity, history_store, history_view
from features.feast_sdk import FeatureStore, FeatureView
from features.layout import JOIN_KEY
from features.materialize import quiet
from features.offline import EVENT_TIMESTAMP, offline_path

AT_ONCE = 50_000  # rows of a join: it holds every earlier row of each customer at once
ROW = "nextbest__row"
Progress = Callable[[int, int], None]


def recorded(home: Path, features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Those of which the offline tables have a column."""
    tables = {view: offline_path(home, view) for view in {f.view for f in features}}
    columns = {view: pq.read_schema(path).names if path.exists() else () for view, path in tables.items()}
    return tuple(f for f in features if f.name in columns[f.view])


def values_as_of(
    home: Path, features: Sequence[Feature], asked: pa.Table, progress: Progress = lambda _done, _of: None
) -> Mapping[str, pa.ChunkedArray]:
    """What each row of `asked` (`customer_id`, `event_timestamp` in UTC) would have read, by key, in its order; null is missing.

    Of each view it is the customer's latest row that is not newer than the moment, null where that row has null, or where it is
    older than the feature's `max_age` at that moment: what serving reads from Redis, had the table been copied as soon as it was
    written. Features without a column in the offline tables are left out.
    """
    wanted = recorded(home, features)
    if not wanted:
        return {}
    found = []
    with _views(home, wanted) as (store, views):
        names = [f"{view.name}:{field.name}" for view in views for field in view.features]
        for start in range(0, asked.num_rows, AT_ONCE):
            rows = asked.slice(start, AT_ONCE)
            found.append(_joined(store, names, rows).select([f.name for f in wanted]))
            progress(start + rows.num_rows, asked.num_rows)
    joined = pa.concat_tables(found) if found else pa.table({f.name: pa.array([], _type(f)) for f in wanted})
    return {f.key: _plain(f, joined[f.name]) for f in wanted}


@contextmanager
def _views(home: Path, features: Sequence[Feature]) -> Iterator[tuple[FeatureStore, list[FeatureView]]]:
    """A store with one view for each offline table and age."""

    def together(feature: Feature) -> tuple[str, float]:
        return feature.view, feature.max_age or 0.0

    groups = groupby(sorted(features, key=together), together)
    views = [history_view(home, f"{view}_{number}", list(group)) for number, ((view, _), group) in enumerate(groups)]
    with tempfile.TemporaryDirectory(prefix="nb-") as folder, quiet():
        store = history_store(Path(folder))
        store.apply([customer_entity(), *views])
        yield store, views


def _joined(store: FeatureStore, names: Sequence[str], rows: pa.Table) -> pa.Table:
    """One row for each of `rows`, in their order."""
    moments = pd.to_datetime(rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy(), unit="us", utc=True)
    frame = {JOIN_KEY: rows[JOIN_KEY].to_pylist(), EVENT_TIMESTAMP: moments, ROW: range(rows.num_rows)}
    found = store.get_historical_features(entity_df=pd.DataFrame(frame), features=list(names)).to_arrow()
    return found.sort_by(ROW)


def _type(feature: Feature) -> pa.DataType:
    return pa.float64() if feature.type == "number" else pa.string()


def _plain(feature: Feature, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """As serving takes it: NaN is missing."""
    values = column.cast(_type(feature))
    if feature.type == "number":
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    return values
