"""The scorer for when there is no model."""

import numpy as np

from service.decision.scoring import FlatScorer


def test_every_customer_gets_the_same_rates():
    """It reads nothing of the request."""
    scorer = FlatScorer([0.1, 0.2])
    assert scorer.inputs == ()
    assert scorer.score(np.zeros((3, 0), np.float32)).tolist() == [[0.1, 0.2]] * 3
