"""What actions change: doing nothing changes nothing, whatever a model makes of it."""

from collections.abc import Sequence

import numpy as np

from features.vectors import Matrix
from service.catalog.entities import Action
from service.decision.scoring import Rates, Scorer


class UpliftScorer:
    """The uplifts of another scorer, with 0 for each action of kind `nothing`: what makes things worse ranks below it."""

    def __init__(self, scorer: Scorer, actions: Sequence[Action]) -> None:
        self.inputs = scorer.inputs
        self._scorer = scorer
        self._changes = np.array([action.kind != "nothing" for action in actions], np.bool_)

    def score(self, requests: Matrix) -> Rates:
        """Uplifts: float32 (requests, inputs) -> float64 (requests, actions)."""
        return np.where(self._changes, self._scorer.score(requests), 0.0)
