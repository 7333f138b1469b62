"""What the engine asks of a model, and the scorer for when there is none."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from features.contract import Feature
from features.vectors import Matrix

Rates = npt.NDArray[np.float64]
Predicts = Literal["rate", "value", "uplift"]
"""How often an action succeeds; what it brings, on which no value is put; how much it changes of either against `nothing`."""


class Scorer(Protocol):
    """Predicts, for every request and every action of one catalog, the rate at which the action succeeds, or what it brings."""

    inputs: tuple[Feature, ...]  # what it reads of a request: customer and context features, in order

    def score(self, requests: Matrix) -> Rates:
        """Predicted rates: float32 (requests, inputs) -> float64 (requests, actions).

        Each within [0, 1]; of values from 0; of uplifts any number.
        """


class FlatScorer:
    """The same rate for every customer: the observed rate of each action, or zero, which leaves the choice to priority."""

    inputs: tuple[Feature, ...] = ()

    def __init__(self, rates: Sequence[float]) -> None:
        self._rates = np.asarray(rates, np.float64)

    def score(self, requests: Matrix) -> Rates:
        return np.broadcast_to(self._rates, (len(requests), len(self._rates)))
