"""What customers of one kind lose where a challenger takes the champion's place, though all together may gain."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from training.off_policy import NORMAL_95, Clusters, Interval, Rows, doubly_robust, doubts_of, mean_interval

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BY_CHANCE = 0.05  # how often any of the intervals misses its truth


class Compared(NamedTuple):
    """The judged rows as either policy sees them, (rows,); `clusters`: 0 to G - 1, rows of one customer share one."""

    challenger: Rows
    champion: Rows
    clusters: Clusters

    def take(self, rows: Mask) -> "Compared":
        """Some of the rows."""
        return Compared(self.challenger.take(rows), self.champion.take(rows), self.clusters[rows])

    @property
    def is_told(self) -> bool:
        """Whether the rows can carry a value of both."""
        return not any(doubts_of(rows, self.clusters) for rows in (self.challenger, self.champion))


class Loss(NamedTuple):
    """What a segment loses per decision, and what the champion is worth there."""

    name: str
    lost: Interval
    value: float

    def is_beyond(self, share: float) -> bool:
        """Whether the whole interval lies beyond that share of the champion's value."""
        return self.lost.low > share * max(0.0, self.value)

    def told(self) -> str:
        """In words, with its interval."""
        return (
            f"{self.name}: loses {self.lost.value:.3f} [{self.lost.low:.3f}, {self.lost.high:.3f}] a decision of {self.value:.3f}"
        )


def segment_losses(compared: Compared, segments: Iterable[tuple[str, Mask]]) -> list[Loss]:
    """Of each segment whose rows can carry it: bool (rows,) by name.

    Champion minus challenger, doubly robust on the same rows. So many intervals hold together with 95 %: each of m has the level
    1 - 0.05 / m (Bonferroni; Dunn 1961).
    """
    parts = [(name, part) for name, rows in segments if (part := compared.take(rows)).is_told]
    wide = float(norm.isf(BY_CHANCE / 2 / max(1, len(parts)))) / NORMAL_95
    return [_loss(name, part, wide) for name, part in parts]


def _loss(name: str, part: Compared, wide: float) -> Loss:
    champion = doubly_robust(part.champion)
    found = mean_interval(champion - doubly_robust(part.challenger), np.unique(part.clusters, return_inverse=True)[1])
    half = wide * (found.high - found.value)
    return Loss(name, Interval(found.value, found.value - half, found.value + half), float(champion.mean()))
