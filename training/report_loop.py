"""Whether the loop still explores: a model that learns from what it shows must go on showing what it does not believe in."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.stats import poisson

from service.catalog.entities import Placement
from training.off_policy import NORMAL_95, Interval
from training.report_counts import Periods, Served, effective_actions

Values = npt.NDArray[np.float64]

CHANCE = 0.001  # how often an action that gets its floor seems not to: of all that are looked at, together


class Explored(msgspec.Struct, frozen=True):
    """A period: share of first slots that were explored with its 95 % interval, and how many actions are as varied."""

    share: Interval
    actions: float
    decisions: int


class Coverage(msgspec.Struct, frozen=True):
    """Of the actions that a placement could have shown, how many it did, period by period (NaN without decisions)."""

    placement: str
    shown: tuple[float, ...]


class Starved(msgspec.Struct, frozen=True):
    """An action that did not get its floor: shown `shown` times, `expected` at least, and how likely so few are."""

    placement: str
    action: str
    shown: int
    expected: float
    p: float

    @property
    def told(self) -> str:
        """The warning."""
        return (
            f"`{self.action}` stopped getting its floor at `{self.placement}`: shown {self.shown:,} times where at least "
            f"{self.expected:,.0f} were to be expected (p {self.p:.1e})"
        )


class Floors(NamedTuple):
    """What explores where. `thin`: actions with little evidence; `mandatory`: actions that leave nothing to chance."""

    placements: Mapping[str, Placement]
    thin: Mapping[str, frozenset[str]]
    mandatory: frozenset[str] = frozenset()


class Loop(NamedTuple):
    explored: tuple[Explored, ...]
    coverage: tuple[Coverage, ...]
    starved: tuple[Starved, ...]


def loop(served: Served, times: Periods, floors: Floors) -> Loop:
    """All of it, period by period; starved actions of the newest quarter of the time."""
    place, number = times.of(served.at), len(times.starts)
    explored = tuple(_explored(served, place == one) for one in range(number))
    names = sorted(set(served.placement.tolist()))
    coverage = tuple(Coverage(name, tuple(_covered(served, (place == n) & (served.placement == name)) for n in range(number)))
                     for name in names)  # fmt: skip
    newest = served.at >= times.starts[-max(1, number // 4)]
    return Loop(explored, coverage, tuple(starved(served, newest, floors)))


def share_interval(successes: float, rows: int) -> Interval:
    """A share with its 95 % interval: Wilson 1927. (0, 1) without rows."""
    if not rows:
        return Interval(float("nan"), 0.0, 1.0)
    share, z = successes / rows, NORMAL_95**2 / rows
    middle = (share + z / 2) / (1 + z)
    radius = float(np.sqrt(z * share * (1 - share) + z**2 / 4)) / (1 + z)
    return Interval(share, max(0.0, middle - radius), min(1.0, middle + radius))


def _explored(served: Served, rows: npt.NDArray[np.bool_]) -> Explored:
    counts = np.unique(served.action[rows], return_counts=True)[1].astype(np.float64)
    total = int(rows.sum())
    return Explored(share_interval(float(served.explored[rows].sum()), total), effective_actions(counts), total)


def _covered(served: Served, rows: npt.NDArray[np.bool_]) -> float:
    eligible = {action for row in np.flatnonzero(rows).tolist() for action in served.candidates[row]}
    if not eligible:
        return float("nan")
    return len(eligible & set(served.action[rows].tolist())) / len(eligible)


def starved(served: Served, rows: npt.NDArray[np.bool_], floors: Floors) -> list[Starved]:
    """Actions that were shown less than exploration alone promises, in so many of the rows; experiments aside.

    A choice with k candidates, j of them with little evidence, takes one of them with epsilon (1 - f) / k at least, plus f / j
    where it is among the j (f is the floor, none where j is 0). So few of such choices together: a Poisson tail is an upper bound
    (Hoeffding 1956 for unequal chances, Anderson and Samuels 1967 for the Poisson). Several at once: Bonferroni.
    """
    expected: dict[tuple[str, str], float] = {}
    shown: dict[tuple[str, str], int] = {}
    for row in np.flatnonzero(rows & ~served.assigned).tolist():
        name, candidates = str(served.placement[row]), served.candidates[row]
        if name not in floors.placements or not candidates or floors.mandatory & set(candidates):
            continue
        explore, unsure = floors.placements[name].explore, floors.thin.get(name, frozenset()) & set(candidates)
        floor = explore.floor_share if unsure else 0.0
        for action in candidates:
            least = (1.0 - floor) * explore.epsilon / len(candidates) + (floor / len(unsure) if action in unsure else 0.0)
            expected[name, action] = expected.get((name, action), 0.0) + least
        key = name, str(served.action[row])
        shown[key] = shown.get(key, 0) + 1
    found = [
        Starved(*key, shown.get(key, 0), least, float(poisson.cdf(shown.get(key, 0), least)))
        for key, least in expected.items() if least > 0.0
    ]  # fmt: skip
    return sorted((one for one in found if one.p < CHANCE / len(found)), key=lambda one: one.p)
