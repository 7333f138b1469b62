"""Losses, gains and verdicts on predictions."""

import numpy as np
import pytest
from scipy.stats import poisson

from training.predictions.judging import judge, loss


def test_the_deviance_is_zero_where_the_value_is_hit_and_smallest_at_the_mean():
    """Whatever is spent: the true mean is the best guess."""
    chance = np.random.default_rng(1)
    spent = chance.gamma(1.0, 30.0, 4000) * (chance.random(4000) < 0.4)
    for kind in ("count", "sum"):
        assert loss(kind, np.array([3.0]), np.array([3.0])) == pytest.approx([0.0])
        mean = float(spent.mean())
        at = [loss(kind, spent, np.full(len(spent), m)).mean() for m in (0.9 * mean, mean, 1.1 * mean)]
        assert at[1] < min(at[0], at[2])
    counted = loss("count", np.array([2.0, 0.0]), np.array([1.5, 0.7]))
    likelihood = [2 * (poisson.logpmf(y, y) - poisson.logpmf(y, m)) for y, m in ((2, 1.5), (0, 0.7))]
    assert counted == pytest.approx(likelihood, nan_ok=False)


def test_a_gain_must_be_proven_against_the_best_of_the_baselines():
    """Knowing the rate helps; knowing nothing does not; a better baseline refuses what beats the mean."""
    chance = np.random.default_rng(2)
    rate = chance.uniform(0.05, 0.95, 2000)
    labels = (chance.random(2000) < rate).astype(float)
    mean = np.full(2000, labels.mean())
    assert judge("rate", labels, rate, {"mean": mean}).reasons == ()
    [useless] = judge("rate", labels, mean, {"mean": mean}).reasons
    assert useless.startswith("gain over `mean` +0.0000")
    blurred = 0.5 * rate + 0.25
    [beaten] = judge("rate", labels, blurred, {"mean": mean, "lifetime_model": rate}).reasons
    assert beaten.startswith("gain over `lifetime_model` -")


@pytest.mark.parametrize(("learned", "told"), [("rate", "with 20 of each"), ("sum", "expected 100 with 20")])
def test_too_few_held_out_rows_are_a_reason(learned, told):
    """A perfect score on fifty customers proves nothing."""
    labels = np.tile([0.0, 1.0], 25)
    predicted = np.clip(labels, 0.01, 0.99)
    found = judge(learned, labels, predicted, {"mean": np.full(50, 0.5)})
    assert found.reasons[0].startswith("50 rows held out, 25 of them above zero")
    assert told in found.reasons[0]
