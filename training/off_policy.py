"""What a policy would have earned, estimated from the log of another one. Pure functions of arrays.

Every estimator gives one contribution per row; their mean is its value. Contributions of two policies on the same rows may be
subtracted row by row, which is how a gain gets its interval.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t as students_t

Values = npt.NDArray[np.float64]
Clusters = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

TWO_SIDED_95 = 0.975
NORMAL_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
FEWEST_EFFECTIVE = 100.0  # rows; below it an interval from the normal approximation says little
# successes, had or to be expected: of none at all the variance is 0, as if it were known for sure. With any number a challenger
# won in 13 of 100 worlds against a champion twice as good (2,000 rows, 200 of them the champion's, of which one in 100 succeeds)
FEWEST_SUCCESSES = 10.0
FEWEST_CUSTOMERS = 10  # whose rows a policy decides
STRENGTHS = np.geomspace(1.0, 1e6, 10)
LARGEST_SHARE = 0.05  # of the total weight on one row: above it that row decides alone


class Rows(NamedTuple):
    """The logged rows as one policy sees them. All float64, (rows,).

    `weight` is the policy's probability of the served action, divided by the logged one. `predicted` is the reward model's
    estimate for the served action, `expected` its mean over the policy's own choices. `decided`, bool: where the policy chooses
    by itself, and does not just what the log did; None where it does everywhere.
    """

    weight: Values
    reward: Values
    predicted: Values
    expected: Values
    decided: Mask | None = None

    @property
    def own_weight(self) -> Values:
        """The weights of what the policy decides: (decided,). The others are 1 by definition, and no evidence."""
        return self.weight if self.decided is None else self.weight[self.decided]

    def take(self, rows: Mask | Clusters) -> "Rows":
        """Some of the rows, by mask or by position."""
        decided = None if self.decided is None else self.decided[rows]
        return Rows(self.weight[rows], self.reward[rows], self.predicted[rows], self.expected[rows], decided)


class Interval(NamedTuple):
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


def direct_method(rows: Rows) -> Values:
    """The reward model alone: no variance from weights, all of its bias. Dudik, Langford and Li 2011, eq. 1."""
    return rows.expected


def inverse_propensity(rows: Rows) -> Values:
    """Rewards, weighted. Unbiased where every choice of the policy could have been logged. Dudik et al. 2011, eq. 2."""
    return rows.weight * rows.reward


def self_normalized(rows: Rows) -> Values:
    """Weights divided by their mean: a ratio, linearised so that it has contributions. Swaminathan and Joachims 2015, eq. 6."""
    mean = rows.weight.mean()
    if mean == 0.0:
        return np.zeros_like(rows.reward)
    value = float((rows.weight * rows.reward).mean()) / float(mean)
    contributions: Values = value + rows.weight / mean * (rows.reward - value)
    return contributions


def doubly_robust(rows: Rows) -> Values:
    """The reward model, corrected by weighted residuals: right if either model or weights are. Dudik et al. 2011, eq. 3."""
    return rows.expected + rows.weight * (rows.reward - rows.predicted)


def switched(rows: Rows, largest: float) -> Values:
    """The correction where the weight is `largest` at most, the reward model alone beyond. Wang, Agarwal and Dudik 2017."""
    return rows.expected + np.where(rows.weight <= largest, rows.weight, 0.0) * (rows.reward - rows.predicted)


def shrunk(rows: Rows, strength: float) -> Values:
    """Weights w become s w / (w^2 + s): small ones stay, large ones shrink. Su, Dimakopoulou, Krishnamurthy and Dudik 2020.

    `strength` s: none is the reward model, infinity is doubly robust.
    """
    if np.isinf(strength):
        return doubly_robust(rows)
    below = rows.weight**2 + strength
    weight = np.divide(strength * rows.weight, below, out=np.zeros_like(below), where=below > 0.0)
    return rows.expected + weight * (rows.reward - rows.predicted)


def switch_doubly_robust(rows: Rows) -> Values:
    """`switched` at the root of the number of rows.

    That grows too slowly for one row to decide, and is beyond every weight in the end (Ionides 2008, for truncated weights).
    """
    return switched(rows, float(np.sqrt(len(rows.weight))))


def shrunk_doubly_robust(rows: Rows) -> Values:
    """`shrunk` with the least estimated mean squared error, of ten strengths and infinity.

    The bias is what the mean differs by from that of doubly robust, which has none, and one standard error of that difference
    (Su et al. 2020 add an upper bound of it as well). An interval around the result knows of the variance alone, and holds the
    truth less often than it says.
    """
    best = unbiased = doubly_robust(rows)
    least = float(unbiased.var()) / len(unbiased)
    for strength in STRENGTHS.tolist():
        found = shrunk(rows, strength)
        missing = unbiased - found
        bias = abs(float(missing.mean())) + float(missing.std()) / len(found) ** 0.5
        error = float(found.var()) / len(found) + bias**2
        if error < least:
            best, least = found, error
    return best


ESTIMATORS: dict[str, Callable[[Rows], Values]] = {
    "dm": direct_method,
    "ips": inverse_propensity,
    "snips": self_normalized,
    "dr": doubly_robust,
    "switch_dr": switch_doubly_robust,
    "dr_os": shrunk_doubly_robust,
}


def mean_interval(contributions: Values, clusters: Clusters) -> Interval:
    """Mean of (rows,) with a 95 % interval that allows for rows of one customer to go together.

    Variance of a mean over clusters: Liang and Zeger 1986, with the factor G / (G - 1). `clusters`: (rows,), 0 to G - 1.
    One cluster alone says nothing about others: its interval is infinite. The quantile is Student's with G - 1 degrees of freedom
    (Cameron and Miller 2015, section VI): of five customers the normal one holds the truth in 88 of 100 worlds, this one in 95.
    """
    value = float(contributions.mean())
    sums = np.bincount(clusters, contributions - value)
    groups = int(np.count_nonzero(np.bincount(clusters)))
    if groups <= 1:
        return Interval(value, -np.inf, np.inf)
    error = float(np.sqrt((sums**2).sum() * groups / (groups - 1)) / len(contributions))
    half = float(students_t.ppf(TWO_SIDED_95, groups - 1)) * error
    return Interval(value, value - half, value + half)


def effective_sample_size(weights: Values) -> float:
    """How many unweighted rows the weighted ones are worth: (sum w)^2 / sum w^2. Kish 1965, section 11.7."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def doubts(weights: Values) -> list[str]:
    """Why the weighted rows cannot carry a verdict, in words; empty where they can."""
    found = []
    effective = effective_sample_size(weights)
    if not effective >= FEWEST_EFFECTIVE:  # not, so that a NaN is doubtful too
        found.append(f"effective sample size {effective:.0f} of {len(weights)} rows, at least {FEWEST_EFFECTIVE:.0f} are needed")
    total = float(weights.sum())
    if total and (share := float(weights.max()) / total) > LARGEST_SHARE:
        found.append(f"one row carries {share:.0%} of the weight (weight {weights.max():.4g}), at most {LARGEST_SHARE:.0%} may")
    return found


def successes(rows: Rows) -> float:
    """How many unweighted rows with a reward those that a policy decides are worth, or would be if it earned what the log did."""
    weights, is_success = rows.own_weight, (rows.reward if rows.decided is None else rows.reward[rows.decided]) != 0.0
    if not len(weights):
        return 0.0
    return max(effective_sample_size(weights[is_success]), effective_sample_size(weights) * float(is_success.mean()))


def doubts_of(rows: Rows, clusters: Clusters) -> list[str]:
    """Why what a policy decides cannot carry a verdict, in words; empty where it can. `clusters`: (rows,)."""
    found, told = doubts(rows.own_weight), successes(rows)
    if not told >= FEWEST_SUCCESSES:
        found.append(f"{told:.1f} successes, had or to be expected, at least {FEWEST_SUCCESSES:.0f} are needed")
    customers = len(np.unique(clusters if rows.decided is None else clusters[rows.decided]))
    if customers < FEWEST_CUSTOMERS:
        found.append(f"rows of {customers} customers, of at least {FEWEST_CUSTOMERS} are needed")
    return found


class Estimate(NamedTuple):
    """What a policy is worth by every estimator, and whether the rows can carry it. `largest`: weight of a single row."""

    intervals: dict[str, Interval]
    effective: float
    largest: float
    doubts: list[str]

    @property
    def verdict(self) -> str:
        """`refuse` where there is a doubt, else `tell`."""
        return "refuse" if self.doubts else "tell"


def estimate(rows: Rows, clusters: Clusters) -> Estimate:
    """All of it for one policy. `clusters`: (rows,), 0 to G - 1; rows of one customer share one."""
    intervals = {name: mean_interval(estimator(rows), clusters) for name, estimator in ESTIMATORS.items()}
    own = rows.own_weight
    return Estimate(intervals, effective_sample_size(own), float(own.max(initial=0.0)), doubts(own))
