"""Every event that is known: what was ingested, from the lake, then what came in live, from the log; each id once."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from features.live import Event
from service.decision.records import ErasureRecord, EventRecord, IdentityRecord
from training.lake import MOMENT, read_tables, write_by_day
from training.live_log import read_log

EVENTS, ERASURES = "events", "erasures"
EVENT_COLUMNS = {
    "event_id": pa.string(), "customer_id": pa.string(), "type": pa.string(), "channel": pa.string(), "at": MOMENT,
    "received_at": MOMENT, "properties": pa.string(), "declared": pa.bool_(), "source": pa.string(),
}  # fmt: skip
"""Properties are JSON."""

_properties = msgspec.json.Decoder(dict[str, bool | float | str])


def read_events(home: Path) -> Iterator[EventRecord]:
    """Events in the order in which they were written."""
    return (record for record, _ in read_known_events(home))


def read_known_events(home: Path) -> Iterator[tuple[EventRecord, float]]:
    """The same, each with the moment from which it was known: of one that came in live, when it was received.

    Of one that was ingested, when it happened: when the file was read says nothing of when somebody knew it.
    """
    known: set[bytes] = set()
    erased = read_erasures(home)
    for record, since in _written(home):
        name = record.event_id.encode()
        if name not in known:
            known.add(name)
            if not is_erased(erased, record.customer_id, record.counts_from):
                yield record, since


def known_event_ids(home: Path) -> set[str]:
    """Of everything that was written down, also of customers who were erased."""
    return {record.event_id for record, _ in _written(home)}


def _written(home: Path) -> Iterator[tuple[EventRecord, float]]:
    for table in read_tables(home, EVENTS):
        yield from ((record, record.counts_from) for record in _records(table))
    yield from ((record, record.received_at) for record in read_log(home, EVENTS, EventRecord))


def _records(table: pa.Table) -> Iterator[EventRecord]:
    columns = [table[name].to_pylist() for name in ("event_id", "customer_id", "type", "channel")]
    moments = [[us / 1e6 for us in table[name].cast(pa.int64()).to_pylist()] for name in ("at", "received_at")]
    properties = (_properties.decode(text) for text in table["properties"].to_pylist())
    for row in zip(*columns, *moments, properties, table["declared"].to_pylist(), strict=True):
        name, customer, kind, channel, at, received, found, declared = row
        yield EventRecord(name, customer, kind, channel, at, received, found, declared)


def write_events(home: Path, name: str, records: Sequence[EventRecord]) -> None:
    """Into the lake, by day. `name`: where they come from; a file of that name is replaced."""
    columns = {
        "event_id": [r.event_id for r in records], "customer_id": [r.customer_id for r in records],
        "type": [r.type for r in records], "channel": [r.channel for r in records],
        "at": pa.array([round(r.at * 1e6) for r in records], pa.int64()).cast(MOMENT),
        "received_at": pa.array([round(r.received_at * 1e6) for r in records], pa.int64()).cast(MOMENT),
        "properties": [msgspec.json.encode(r.properties).decode() for r in records], "declared": [r.declared for r in records],
        "source": [name] * len(records),
    }  # fmt: skip
    write_by_day(home, EVENTS, name, pa.table(columns, schema=pa.schema(EVENT_COLUMNS)), "at")


def fed(records: Iterable[EventRecord], aliases: Mapping[str, str] | None = None) -> list[tuple[str, Event]]:
    """(customer id, event) of those that feed features; `aliases` as `read_aliases` gives them."""
    return list(feeding(records, aliases or {}))


def feeding(records: Iterable[EventRecord], aliases: Mapping[str, str]) -> Iterator[tuple[str, Event]]:
    """The same, one by one."""
    return ((aliases.get(r.customer_id, r.customer_id), r.event) for r in records if r.declared)


def read_erasures(home: Path) -> dict[str, float]:
    """By id, until when what was known of them is forgotten, seconds since 1970 UTC."""
    found: dict[str, float] = {}
    for record in read_log(home, ERASURES, ErasureRecord):
        found[record.customer_id] = max(record.at, found.get(record.customer_id, record.at))
    return found


def is_erased(erased: Mapping[str, float], customer_id: str, at: float) -> bool:
    """Whether what happened then is forgotten."""
    return customer_id in erased and at <= erased[customer_id]


def read_aliases(home: Path) -> dict[str, str]:
    """Whom each alias leads to, as the log has it now; what linked an id that was erased since is forgotten.

    By the moment of each link, since a segment that was opened before others may hold what came after them. A link to whoever
    led to the alias already was said the other way round, and is passed over: logs of before hold such lines.
    """
    return read_links(home)[0]


def read_links(home: Path) -> tuple[dict[str, str], set[str]]:
    """The same, and the ids whose links were passed over."""
    found, circles = dict[str, str](), set[str]()
    erased = read_erasures(home)
    for record in sorted(read_log(home, "identities", IdentityRecord), key=lambda record: record.at):
        if is_erased(erased, record.alias, record.at) or not record.linked:
            found.pop(record.alias, None)
        elif record.alias in _steps(record.customer_id, found):
            circles.add(record.alias)
        else:
            found[record.alias] = record.customer_id
    return {alias: _steps(alias, found)[-1] for alias in found}, circles


def _steps(name: str, found: Mapping[str, str]) -> list[str]:
    """An id, and whom it leads to, up to the customer."""
    steps = [name]
    while steps[-1] in found:
        steps.append(found[steps[-1]])
    return steps


def moment(text: str) -> float:
    """RFC 3339, or without a zone as UTC: seconds since 1970. Raises ValueError."""
    found = dt.datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()
