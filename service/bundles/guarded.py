"""A scorer whose answers are looked at before they are believed: a model may fail in ways that no test of it has shown."""

import time
from collections import deque
from collections.abc import Callable

import numpy as np

from features.vectors import Matrix
from service.decision.scoring import Rates, Scorer
from service.errors import ModelFailed

WATCHED = 100  # calls that are remembered
MOST_BAD = 8  # in weights, among them: then the model is given up
SLOW_WEIGHS = 4  # everybody waits for a slow call
PATIENCE_S = 0.05
PATIENCE_A_ROW_S = 20e-6  # four times what 300 trees take for a request and an action


class ModelWatch:
    """How a model's last calls went. `give_up` is called once, with the reason, where too many were bad."""

    def __init__(self, give_up: Callable[[str], None]) -> None:
        self._give_up = give_up
        self._weights: deque[int] = deque(maxlen=WATCHED)
        self._given_up = False

    def good(self) -> None:
        """It answered well and in time."""
        self._weights.append(0)

    def bad(self, problem: str, weight: int = 1) -> None:
        """It did not."""
        self._weights.append(weight)
        if not self._given_up and sum(self._weights) >= MOST_BAD:
            self._given_up = True
            self._give_up(f"{sum(w > 0 for w in self._weights)} bad calls: {problem}")


class GuardedScorer:
    """Believes finite rates of the right shape; a call that took too long counts against the model all the same."""

    def __init__(self, scorer: Scorer, actions: int, watch: ModelWatch, clock: Callable[[], float] = time.perf_counter) -> None:
        self.inputs = scorer.inputs
        self._scorer = scorer
        self._actions = actions
        self._watch = watch
        self._clock = clock

    def score(self, requests: Matrix) -> Rates:
        """Predicted rates: float32 (requests, inputs) -> float64 (requests, actions). Raises ModelFailed."""
        started = self._clock()
        try:
            rates = self._scorer.score(requests)
        except Exception as error:  # ONNX Runtime raises several unrelated classes, and no model may stop an answer
            raise self._failed(f"Expected rates from the model, got: {error}") from error
        taken = self._clock() - started
        if rates.shape != (len(requests), self._actions):
            raise self._failed(f"Expected rates of shape {(len(requests), self._actions)}, got {rates.shape}")
        if np.count_nonzero(np.isfinite(rates)) < rates.size:
            raise self._failed(f"Expected finite rates, got {rates[~np.isfinite(rates)][0]}")
        if taken > PATIENCE_S + PATIENCE_A_ROW_S * rates.size:
            self._watch.bad(f"Expected rates within {PATIENCE_S:g} s, got them after {taken:.2f} s", SLOW_WEIGHS)
        else:
            self._watch.good()
        return rates

    def _failed(self, problem: str) -> ModelFailed:
        self._watch.bad(problem)
        return ModelFailed(problem)
