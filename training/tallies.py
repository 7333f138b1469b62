"""What a draft makes of logged decisions, counted stretch by stretch of the log."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from service.decision.again import request_of
from service.decision.arbitration import NONE_LEFT
from service.decision.decide import Outline, outline
from service.decision.engine import Engine
from service.decision.experiments import HOLDOUT
from service.decision.records import DecisionRecord, decode_lines, record_in
from training.decision_log import id_of
from training.lake_store import open_lake
from training.left_out import LeftOut
from training.live_log import Source
from training.sealing import sealed_payloads

Values = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]
Item = tuple[str, str]  # (placement, action)
Choice = tuple[str, str, str]  # (decision, placement, action)

MADE_AT_ONCE = 1024


class Part(msgspec.Struct, frozen=True):
    """A stretch of a segment, from the begin of a line to the end of one; or a sealed file of a home, whole."""

    name: str
    start: int
    end: int
    home: str
    sealed: bool


@dataclass
class Tally:
    """Counts over some decisions; two of them add up.

    `choices` are the logged first items, `weights` how much more or less likely the draft would have made each, and `customers`
    hashes of whom each was for.
    """

    decisions: int = 0
    unknown_placements: int = 0
    held_out: int = 0
    asked: Counter[str] = field(default_factory=Counter)  # by placement
    logged: Counter[Item] = field(default_factory=Counter)
    drafted: Counter[Item] = field(default_factory=Counter)
    logged_nothing: Counter[str] = field(default_factory=Counter)  # by placement
    drafted_nothing: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)  # by reason
    weights: list[float] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    customers: "array[int]" = field(default_factory=lambda: array("Q"))  # 8 bytes each, where an id takes 60

    def add(self, other: "Tally") -> None:
        for one in fields(self):
            mine: Any = getattr(self, one.name)
            setattr(self, one.name, mine + getattr(other, one.name))


def parts_of(logged: Sequence[Source], length: int) -> list[Part]:
    """The log in stretches of about so many bytes."""
    return [part for source in logged for part in _parts(source, length)]


def _parts(source: Source, length: int) -> Iterator[Part]:
    if source.lake is not None:
        if source.size:
            yield Part(source.name, 0, source.size, str(source.home), sealed=True)
        return
    size, start = source.size, 0
    with Path(source.name).open("rb") as segment:
        while start < size:
            segment.seek(min(start + length, size))
            segment.readline()
            yield Part(source.name, start, segment.tell(), str(source.home), sealed=False)
            start = segment.tell()


def _payloads(part: Part) -> list[bytes]:
    if part.sealed:
        return list(sealed_payloads(open_lake(Path(part.home)), part.name))
    with Path(part.name).open("rb") as segment:
        segment.seek(part.start)
        lines = decode_lines(segment.read(part.end - part.start))
    return [line.payload for line in lines if line.payload is not None]


def hashes_of(part: Part) -> Hashes:
    """The decisions' ids, 8 bytes of each, in the order of the stretch: (decisions,).

    The stretch is read once more for it, 4 us a decision, where making one again takes 50.
    """
    return _hashes(id_of(payload) or "" for payload in _payloads(part))


def _hashes(ids: Iterable[str]) -> Hashes:
    """8 bytes of each, the same in every process: of a million ids two are alike once in 37 million times."""
    return np.frombuffer(b"".join(blake2b(one.encode(), digest_size=8).digest() for one in ids), np.uint64)


def told_again(parts: Iterable[Hashes]) -> list[frozenset[int]]:
    """Of each stretch, the places of decisions that were written before: two workers may both write an id."""
    found = list(parts)
    is_again = np.ones(sum(map(len, found)), np.bool_)
    is_again[np.unique(np.concatenate(found), return_index=True)[1]] = False
    edges = np.cumsum([len(one) for one in found])[:-1]
    return [frozenset(np.flatnonzero(one).tolist()) for one in np.split(is_again, edges)]


def tally_part(engine: Engine, part: Part, out: LeftOut, again: frozenset[int] = frozenset()) -> Tally:
    """What the engine makes of the decisions of one stretch, its experiments aside. `again`: places that do not count."""
    tally, decoder = Tally(), msgspec.json.Decoder(DecisionRecord)
    payloads = [payload for place, payload in enumerate(_payloads(part)) if place not in again]
    for start in range(0, len(payloads), MADE_AT_ONCE):
        records = [record_in(payload, decoder) for payload in payloads[start : start + MADE_AT_ONCE]]
        _tally(engine, [one for one in records if one is not None and not out.has(one.customer_id, one.at)], tally)
    return tally


def _tally(engine: Engine, records: Sequence[DecisionRecord], tally: Tally) -> None:
    """Who was held out got fallbacks whatever the catalog said, and would again: they do not count on either side."""
    tally.held_out += sum(map(_is_held_out, records))
    records = [record for record in records if not _is_held_out(record)]
    known = [_at_known_placements(engine, record) for record in records]
    tally.decisions += len(records)
    tally.unknown_placements += sum(len(r.placements) for r in records) - sum(len(r.placements) for r in known)
    for record in known:
        for placement in record.placements:
            tally.asked[placement.id] += 1
            if placement.fallback:
                tally.logged_nothing[placement.id] += 1
            else:
                tally.logged.update((placement.id, item.action_id) for item in placement.items)
    for found in outline(engine, [request_of(record) for record in known]):
        _tally_outline(engine, [known[row] for row in found.rows.tolist()], found, tally)


def _is_held_out(record: DecisionRecord) -> bool:
    return record.experiment is not None and record.experiment.id == HOLDOUT


def _at_known_placements(engine: Engine, record: DecisionRecord) -> DecisionRecord:
    kept = tuple(p for p in record.placements if p.id in engine.plans)
    return record if len(kept) == len(record.placements) else msgspec.structs.replace(record, placements=kept)


def _tally_outline(engine: Engine, records: Sequence[DecisionRecord], found: Outline, tally: Tally) -> None:
    counts = np.bincount(found.chosen[found.chosen != NONE_LEFT], minlength=len(engine.actions)).tolist()
    tally.drafted.update({(found.placement, engine.actions[i].id): count for i, count in enumerate(counts) if count})
    tally.drafted_nothing[found.placement] += int((found.chosen == NONE_LEFT).all(axis=1).sum())
    tally.dropped.update(found.dropped)
    customers = []
    for row, record in enumerate(records):
        placement = next(p for p in record.placements if p.id == found.placement)
        if not placement.fallback:
            item = placement.items[0]
            position = engine.positions.get(item.action_id)
            likely = 0.0 if position is None else float(found.first[row, position])
            tally.weights.append(likely / item.choice_probability)
            tally.choices.append((record.decision_id, found.placement, item.action_id))
            customers.append(record.customer_id)
    tally.customers.frombytes(_hashes(customers).tobytes())
