"""Logged decisions as they were written: whole records, oldest first, for replay, what-if and explanation."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from service.decision import records
from service.decision.records import DecisionRecord, decode_lines
from service.errors import UnknownDecision

_decoder = msgspec.json.Decoder(DecisionRecord)


class Logged(NamedTuple):
    """One decision: its bytes in the log, and what they say."""

    payload: bytes
    record: DecisionRecord


def decision_segments(home: Path) -> list[Path]:
    """The files that hold decisions, oldest first."""
    return sorted((home / "log" / "decisions").rglob("*.log"), key=lambda path: path.name)


def read_decisions(home: Path, start: float = float("-inf"), end: float = float("inf")) -> Iterator[Logged]:
    """Every readable decision of a span of time, in seconds since 1970 UTC, `end` excluded."""
    for path in decision_segments(home):
        for line in decode_lines(path.read_bytes()):
            if line.payload is not None:
                record = _decoder.decode(line.payload)
                if start <= record.at < end:
                    yield Logged(line.payload, record)


def in_batches(logged: Iterable[Logged], size: int) -> Iterator[list[Logged]]:
    """So many at a time, the last batch shorter."""
    source = iter(logged)
    while batch := list(islice(source, size)):
        yield batch


def find_decision(home: Path, decision_id: str) -> DecisionRecord:
    """The decision of this id. Raises UnknownDecision."""
    for path in reversed(decision_segments(home)):
        found = records.find_decision(path.read_bytes(), decision_id)
        if found is not None:
            return found
    raise UnknownDecision(decision_id)
