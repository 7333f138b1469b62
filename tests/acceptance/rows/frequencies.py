"""Row 4: the probability that is logged is the probability with which it happens."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec
from scipy.stats import chi2

from service.decision.records import DecisionRecord, decode_lines
from tests.acceptance.prepared import prepared_home
from tests.acceptance.row import Context, Measured, NotRun, Row
from tests.acceptance.rows.footprint import placement_of, serving
from tests.acceptance.rows.swap import visits
from training.demo.traffic import Tally, Visit, play

DECISIONS = 20_000
CUSTOMERS = 4  # each decided for 5,000 times: every action that may be explored is seen, so its claim is on file
SIGNIFICANCE = 0.001


class Test(NamedTuple):
    """Pearson's chi-square: sum of (observed - expected)^2 / expected over the cells of every group."""

    statistic: float
    freedom: int

    @property
    def p(self) -> float:
        return float(chi2.sf(self.statistic, self.freedom))


def measure(context: Context) -> Measured:
    home = prepared_home(context)
    with serving(home, context) as (_, url, _ready):
        known = len(list(logged(home)))
        tally = Tally()
        play(url, _repeated(islice(visits(home, placement_of(home)), CUSTOMERS)), tally)
    if tally.failures:
        raise NotRun(f"{len(tally.failures)} requests failed, first: {tally.failures[0]}")
    groups = list(_groups(list(logged(home))[known:]))
    claimed, before = chi_square(groups, explored=True), chi_square(groups, explored=False)
    counted = sum(sum(g.observed.values()) for g in groups)
    figure = (
        f"{counted} decisions, {len(groups)} groups: p = {claimed.p:.3f} (chi-square {claimed.statistic:.1f}, "
        f"{claimed.freedom} degrees of freedom); before exploration p = {before.p:.1e}"
    )
    return Measured(figure, counted == DECISIONS and claimed.p > SIGNIFICANCE >= before.p)


def _repeated(customers: Iterable[Visit]) -> Iterator[Visit]:
    for visit in customers:
        for _ in range(DECISIONS // CUSTOMERS):
            yield visit


def logged(home: Path) -> Iterator[DecisionRecord]:
    """Every decision of the live log, oldest segment first."""
    for segment in sorted((home / "log" / "decisions").rglob("*.log")):
        for line in decode_lines(segment.read_bytes()):
            if line.payload is not None:
                yield msgspec.json.decode(line.payload, type=DecisionRecord)


class Group(NamedTuple):
    """Decisions under equal circumstances: how often each action was served, what was claimed, and which was the best."""

    observed: dict[str, int]
    claimed: dict[str, float]
    best: str


def _groups(records: Iterable[DecisionRecord]) -> Iterator[Group]:
    """Equal circumstances: same candidates with same utilities, hence same claim for each action."""
    together: dict[object, list[DecisionRecord]] = defaultdict(list)
    for record in records:
        placement = record.placements[0]
        together[placement.candidates, placement.utilities].append(record)
    for members in together.values():
        yield _group(members)


def _group(members: list[DecisionRecord]) -> Group:
    placement = members[0].placements[0]
    observed = dict.fromkeys(placement.candidates, 0)
    claimed: dict[str, float] = {}
    for record in members:
        item = record.placements[0].items[0]
        observed[item.action_id] += 1
        if claimed.setdefault(item.action_id, item.choice_probability) != item.choice_probability:
            raise NotRun(f"one action carries two probabilities under equal circumstances: {item.action_id}")
    best = max(zip(placement.utilities, [-i for i in range(len(observed))], placement.candidates, strict=True))[2]
    return Group(observed, claimed, best)


def chi_square(groups: Iterable[Group], *, explored: bool) -> Test:
    """Against the claimed probability, or against the one before exploration: all on the best."""
    statistic, freedom = 0.0, 0
    for group in groups:
        claims = group.claimed if explored else {group.best: 1.0}
        count = sum(group.observed.values())
        rest = 1.0 - sum(claims.values())  # of actions that were never served, and so never logged
        cells = [(group.observed[a], count * claims.get(a, 0.0)) for a in group.observed if a in claims or group.observed[a]]
        cells += [(0, count * rest)] if rest > 1e-9 else []  # rounding of the sum
        statistic += sum((seen - expected) ** 2 / expected if expected else float("inf") for seen, expected in cells)
        freedom += max(1, len(cells) - 1)
    return Test(statistic, freedom)


ROW = Row(
    4,
    "20,000 decisions: frequency of each action against the logged probability",
    f"chi-square p > {SIGNIFICANCE}; with the probability before exploration the same test fails",
    measure,
)
