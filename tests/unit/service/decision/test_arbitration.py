"""Greedy, the mixtures and the draw: claimed probabilities are the frequencies."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chisquare

from service.catalog.entities import Exploration
from service.decision.arbitration import NONE_LEFT, choice_probabilities, draw, greedy, uniform

UTILITIES = arrays(np.float64, (4, 5), elements=st.floats(0, 1e6))
MASKS = arrays(np.bool_, (4, 5))
EXPLORATIONS = st.builds(
    Exploration, epsilon=st.floats(0, 0.5), temperature=st.just(0.0) | st.floats(1e-3, 1e6), floor_share=st.floats(0, 0.5),
    floor_below=st.just(1),
)  # fmt: skip


def chosen_by(explore: Exploration, utilities, allowed, thin=None):
    """The probabilities, with the best worked out."""
    unsure = np.zeros(utilities.shape[1], np.bool_) if thin is None else np.array(thin)
    return choice_probabilities(explore, utilities, allowed, greedy(utilities, allowed), unsure)


def test_the_best_gets_what_exploration_leaves_and_its_even_share():
    """With four allowed and epsilon 0.2, the best has 0.8 + 0.05 and the others 0.05."""
    probabilities = chosen_by(
        Exploration(epsilon=0.2), np.array([[1.0, 3.0, 2.0, 0.0, 9.0]]), np.array([[True, True, True, True, False]])
    )
    np.testing.assert_allclose(probabilities, [[0.05, 0.85, 0.05, 0.05, 0.0]])


def test_softmax_is_the_exponential_of_utility_over_temperature():
    """Utilities ln 1, ln 2, ln 5 at temperature 1: one, two and five eighths; at temperature 2 their roots."""
    utilities, all_of_them = np.log([[1.0, 2.0, 5.0]]), np.ones((1, 3), np.bool_)
    np.testing.assert_allclose(chosen_by(Exploration(temperature=1.0), utilities, all_of_them), [[0.125, 0.25, 0.625]])
    roots = np.sqrt([1.0, 2.0, 5.0])
    np.testing.assert_allclose(chosen_by(Exploration(temperature=2.0), utilities, all_of_them), [roots / roots.sum()])


def test_softmax_over_slots_is_plackett_luce():
    """What is left is normalised again: the chance of an order is the product of the shares of what was left."""
    utilities = np.log([[1.0, 2.0, 5.0]])
    left = np.array([[True, False, True]])
    np.testing.assert_allclose(chosen_by(Exploration(temperature=1.0), utilities, left), [[1 / 6, 0.0, 5 / 6]])


def test_huge_utilities_and_tiny_temperatures_do_not_overflow():
    """A softmax as sharp as that is greedy."""
    found = chosen_by(Exploration(temperature=1e-9), np.array([[1e6, 1e6 + 1, 0.0]]), np.ones((1, 3), np.bool_))
    np.testing.assert_allclose(found, [[0.0, 1.0, 0.0]])


def test_actions_with_little_evidence_share_the_floor():
    """Two of three thin actions may be offered: each gets half of 0.2, the best the rest."""
    found = chosen_by(
        Exploration(floor_share=0.2, floor_below=9), np.array([[9.0, 1.0, 2.0, 3.0]]), np.array([[True, True, True, False]]),
        [False, True, True, True],
    )  # fmt: skip
    np.testing.assert_allclose(found, [[0.8, 0.1, 0.1, 0.0]])


def test_the_floor_falls_away_where_nothing_is_thin():
    """All have evidence: no share is lost."""
    explore = Exploration(epsilon=0.1, floor_share=0.2, floor_below=9)
    np.testing.assert_allclose(chosen_by(explore, np.array([[9.0, 1.0]]), np.ones((1, 2), np.bool_)), [[0.95, 0.05]])


def test_the_first_of_several_equal_utilities_is_the_best():
    """Position decides ties, and position is the marketers' priority."""
    assert greedy(np.array([[2.0, 5.0, 5.0]]), np.array([[True, True, True]])).tolist() == [1]


def test_a_row_without_allowed_actions_has_no_choice():
    """Nothing allowed: no best, probabilities of zero, nothing drawn."""
    nothing = np.zeros((1, 3), np.bool_)
    assert greedy(np.ones((1, 3)), nothing).tolist() == [NONE_LEFT]
    for explore in (Exploration(epsilon=0.5), Exploration(temperature=0.1), Exploration(floor_share=0.5)):
        assert chosen_by(explore, np.ones((1, 3)), nothing, [True] * 3).tolist() == [[0.0, 0.0, 0.0]]
    assert draw(np.zeros((1, 3)), np.array([0.5])).tolist() == [NONE_LEFT]


@given(UTILITIES, MASKS, EXPLORATIONS, arrays(np.bool_, 5))
def test_probabilities_sum_to_one_over_what_is_allowed(utilities, allowed, explore, thin):
    """Whatever the utilities: a row sums to one where anything is allowed, and what is not allowed has none."""
    probabilities = chosen_by(explore, utilities, allowed, thin)
    np.testing.assert_allclose(probabilities.sum(axis=1), allowed.any(axis=1).astype(float), atol=1e-12)
    assert (probabilities[~allowed] == 0).all()


@given(UTILITIES, MASKS, EXPLORATIONS, arrays(np.float64, 4, elements=st.floats(0, 1 - 2**-53)))
def test_nothing_with_a_probability_of_zero_is_ever_drawn(utilities, allowed, explore, uniforms):
    """Also at the very edges of the random number."""
    probabilities = chosen_by(explore, utilities, allowed)
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
