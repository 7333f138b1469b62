"""Scores by fifths, and segments by fixed rules."""

import numpy as np
import pytest

from features.contract import SEGMENTS
from features.segments import fifths, segments


def test_scores_are_fifths_and_equal_values_share_theirs():
    """Ten different values give two of each; in what order they come does not matter; ties are not torn apart."""
    assert fifths(np.arange(10.0)[::-1]).tolist() == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert fifths(np.zeros(7)).tolist() == [3] * 7
    assert fifths(np.array([0.0, 0, 0, 0, 0, 0, 1, 2, 3, 4])).tolist() == [2, 2, 2, 2, 2, 2, 4, 4, 5, 5]
    assert fifths(np.array([])).tolist() == []


@pytest.mark.parametrize(
    ("scores", "repeats", "segment"),
    [
        ((5, 2, 3), 0, "new"), ((5, 5, 4), 9, "champions"), ((5, 5, 2), 9, "loyal"), ((3, 4, 1), 5, "loyal"),
        ((4, 3, 5), 2, "promising"), ((2, 3, 1), 2, "at_risk"), ((1, 5, 5), 9, "at_risk"), ((1, 2, 5), 0, "hibernating"),
        ((3, 3, 3), 2, "needs_attention"), ((3, 1, 1), 0, "needs_attention"),
    ],
)  # fmt: skip
def test_a_segment_is_the_first_rule_that_fits(scores, repeats, segment):
    """Recency, frequency, monetary value, and who has bought only once."""
    assert segments(*(np.array([float(score)]) for score in scores), np.array([float(repeats)])) == [segment]


def test_every_combination_of_scores_is_a_declared_segment():
    """The vocabulary of the feature is complete, and none of it is unreachable."""
    grid = np.array([(r, f, m, x) for r in range(1, 6) for f in range(1, 6) for m in range(1, 6) for x in (0, 3)], np.float64)
    assert set(segments(*grid.T)) == set(SEGMENTS)
