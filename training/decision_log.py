"""Logged decisions as they were written: whole records, oldest first, for replay, what-if and explanation."""

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from service.decision.records import DecisionRecord, record_in
from service.errors import UnknownDecision
from training.event_history import is_erased, read_erasures
from training.live_log import find_in, read_payloads, records_in, sources

DECISION_ID = b'{"decision_id":"'  # a record begins with its id
_decoder = msgspec.json.Decoder(DecisionRecord)


class _Named(msgspec.Struct, frozen=True):
    """What of a decision is its name."""

    decision_id: str


_named = msgspec.json.Decoder(_Named)


class Logged(NamedTuple):
    """One decision: its bytes in the log, and what they say."""

    payload: bytes
    record: DecisionRecord


def read_decisions(
    home: Path, start: float = float("-inf"), end: float = float("inf"), *, forgotten: bool = False
) -> Iterator[Logged]:
    """Every readable decision of a span of time, in seconds since 1970 UTC, `end` excluded.

    `forgotten`: also those of customers who were erased since.
    """
    erased = {} if forgotten else read_erasures(home)
    for source in sources(home, "decisions"):
        for payload, record in records_in(source, _decoder):
            if start <= record.at < end and not is_erased(erased, record.customer_id, record.at):
                yield Logged(payload, record)


def each_once(logged: Iterable[Logged]) -> Iterator[Logged]:
    """The first of each id stands: two workers that are told of one at the same moment both write it (docs/decisions/0019)."""
    told: set[str] = set()
    for one in logged:
        if one.record.decision_id not in told:
            told.add(one.record.decision_id)
            yield one


def id_of(payload: bytes) -> str | None:
    """The id of a logged decision, None where it is none; nothing else is decoded, unless JSON had to escape something in it."""
    start = len(DECISION_ID)
    found = payload[start : payload.find(b'"', start)]
    if b"\\" in found or not payload.startswith(DECISION_ID):
        named = record_in(payload, _named)
        return None if named is None else named.decision_id
    return found.decode(errors="replace")


def read_decisions_of(home: Path, ids: Collection[str]) -> Iterator[DecisionRecord]:
    """Those of these ids. Reads the whole log, and decodes nothing else."""
    found = (record_in(payload, _decoder) for payload in read_payloads(home, "decisions") if id_of(payload) in ids)
    return (record for record in found if record is not None)


def in_batches(logged: Iterable[Logged], size: int) -> Iterator[list[Logged]]:
    """So many at a time, the last batch shorter."""
    source = iter(logged)
    while batch := list(islice(source, size)):
        yield batch


def find_decision(home: Path, decision_id: str) -> DecisionRecord:
    """The decision of this id. Raises UnknownDecision."""
    for source in reversed(sources(home, "decisions")):
        found = find_in(source, decision_id)
        if found is not None:
            return found
    raise UnknownDecision(decision_id)
