"""Recency, frequency and monetary value as scores from 1 to 5, and the segment that they make: fixed rules, nothing learned."""

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

FIFTHS = 5


def fifths(values: Values) -> Values:
    """1 to 5 by how many customers have less, half of the equal ones among them: equal values get equal scores. (customers,)."""
    if not len(values):
        return np.zeros(0)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    scores: Values = 1.0 + np.floor(FIFTHS * (below + counts / 2) / len(values))
    return np.minimum(scores, FIFTHS)[inverse]


def segments(recency: Values, frequency: Values, monetary: Values, repeats: Values) -> list[str]:
    """The first that fits, by scores of 1 to 5 (5 bought last, most often, for most) and the number of repeat purchases.

    | segment | who |
    |---|---|
    | `new` | bought once, recency 4 or 5 |
    | `champions` | all three 4 or 5 |
    | `loyal` | recency 3 to 5, frequency 4 or 5 |
    | `promising` | recency 4 or 5 |
    | `at_risk` | recency 1 or 2, frequency 3 to 5 |
    | `hibernating` | recency 1 or 2 |
    | `needs_attention` | recency 3 |
    """
    fresh, gone, often = recency >= 4, recency <= 2, frequency >= 4  # noqa: PLR2004  # the table above
    conditions = [
        fresh & (repeats == 0), fresh & often & (monetary >= 4), ~gone & often, fresh, gone & (frequency >= 3), gone,  # noqa: PLR2004  # the table above
    ]  # fmt: skip
    names = ["new", "champions", "loyal", "promising", "at_risk", "hibernating"]
    found: list[str] = np.select(conditions, names, "needs_attention").tolist()
    return found
