"""What features that events feed would have said at moments of the past: by the queries that `nextbest features check` trusts."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.contract import Contract, Feature
from features.live import Event
from features.live_offline import event_table, live_values
from training.event_history import feeding, read_aliases, read_known_events

AT_ONCE = 50_000  # rows that are asked about, and events that are turned into columns
Progress = Callable[[int, int], None]


class _Known(NamedTuple):
    customer_id: str
    event: Event
    since: float


def event_values(
    home: Path, contract: Contract, features: Sequence[Feature], asked: pa.Table, progress: Progress = lambda _done, _of: None
) -> dict[str, pa.ChunkedArray]:
    """What each row of `asked` (`customer_id`, `at` in seconds) would have read, by key, in its order; null is missing.

    An event counts from when it happened, one that came in live from when it was received; under whom its customer is now.
    Rows before the first event that is known are missing: that nothing had happened by then, nobody can say.
    """
    wanted = Contract(tuple(features), contract.journey)
    aliases = read_aliases(home)
    names = pa.array([aliases.get(name, name) for name in asked["customer_id"].to_pylist()], pa.string())
    everybody = frozenset(pc.unique(names).to_pylist())
    events, first = _events(home, wanted, aliases, everybody)
    found = []
    for start in range(0, asked.num_rows, AT_ONCE):
        rows = pa.table({"customer_id": names, "at": asked["at"]}).slice(start, AT_ONCE)
        found.append(live_values(wanted, events, rows))
        progress(start + rows.num_rows, asked.num_rows)
    told = pa.array(np.asarray(asked["at"].to_numpy()) >= first)
    joined = pa.concat_tables(found)
    return {f.key: pc.if_else(told, joined[f.name], pa.scalar(None, joined[f.name].type)) for f in features}


def _events(home: Path, contract: Contract, aliases: dict[str, str], customers: frozenset[str]) -> tuple[pa.Table, float]:
    """The events of some customers as `live_values` takes them, and since when anything is known at all."""
    tables, first = [_columns([], contract)], np.inf
    source = _known(home, aliases)
    while some := list(islice(source, AT_ONCE)):
        first = min(first, *(one.since for one in some))
        tables.append(_columns([one for one in some if one.customer_id in customers], contract))
    return pa.concat_tables(tables), first


def _known(home: Path, aliases: dict[str, str]) -> Iterator[_Known]:
    for record, since in read_known_events(home):
        for customer, event in feeding([record], aliases):
            yield _Known(customer, event, since)


def _columns(known: Sequence[_Known], contract: Contract) -> pa.Table:
    table = event_table([(one.customer_id, one.event) for one in known], contract)
    return table.append_column("known_at", pa.array([one.since for one in known], pa.float64()))
