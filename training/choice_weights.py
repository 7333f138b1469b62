"""Weights of logged rows by how likely they were: as though every action had been shown as often as any other that it could be.

A model that is too small to hold the truth is best where its rows lie, and those are the old policy's choices. Weights move its
best to where a new policy may choose (Shimodaira 2000), and pay for it with effective rows: what was rare counts for many.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.errors import NotReady
from training.off_policy import effective_sample_size

Values = npt.NDArray[np.float64]


class Weighing(NamedTuple):
    """Weights of rows, float64 (rows,), mean 1; none above `most`; `clipped` of them would be."""

    weights: Values
    most: float
    clipped: int

    def figures(self) -> dict[str, float]:
        """What a bundle says of them: the largest, how many were clipped, and how many unweighted rows they are worth."""
        return {
            "choice_weights.largest": round(float(self.weights.max()), 6),
            "choice_weights.clipped": float(self.clipped),
            "choice_weights.effective_rows": round(effective_sample_size(self.weights), 1),
        }

    def told(self) -> str:
        """The figures in words."""
        return (
            f"weighed by 1 / choice probability: largest weight {self.weights.max():.2f}, {self.clipped:,} of "
            f"{len(self.weights):,} rows clipped, worth {effective_sample_size(self.weights):,.0f} rows"
        )


def choice_weights(choice_probability: Values, most: float) -> Weighing:
    """min(c / p, most), with the c that makes their mean 1: (rows,) -> (rows,). `most` is above 1.

    Horvitz and Thompson 1952, truncated as in Ionides 2008. Raises NotReady where a probability is none.
    """
    if not ((choice_probability > 0.0) & (choice_probability <= 1.0)).all():
        worst = choice_probability[~((choice_probability > 0.0) & (choice_probability <= 1.0))][0]
        raise NotReady(f"Expected choice probabilities above 0 and up to 1 to weigh by, found {worst:g} - at `--weights choice`")
    raw = 1.0 / choice_probability
    weights, clipped = raw / raw.mean(), np.zeros(len(raw), np.bool_)
    while (beyond := ~clipped & (weights > most)).any():  # what is cut off goes to the others, and may lift some of them beyond
        clipped |= beyond
        left = len(raw) - most * clipped.sum()
        weights = np.where(clipped, most, raw * (left / raw[~clipped].sum()))
    return Weighing(weights, most, int(clipped.sum()))
