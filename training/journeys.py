"""Customers' journeys over everything that was written down: their paths, and where many of them turn or leave.

Unlike the live features, which follow the newest events of each kind, a path is followed from a customer's first event.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import msgspec

from features.contract import Journey
from features.event_types import home_event_types
from features.homes import home_contract, journey_path
from features.live import hash_of
from features.walk import TIMED_OUT, US, Entry, Walk
from service.errors import NotReady
from training.event_history import feeding, read_aliases, read_events

Progress = Callable[[int, int], None]
TOLD_EVERY = 1000  # customers


class Visit(NamedTuple):
    """A stay in a stage. Moments in seconds since 1970 UTC; `left` is None while it lasts.

    `cause`: the type of the event that led here, None after a time-out and in the stage where everybody starts. That one begins
    with the first event that could lead anywhere.
    """

    stage: str
    began: float
    cause: str | None
    left: float | None = None
    timed_out: bool = False


class Flow(msgspec.Struct, frozen=True):
    """From one stage straight to another, by an event or by a time-out. `share`: of the visits to the first."""

    origin: str
    target: str
    timed_out: bool
    count: int
    customers: int
    share: float


class StageFigures(msgspec.Struct, frozen=True):
    """What became of the visits to a stage: an event led on, a time-out ended them, or they last.

    `drop_off` is the share that a time-out ended. `median_s`: seconds of the visits that are over, but for a customer's first in
    the stage where everybody starts.
    """

    stage: str
    customers: int
    visits: int
    moved_on: int
    timed_out: int
    here: int
    drop_off: float
    median_s: float | None
    position: float  # of a customer's first visit among all stages they have seen, on average; 0 is the first


class Loop(msgspec.Struct, frozen=True):
    """To another stage and straight back. `after_time_out`: how many of them left by a time-out, and came back later."""

    stage: str
    by_way_of: str
    count: int
    customers: int
    after_time_out: int


class JourneyReport(msgspec.Struct, frozen=True):
    """Visits that began in a time, as they stood at its end. Moments in seconds since 1970 UTC."""

    since: float | None
    until: float
    customers: int
    stages: tuple[StageFigures, ...]
    flows: tuple[Flow, ...]
    loops: tuple[Loop, ...]


def journey_of(home: Path) -> Journey:
    """The journey of a home, which its events can feed. Raises NotReady where there is none."""
    contract = home_contract(home)
    if contract.journey is None:
        raise NotReady(f"Expected a journey, found none - at `{journey_path(home)}`")
    home_event_types(home, contract)
    return contract.journey


def journey_report(home: Path, since: float | None, until: float, progress: Progress = lambda _done, _of: None) -> JourneyReport:
    """Over the whole history. `since`, `until`: seconds since 1970 UTC. Raises NotReady where there is no journey."""
    walk = Walk(journey_of(home))
    tally = _Tally()
    histories = _histories(home, walk, until)
    for done, entries in enumerate(histories.values(), 1):
        tally.add(visits(walk, entries, until), since)
        if done % TOLD_EVERY == 0 or done == len(histories):
            progress(done, len(histories))
    return tally.report(walk.names, since, until)


def journey_path_of(home: Path, customer: str, until: float) -> list[Visit]:
    """One customer's visits, oldest first; an alias is the customer it leads to. Raises NotReady."""
    walk = Walk(journey_of(home))
    name = read_aliases(home).get(customer, customer)
    entries = _histories(home, walk, until, name).get(name)
    if entries is None:
        raise NotReady(f"Expected a customer of whom events are known that the journey reads, got `{customer}`")
    return list(visits(walk, entries, until))


def _histories(home: Path, walk: Walk, until: float, only: str | None = None) -> dict[str, list[Entry]]:
    """What customers did that could lead anywhere, in order of time."""
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    for customer, event in feeding(read_events(home), read_aliases(home)):
        if event.at <= until and only in (None, customer) and (kind := walk.kind(event.type, event.properties)):
            found[customer].append((round(event.at * US), hash_of(event.event_id), kind))
    for entries in found.values():
        entries.sort()
    return dict(found)


def visits(walk: Walk, entries: Sequence[Entry], until: float) -> Iterator[Visit]:
    """The stays in stages that events lead to, oldest first. At least one event."""
    last = Visit(walk.names[walk.start], entries[0][0] / US, None)
    for stage, at, kind in walk.changes(entries, round(until * US)):
        yield last._replace(left=at / US, timed_out=kind == TIMED_OUT)
        last = Visit(walk.names[stage], at / US, None if kind == TIMED_OUT else walk.type_of(kind))
    yield last


class _Tally:
    """Counts visits, customer by customer."""

    def __init__(self) -> None:
        self._customers = 0
        self._visits: Counter[str] = Counter()
        self._here: Counter[str] = Counter()
        self._seen_by: Counter[str] = Counter()
        self._lengths: defaultdict[str, list[float]] = defaultdict(list)
        self._positions: defaultdict[str, list[int]] = defaultdict(list)
        self._flows: Counter[tuple[str, str, bool]] = Counter()
        self._flow_customers: Counter[tuple[str, str, bool]] = Counter()
        self._loops: Counter[tuple[str, str, bool]] = Counter()
        self._loop_customers: Counter[tuple[str, str]] = Counter()

    def add(self, path: Iterable[Visit], since: float | None) -> None:
        """One customer."""
        whole = list(path)
        counted = [visit for visit in whole if since is None or visit.began >= since]
        self._customers += bool(counted)
        for visit in counted:
            self._visits[visit.stage] += 1
            if visit.left is None:
                self._here[visit.stage] += 1
            elif visit is not whole[0]:
                self._lengths[visit.stage].append(visit.left - visit.began)
        first_seen = list(dict.fromkeys(visit.stage for visit in counted))
        self._seen_by.update(first_seen)
        for position, stage in enumerate(first_seen):
            self._positions[stage].append(position)
        flows = [(one.stage, other.stage, one.timed_out) for one, other in pairwise(counted)]
        self._flows.update(flows)
        self._flow_customers.update(set(flows))
        loops = [(first[0], first[1], first[2]) for first, second in pairwise(flows) if first[0] == second[1]]
        self._loops.update(loops)
        self._loop_customers.update({(stage, other) for stage, other, _ in loops})

    def report(self, names: Sequence[str], since: float | None, until: float) -> JourneyReport:
        """What was counted."""
        flows = [
            Flow(origin, target, timed_out, count, self._flow_customers[origin, target, timed_out], count / self._visits[origin])
            for (origin, target, timed_out), count in self._flows.most_common()
        ]
        stages = tuple(self._stage(name) for name in names if self._visits[name])
        loops = [
            Loop(stage, other, self._loops[stage, other, False] + late, customers, late)
            for (stage, other), customers in self._loop_customers.items() for late in [self._loops[stage, other, True]]
        ]  # fmt: skip
        loops.sort(key=lambda loop: (-loop.count, loop.stage, loop.by_way_of))
        return JourneyReport(since, until, self._customers, stages, tuple(flows), tuple(loops))

    def _stage(self, name: str) -> StageFigures:
        count, here = self._visits[name], self._here[name]
        timed_out = sum(n for (origin, _, by_time), n in self._flows.items() if origin == name and by_time)
        lengths = self._lengths[name]
        return StageFigures(
            stage=name, customers=self._seen_by[name], visits=count, moved_on=count - here - timed_out, timed_out=timed_out,
            here=here, drop_off=timed_out / count, median_s=median(lengths) if lengths else None,
            position=fmean(self._positions[name]),
        )  # fmt: skip
