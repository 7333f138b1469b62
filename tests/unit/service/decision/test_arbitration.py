"""Greedy, epsilon-greedy and the draw: claimed probabilities are the frequencies."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chisquare

from service.decision.arbitration import NONE_LEFT, draw, epsilon_greedy, greedy, uniform

UTILITIES = arrays(np.float64, (4, 5), elements=st.floats(0, 1e6))
MASKS = arrays(np.bool_, (4, 5))


def test_the_best_gets_what_exploration_leaves_and_its_even_share():
    """With four allowed and epsilon 0.2, the best has 0.8 + 0.05 and the others 0.05."""
    probabilities = epsilon_greedy(np.array([[1.0, 3.0, 2.0, 0.0, 9.0]]), np.array([[True, True, True, True, False]]), 0.2)
    np.testing.assert_allclose(probabilities, [[0.05, 0.85, 0.05, 0.05, 0.0]])


def test_the_first_of_several_equal_utilities_is_the_best():
    """Position decides ties, and position is the marketers' priority."""
    assert greedy(np.array([[2.0, 5.0, 5.0]]), np.array([[True, True, True]])).tolist() == [1]


def test_a_row_without_allowed_actions_has_no_choice():
    """Nothing allowed: no best, probabilities of zero, nothing drawn."""
    nothing = np.zeros((1, 3), np.bool_)
    assert greedy(np.ones((1, 3)), nothing).tolist() == [NONE_LEFT]
    assert epsilon_greedy(np.ones((1, 3)), nothing, 0.5).tolist() == [[0.0, 0.0, 0.0]]
    assert draw(np.zeros((1, 3)), np.array([0.5])).tolist() == [NONE_LEFT]


@given(UTILITIES, MASKS, st.floats(0, 1))
def test_probabilities_sum_to_one_over_what_is_allowed(utilities, allowed, epsilon):
    """Whatever the utilities: a row sums to one where anything is allowed, and what is not allowed has none."""
    probabilities = epsilon_greedy(utilities, allowed, epsilon)
    np.testing.assert_allclose(probabilities.sum(axis=1), allowed.any(axis=1).astype(float), atol=1e-12)
    assert (probabilities[~allowed] == 0).all()


@given(UTILITIES, MASKS, st.floats(0, 1), arrays(np.float64, 4, elements=st.floats(0, 1 - 2**-53)))
def test_nothing_with_a_probability_of_zero_is_ever_drawn(utilities, allowed, epsilon, uniforms):
    """Also at the very edges of the random number."""
    probabilities = epsilon_greedy(utilities, allowed, epsilon)
    chosen = draw(probabilities, uniforms)
    for row, position in enumerate(chosen):
        assert position == NONE_LEFT if not allowed[row].any() else probabilities[row, position] > 0


def test_actions_are_drawn_as_often_as_their_probability_says():
    """20,000 draws from hashed ids against the probabilities, by chi-square."""
    probabilities = np.tile([0.05, 0.1, 0.25, 0.6], (20_000, 1))
    uniforms = np.array([uniform(f"decision-{i}", "hero", 0) for i in range(20_000)])
    observed = np.bincount(draw(probabilities, uniforms), minlength=4)
    assert chisquare(observed, probabilities.sum(axis=0)).pvalue > 0.001


@given(st.text(), st.text(), st.integers(0, 50))
def test_the_random_number_depends_on_id_placement_and_slot_alone(decision_id, placement, slot):
    """Asked again it is the same; another slot or placement has its own."""
    number = uniform(decision_id, placement, slot)
    assert 0.0 <= number < 1.0
    assert number == uniform(decision_id, placement, slot)
    assert number != uniform(decision_id, placement, slot + 1)
    assert number != uniform(decision_id, placement + "x", slot)
