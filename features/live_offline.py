"""The features that events feed, worked out offline: point in time, over a table of events, in DuckDB.

The same declaration as online, read as SQL: what `LiveFeatures` says of a customer at a moment, these queries say of the events
until then. Training rows and `nextbest features check` come from here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import duckdb
import pyarrow as pa

from features.contract import Contract, Feature
from features.live import DAY, MOST_VALUES, Event, Live, hash_of, live_features, live_journey
from features.walk import MOST_KEPT, US, Entry, JourneyFeatures

NUMBER, TEXT = "number__", "text__"  # prefixes of the columns of a property: what it is as a number, and as a text


def properties_read(contract: Contract) -> list[str]:
    """Every property that some feature reads, once."""
    sources = [f.events for f in contract.live if f.events is not None]
    names = [name for source in sources for name in (*([source.property] if source.property else []), *source.where)]
    return list(dict.fromkeys(names))


def event_table(events: Sequence[tuple[str, Event]], contract: Contract) -> pa.Table:
    """Events (customer id, event) as columns: `customer_id`, `event_id`, `type`, `at` (seconds), two for each property read.

    Where features tell of the journey also what is kept of an event for it: `moment` (microseconds), `mark`, `kind`.
    """
    columns: dict[str, Any] = {
        "customer_id": pa.array([customer for customer, _ in events], pa.string()),
        "event_id": pa.array([event.event_id for _, event in events], pa.string()),
        "type": pa.array([event.type for _, event in events], pa.string()),
        "at": pa.array([event.at for _, event in events], pa.float64()),
    }
    for name in properties_read(contract):
        found = (event.properties.get(name) for _, event in events)
        values = [float(value) if isinstance(value, bool) else value for value in found]
        columns[NUMBER + name] = pa.array([v if isinstance(v, float) else None for v in values], pa.float64())
        columns[TEXT + name] = pa.array([None if v is None else str(v) for v in values], pa.string())
    journey = live_journey(contract)
    if journey is not None:
        columns["moment"] = pa.array([round(event.at * US) for _, event in events], pa.int64())
        columns["mark"] = pa.array([hash_of(event.event_id) for _, event in events], pa.int64())
        columns["kind"] = pa.array([journey.walk.kind(event.type, event.properties) for _, event in events], pa.int64())
    return pa.table(columns)


def live_values(contract: Contract, events: pa.Table, asked: pa.Table) -> pa.Table:
    """The features of each row of `asked` (`customer_id`, `at` in seconds), in its order: one column each, null is missing.

    `events` as `event_table` lays them out, each id once. With `known_at` (seconds) an event counts only from then on.
    """
    with duckdb.connect() as database:
        database.register("events", events)
        database.register("asked", asked.append_column("row", pa.array(range(asked.num_rows), pa.int64())))
        database.execute("SET threads = 2")
        known = KNOWN if "known_at" in events.column_names else ""
        found = {one.name: _column(database, one, asked.num_rows, known) for one in live_features(contract)}
        journey = live_journey(contract)
        if journey is not None:
            rows = groupby(database.execute(JOURNEY.replace(KNOWN, known)).fetchall(), key=lambda found: found[0])
            entries = {row: [(moment, mark, kind) for _, moment, mark, kind in some] for row, some in rows}
            found |= _journey_columns(contract, journey, entries, asked["at"].to_pylist())
    return pa.table({"customer_id": asked["customer_id"], "at": asked["at"], **found})


KNOWN = " AND e.known_at <= a.at"
JOURNEY = f"""
    SELECT row, moment, mark, kind FROM (
        SELECT a.row, e.moment, e.mark, e.kind,
               row_number() OVER (PARTITION BY a.row, e.kind ORDER BY e.moment DESC, e.mark DESC) AS place
        FROM asked a JOIN events e ON e.customer_id = a.customer_id AND e.at <= a.at{KNOWN} AND e.kind > 0)
    WHERE place <= {MOST_KEPT} ORDER BY row, moment, mark, kind
"""  # noqa: S608  # a number and a condition of ours are all that is put in


def _journey_columns(
    contract: Contract, journey: JourneyFeatures, entries: Mapping[int, Sequence[Entry]], moments: Sequence[float]
) -> dict[str, pa.Array]:
    """The features that tell of the journey for every row: the events came from DuckDB, the walk is the one that is served."""
    told = [journey.told(entries.get(row, ()), at) for row, at in enumerate(moments)]
    features = [f for f in contract.live if f.journey is not None]
    return {f.name: pa.array([one.get(f.name) for one in told], pa.string() if f.categories else pa.float64()) for f in features}


def _column(database: duckdb.DuckDBPyConnection, one: Live, rows: int, known: str) -> pa.Array:
    """One feature for every row."""
    zero = 0.0 if one.source.aggregate in ("count", "sum", "distinct") else None
    found: dict[int, Any] = dict(database.execute(*_query(one, known)).fetchall())
    values = [found.get(row, zero) for row in range(rows)]
    if one.categories:
        return pa.array([value if value in one.categories else None for value in values], pa.string())
    numbers = [value if value is None else float(value) for value in values]
    return pa.array([value if value is not None and math.isfinite(value) else None for value in numbers], pa.float64())


def _query(one: Live, known: str) -> tuple[str, list[Any]]:
    """SQL that gives (row, value) for the rows of which there is something to say. `known`: `KNOWN`, or nothing."""
    source, parameters = one.source, list[Any]()
    value, age = _value(one)
    conditions = ["e.customer_id = a.customer_id", f"e.at <= a.at{known}", *_conditions(one, parameters)]
    if source.window is not None:
        conditions.append(f"floor(e.at / {one.step!r}) > floor(a.at / {one.step!r}) - {one.steps}")
    fresh = f"HAVING {age} <= {one.max_age!r}" if age and one.max_age < float("inf") else ""
    sql = f"SELECT a.row, {value} FROM asked a JOIN events e ON {' AND '.join(conditions)} GROUP BY a.row {fresh}"  # noqa: S608  # names come from the contract, values are parameters
    return sql, parameters


def _conditions(one: Live, parameters: list[Any]) -> Iterator[str]:
    source = one.source
    if source.types:
        parameters.extend(source.types)
        yield f"e.type IN ({', '.join('?' for _ in source.types)})"
    for name, wanted in source.where.items():
        parameters.append(wanted)
        yield f'e."{(NUMBER if isinstance(wanted, float) else TEXT) + name}" = ?'
    if source.property is not None:
        needed = NUMBER if source.aggregate == "sum" else TEXT
        yield f'e."{needed + source.property}" IS NOT NULL'
    if source.aggregate == "sum":
        yield f'isfinite(e."{NUMBER + str(source.property)}")'


def _value(one: Live) -> tuple[str, str | None]:
    """The aggregate, and the age of what it tells where that can be too old: both in SQL."""
    source = one.source
    amount = f'e."{NUMBER + str(source.property)}"' if source.aggregate == "sum" else "1.0"
    if source.half_life is not None:
        return f"sum({amount} * pow(0.5, (a.at - e.at) / {source.half_life!r}))", None
    match source.aggregate:
        case "since_last":
            return f"(any_value(a.at) - max(e.at)) / {DAY!r}", "any_value(a.at) - max(e.at)"
        case "recent":
            prefix = TEXT if one.categories else NUMBER
            order = "ORDER BY e.at DESC, e.event_id ASC"
            value = f'list(e."{prefix + str(source.property)}" {order})[{source.position}]'
            return value, f"any_value(a.at) - list(e.at {order})[{source.position}]"
        case "distinct":
            return f'least(count(DISTINCT e."{TEXT + str(source.property)}"), {MOST_VALUES})', None
    return f"sum({amount})", None


def disagreement(online: Mapping[str, float | str], offline: Mapping[str, float | str | None], feature: Feature) -> bool:
    """Whether the two say different things: counts and categories exactly, sums, decays and durations within rounding."""
    mine, other = online.get(feature.name), offline.get(feature.name)
    if isinstance(mine, float) and isinstance(other, float):
        source = feature.events
        exact = source is not None and source.half_life is None and source.aggregate in ("count", "distinct")
        tolerance = 0.0 if exact else 1e-6 if source is not None and source.half_life is not None else 1e-9
        return abs(mine - other) > tolerance * max(abs(mine), abs(other)) + 1e-9  # of a day: moments are told in microseconds
    return mine != other
