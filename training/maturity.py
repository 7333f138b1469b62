"""Outcomes that have not come yet: a purchase takes days, and a row of this morning without one is no failure.

Rows are mature once their window is over. Of younger ones the delays of the successes that have come say how many have still
to come: a success that was seen stands for the others that were as likely to be late.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.errors import NotReady
from training.examples import Examples

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LEAST_REACHED = 0.1  # of the successes must have had the time to come: a row that is younger says next to nothing


class Delays(NamedTuple):
    """How long successes take: `reached[i]` of those that come within the window have come after `after[i]` seconds."""

    after: Values
    reached: Values

    def reached_by(self, age: Values) -> Values:
        """The share of successes that rows of these ages can have seen: seconds (rows,) -> (rows,)."""
        place = np.searchsorted(self.after, age, side="right")
        return np.concatenate([[0.0], self.reached])[place]


def delays_of(delay: Values, age: Values, window: float) -> Delays:
    """The distribution of delays from the successes that have come: seconds, (rows,) each; NaN is no success so far.

    A success that would have taken longer than its row is old is not among them, so short delays are too many: the product-limit
    estimate for right-truncated values, backwards in time (Lagakos, Barraj and De Gruttola 1988). Raises NotReady where no row
    is as old as the window: what comes late was never seen then.
    """
    if not len(age) or age.max() < window:
        oldest = age.max() if len(age) else 0.0
        raise NotReady(f"Expected rows as old as the window of {window:.0f} s, found none older than {oldest:.0f} s")
    seen = ~np.isnan(delay) & (delay <= np.minimum(age, window))
    came, could = delay[seen], np.minimum(age[seen], window)
    after, times = np.unique(came, return_counts=True)
    # who came within `after`, and was under observation for so long
    at_risk = np.cumsum(times) - np.searchsorted(np.sort(could), after, side="left")
    kept = 1.0 - times / at_risk
    later = np.concatenate([np.cumprod(kept[::-1])[::-1][1:], [1.0]])  # none of those that come later
    return Delays(after, later)


def mature(examples: Examples, window: float | None) -> Examples:
    """Only the rows whose window is over; all of them without a window."""
    return examples if window is None else examples.take(examples.age >= window)


def corrected(examples: Examples, window: float | None, *, is_value: bool = False) -> Examples:
    """All rows that are old enough to say something, each label divided by the share of successes that it can have seen.

    The mean of such labels is the rate that there will be, of any rows chosen by what was known when they were decided: what an
    estimator takes for a reward. A single one may be above 1. Raises NotReady (`delays_of`).

    `is_value`: labels are amounts. Those may come several times, and when the first one came does not say how much is to come:
    only mature rows count.
    """
    if is_value:
        return mature(examples, window)
    if window is None or examples.delay is None:
        return examples
    delays = delays_of(examples.delay, examples.age, window)
    is_over = examples.age >= window  # these have seen all that counts, also where no success says how late one may be
    reached = np.where(is_over, 1.0, delays.reached_by(examples.age))
    told = reached >= LEAST_REACHED
    return examples.take(told).with_label((examples.label / np.maximum(reached, LEAST_REACHED))[told])
