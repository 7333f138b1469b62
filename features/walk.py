"""Following a journey: the stage that somebody is in at a moment, and what has to be kept of events to say so.

What is kept of a customer are the newest events of each kind that could lead anywhere. The stage is worked out from them whenever
it is asked for, with the time-outs until then. So the order in which events come does not matter, nor whether one comes twice,
and two customers who turn out to be one have one journey.
"""

import hashlib
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain, starmap
from typing import NamedTuple

import msgspec

from features.contract import DAYS_IN_STAGE, Contract, ContractError, Journey, Move

MOST_KEPT = 16  # events of a kind: with more between two moves, the oldest are forgotten
US = 1_000_000  # moments here are whole microseconds, so that a time-out falls on the same one everywhere
DAY = 86_400.0
NEVER = 2**62

TIMED_OUT = 0  # the kind of what happened where nothing did
ENTRY = struct.Struct("<qQI")

Entry = tuple[int, int, int]
"""(moment in microseconds, hash of the event's id, kind: one bit for each condition that the event meets)"""
Property = float | str
Change = tuple[int, int, int]
"""(stage that began, when in microseconds, kind of the event that led there, or `TIMED_OUT`)"""
Condition = tuple[str, tuple[tuple[str, Property], ...]]  # a type, and the properties it must have


class Standing(NamedTuple):
    """Where somebody is. `since`: microseconds since 1970 UTC, None in the first stage, which began before anything was known."""

    stage: str
    since: int | None
    previous: str | None


class Walk:
    """Follows a journey. Pure: no clock, no store."""

    def __init__(self, journey: Journey) -> None:
        self.names = journey.names
        self.start = self.names.index(journey.start)
        self.conditions: tuple[Condition, ...] = tuple(
            sorted({condition_of(m) for s in journey.stages for m in s.moves}, key=repr)
        )
        self._of_type: defaultdict[str, list[tuple[int, Condition]]] = defaultdict(list)
        for number, condition in enumerate(self.conditions):
            self._of_type[condition[0]].append((1 << number, condition))
        self._kinds = {  # of the types whose properties nothing asks for
            name: sum(bit for bit, _ in found)
            for name, found in self._of_type.items()
            if not any(where for _, (_, where) in found)
        }
        bits = {condition: 1 << number for number, condition in enumerate(self.conditions)}
        self._moves = [[(bits[condition_of(m)], self.names.index(m.to)) for m in s.moves] for s in journey.stages]
        self._limits = [None if s.after is None else (round(s.after * US), self.names.index(s.then)) for s in journey.stages]
        self._targets: list[dict[int, int]] = [{} for _ in self.names]  # by kind, filled as kinds come

    def kind(self, event_type: str, properties: Mapping[str, object]) -> int:
        """Which conditions an event meets; 0 where it can lead nowhere."""
        known = self._kinds.get(event_type)
        if known is not None:
            return known
        return sum(
            bit
            for bit, (_, where) in self._of_type.get(event_type, ())
            if all(properties.get(name) == wanted for name, wanted in where)
        )

    def type_of(self, kind: int) -> str:
        """The type of an event of a kind."""
        return self.conditions[(kind & -kind).bit_length() - 1][0]

    def changes(self, entries: Iterable[Entry], until: int) -> list[Change]:
        """Each time another stage began, until a moment. `entries` in order; a time-out comes before an event of its moment.

        Every decision comes by, hence plain tuples: features of 20 kept events take 10 us, of 128 (all that 8 kinds keep) 36 us.
        """
        found: list[Change] = []
        stage, waits_since = self.start, NEVER
        targets, limits = self._targets, self._limits
        for at, _, kind in chain(entries, ((until, 0, TIMED_OUT),)):
            limit = limits[stage]
            while limit is not None and waits_since + limit[0] <= at:
                stage, waits_since = limit[1], waits_since + limit[0]
                found.append((stage, waits_since, TIMED_OUT))
                limit = limits[stage]
            target = targets[stage].get(kind)
            if target is None:
                target = self._target(stage, kind)
            if target >= 0:
                waits_since = at
                if target != stage:
                    stage = target
                    found.append((stage, at, kind))
        return found

    def _target(self, stage: int, kind: int) -> int:
        """Where a kind of event leads from a stage; -1 where it leads nowhere."""
        found = next((target for bit, target in self._moves[stage] if bit & kind), -1)
        self._targets[stage][kind] = found
        return found

    def standing(self, entries: Iterable[Entry], until: int) -> Standing:
        """Where somebody is at a moment."""
        changes = self.changes(entries, until)
        if not changes:
            return Standing(self.names[self.start], None, None)
        stage, since, _ = changes[-1]
        return Standing(self.names[stage], since, self.names[changes[-2][0] if len(changes) > 1 else self.start])


class JourneyFeatures:
    """The features that tell where in the journey somebody is, and what has to be kept of events for them."""

    def __init__(self, contract: Contract) -> None:
        """Of a contract with a journey."""
        if contract.journey is None:
            raise ContractError("Expected a contract with a journey, got one without")
        self.walk = Walk(contract.journey)
        told = [(f.name, f.journey.tells, frozenset(f.categories)) for f in contract.live if f.journey is not None]
        self._days = [name for name, tells, _ in told if tells == DAYS_IN_STAGE]
        self._stages = [(name, tells == "stage", categories) for name, tells, categories in told if tells != DAYS_IN_STAGE]
        named = msgspec.json.encode(self.walk.conditions)
        self.key = f"journey:{hashlib.sha256(named).hexdigest()[:8]}"  # kinds mean nothing to a journey with other conditions

    @staticmethod
    def added(kept: bytes | None, entries: Iterable[Entry]) -> bytes:
        """What is kept, with these entries: of each kind the newest, each once, in the order in which they happened."""
        return b"".join(starmap(ENTRY.pack, newest(chain(ENTRY.iter_unpack(kept or b""), entries))))

    def joined(self, first: bytes | None, second: bytes | None) -> bytes | None:
        """What is kept of two customers who are one."""
        return self.added(first, ENTRY.iter_unpack(second)) if first and second else first or second

    def values(self, kept: bytes | None, now: float) -> dict[str, Property]:
        """What the features say at a moment in seconds since 1970 UTC; a missing one is left out."""
        return self.told(ENTRY.iter_unpack(kept or b""), now)

    def told(self, entries: Iterable[Entry], now: float) -> dict[str, Property]:
        """The same from entries, in their order."""
        until = round(now * US)
        stage, since, previous = self.walk.standing(entries, until)
        found: dict[str, Property] = {}
        for name, is_stage, categories in self._stages:
            value = stage if is_stage else previous
            if value in categories:
                found[name] = value
        if since is not None:
            found |= dict.fromkeys(self._days, max(0, until - since) / (DAY * US))
        return found


def newest(entries: Iterable[Entry]) -> list[Entry]:
    """Of each kind the newest, each once, in the order in which they happened."""
    ordered = sorted(set(entries))
    if len(ordered) <= MOST_KEPT:
        return ordered
    counts: dict[int, int] = {}
    kept = []
    for entry in reversed(ordered):
        count = counts[entry[2]] = counts.get(entry[2], 0) + 1
        if count <= MOST_KEPT:
            kept.append(entry)
    return kept[::-1]


def condition_of(move: Move) -> Condition:
    """What a move asks of an event."""
    return move.type, tuple(sorted(move.where.items()))
