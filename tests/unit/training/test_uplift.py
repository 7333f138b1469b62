"""What an action changes, in a world where that is known."""

import numpy as np
import pytest

from service.errors import NotReady
from training.off_policy import doubly_robust
from training.uplift import Trial, best, doubly_robust_scores, dr_learner, policy_rows, qini, reward_models, t_learner

ROWS = 40_000
NOTHING, MAIL = 0, 1


@pytest.fixture(scope="module")
def trial() -> Trial:
    """Who is old buys anyway; who is young is moved by mail, 0.3 at twenty and nothing at sixty."""
    chance = np.random.default_rng(0)
    age = chance.uniform(20, 60, ROWS).astype(np.float32)
    action = (chance.random(ROWS) < 0.3).astype(np.intp)
    rate = 0.01 * (age - 20) + np.where(action == MAIL, gain(age), 0.0)
    return Trial(age[:, None], action, (chance.random(ROWS) < rate).astype(float), np.tile([0.7, 0.3], (ROWS, 1)))


def gain(age):
    return 0.3 * (60 - age) / 40


@pytest.mark.parametrize("learner", [t_learner, dr_learner])
def test_gains_are_what_the_action_changes(trial, learner):
    """Not what happens anyway: who gains most buys least."""
    found = learner(trial, NOTHING).gains(np.array([[25.0], [55.0]], np.float32))
    assert found[:, MAIL] == pytest.approx([gain(25.0), gain(55.0)], abs=0.08)
    assert found[:, NOTHING].tolist() == [0.0, 0.0]


def test_scores_have_the_mean_that_each_action_would_bring(trial):
    """Also where the reward model knows nothing: weights alone are right."""
    scores = doubly_robust_scores(trial, np.zeros((ROWS, 2)))
    assert scores.mean(axis=0) == pytest.approx([0.2, 0.35], abs=0.02)


def test_a_cost_keeps_the_mail_from_whom_it_does_not_move():
    """Worth it below a gain of 0.15: at forty."""
    gains = np.column_stack([np.zeros(3), gain(np.array([30.0, 39.0, 50.0]))])
    assert best(gains, np.array([0.0, 0.15])).tolist() == [MAIL, MAIL, NOTHING]


def test_a_policys_value_is_estimated_on_rows_it_was_not_learned_from(trial):
    """Mail to those below forty, at a cost of 0.15: 0.2 + 0.5 x (0.225 - 0.15)."""
    half = np.arange(ROWS) % 2 == 0
    learned, unseen = trial.take(half), trial.take(~half)
    earned = unseen._replace(reward=unseen.reward - 0.15 * (unseen.action == MAIL))
    chosen = np.where(unseen.inputs[:, 0] < 40, MAIL, NOTHING)
    expected = reward_models(learned)(unseen.inputs) - np.array([0.0, 0.15])
    assert doubly_robust(policy_rows(earned, chosen, expected)).mean() == pytest.approx(0.2375, abs=0.025)


def test_who_sorts_by_gain_gains_more_than_chance(trial):
    """Sorted the wrong way round it loses as much."""
    age = trial.inputs[:, 0]
    right, wrong = (qini(trial, sign * gain(age), MAIL, NOTHING) for sign in (1.0, -1.0))
    assert right > 0.01
    assert wrong == pytest.approx(-right, abs=1e-3)


def test_too_few_rows_of_an_action_are_refused(trial):
    """With the number of each."""
    few = trial.take(np.concatenate([np.flatnonzero(trial.action == NOTHING), np.flatnonzero(trial.action == MAIL)[:10]]))
    with pytest.raises(NotReady, match="at least 200 rows of each action"):
        t_learner(few, NOTHING)
