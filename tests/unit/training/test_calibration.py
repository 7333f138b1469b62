"""Two numbers turn a margin into a rate that is right on average."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.calibrate import fit_platt, sigmoid

# Hundredths: margins that differ by less than that have an almost infinite slope between them.
graded = st.lists(st.tuples(st.integers(-1000, 1000), st.booleans()), min_size=5, max_size=60)


def simulated(slope: float, intercept: float, *, level: float = 0.0, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(11)
    margins = level + chance.standard_normal(rows) * 1.5
    return margins, (chance.random(rows) < sigmoid(slope * margins + intercept)).astype(float)


def test_the_sigmoid_survives_margins_of_any_size():
    """Warnings are errors here: nothing overflows, and the ends are 0 and 1."""
    assert sigmoid(np.array([-1e5, -800.0, 0.0, 800.0, 1e5])).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.6, -1.2), (2.5, 0.4)])
def test_a_known_slope_and_intercept_are_recovered(slope, intercept):
    """20,000 labels drawn with them; the standard errors are near 0.02."""
    found = fit_platt(*simulated(slope, intercept))
    assert found.slope == pytest.approx(slope, abs=0.08)
    assert found.intercept == pytest.approx(intercept, abs=0.08)


@pytest.mark.parametrize("slope", [-1.0, 0.0])
def test_margins_that_say_nothing_or_the_opposite_keep_their_slope(slope):
    """Only the level is corrected: a calibration must not turn a ranking around."""
    margins, labels = simulated(slope, -1.0)
    found = fit_platt(margins, labels)
    assert found.slope == 1.0
    assert sigmoid(margins + found.intercept).mean() == pytest.approx(labels.mean(), abs=1e-3)


@pytest.mark.parametrize("level", [-12.0, -6.0, -3.0, 3.0, 6.0, 12.0])
@pytest.mark.parametrize("rate", [0.03, 0.3, 0.97])
def test_a_level_that_is_far_off_is_corrected_too(level, rate):
    """Whole steps of Newton's method would run away from there, to an intercept of 1e11 and rates of 1."""
    margins = np.linspace(level - 0.5, level + 0.5, 1000)
    labels = (np.arange(1000) < 1000 * rate).astype(float)
    found = fit_platt(margins, labels)
    assert found.slope == 1.0
    assert sigmoid(margins + found.intercept).mean() == pytest.approx(rate, abs=2e-3)


@given(graded)
def test_the_mean_rate_is_the_base_rate(rows):
    """To within one row, which is what Platt's smoothed targets may shift; separable, reversed and constant margins included."""
    margins, labels = np.array([m / 100 for m, _ in rows]), np.array([float(y) for _, y in rows])
    found = fit_platt(margins, labels)
    assert found.slope > 0.0
    assert sigmoid(found.slope * margins + found.intercept).mean() == pytest.approx(labels.mean(), abs=1.0 / len(rows) + 1e-6)


def test_margins_that_part_all_successes_from_failures_stay_short_of_certainty():
    """Smoothed targets: 50 of 50 do not prove a rate of 1."""
    margins, labels = np.repeat([-1.0, 1.0], 50), np.repeat([0.0, 1.0], 50)
    found = fit_platt(margins, labels)
    np.testing.assert_allclose(sigmoid(found.slope * np.array([-1.0, 1.0]) + found.intercept), [1 / 52, 51 / 52], atol=1e-6)
