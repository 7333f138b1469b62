"""What an action changes: how much more likely, or more valuable, a success is than if nothing had been done.

Who buys anyway is no reason to write to them. Two learners for logs that contain `nothing`, or a holdout, with known choice
probabilities: T (two models, subtracted) and DR (what is left is regressed on the customer). Rows that are learned from are never
predicted by a model that has seen them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import numpy.typing as npt

from features.vectors import Matrix
from service.errors import NotReady
from training.off_policy import Rows
from training.threads import threads_for

Values = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]

FOLDS = 2
FEWEST_ROWS = 200  # of each action
ROUNDS = 60
SETTINGS: dict[str, Any] = {
    "objective": "regression", "learning_rate": 0.05, "num_leaves": 8, "min_data_in_leaf": 200, "lambda_l2": 5.0, "verbosity": -1,
    "deterministic": True, "force_col_wise": True, "feature_pre_filter": False,
}  # fmt: skip

Model = Callable[[Matrix], Values]


class Trial(NamedTuple):
    """Logged rows. `inputs`: float32 (rows, columns), of customer and context alone; `reward`: (rows,).

    `action`: position of what was done, (rows,); `chance`: how likely each was, (rows, actions), above 0 for what was done.
    """

    inputs: Matrix
    action: Positions
    reward: Values
    chance: Values

    def take(self, rows: npt.NDArray[np.bool_] | Positions) -> "Trial":
        """Some of the rows."""
        return Trial(self.inputs[rows], self.action[rows], self.reward[rows], self.chance[rows])

    @property
    def actions(self) -> int:
        return int(self.chance.shape[1])


class Uplift(NamedTuple):
    """Learned. `gains`: float32 (rows, columns) -> (rows, actions), against the action at `nothing`, whose own gain is 0."""

    gains: Callable[[Matrix], Values]
    rewards: Callable[[Matrix], Values]  # float32 (rows, columns) -> (rows, actions): what to expect of each


def t_learner(trial: Trial, nothing: int, seed: int = 0) -> Uplift:
    """A model for each action, and the difference. Kuenzel, Sekhon, Bickel and Yu 2019. Raises NotReady with too few rows."""
    rewards = reward_models(trial, seed)

    def gains(inputs: Matrix) -> Values:
        found = rewards(inputs)
        return found - found[:, [nothing]]

    return Uplift(gains, rewards)


def dr_learner(trial: Trial, nothing: int, seed: int = 0) -> Uplift:
    """The doubly robust score of each row's gain, regressed on its inputs. Kennedy 2023, algorithm 1. Raises NotReady."""
    folds = np.random.default_rng(seed).permutation(len(trial.reward)) % FOLDS
    scores = np.zeros((len(trial.reward), trial.actions))
    for fold in range(FOLDS):
        own = folds == fold
        scores[own] = doubly_robust_scores(trial.take(own), reward_models(trial.take(~own), seed)(trial.inputs[own]))
    scores -= scores[:, [nothing]]
    models = [_fitted(trial.inputs, scores[:, action], seed) for action in range(trial.actions)]

    def gains(inputs: Matrix) -> Values:
        found = np.column_stack([model(inputs) for model in models])
        found[:, nothing] = 0.0
        return found

    return Uplift(gains, reward_models(trial, seed))


def doubly_robust_scores(trial: Trial, expected: Values) -> Values:
    """What each action would have brought: expected, corrected where it was done. (rows, actions). Dudik et al. 2011."""
    every = np.arange(len(trial.reward))
    scores = expected.copy()
    scores[every, trial.action] += (trial.reward - expected[every, trial.action]) / trial.chance[every, trial.action]
    return scores


def reward_models(trial: Trial, seed: int = 0) -> Callable[[Matrix], Values]:
    """A model of the reward for each action: float32 (rows, columns) -> (rows, actions). Raises NotReady with too few rows."""
    counts = np.bincount(trial.action, minlength=trial.actions)
    if counts.min() < FEWEST_ROWS:
        raise NotReady(f"Expected at least {FEWEST_ROWS} rows of each action, found {counts.tolist()}")
    models = []
    for action in range(trial.actions):
        own = trial.action == action
        models.append(_fitted(trial.inputs[own], trial.reward[own], seed))

    def rewards(inputs: Matrix) -> Values:
        return np.column_stack([model(inputs) for model in models])

    return rewards


def _fitted(inputs: Matrix, labels: Values, seed: int) -> Model:
    booster = reward_model(inputs, labels, seed)

    def model(inputs: Matrix) -> Values:
        found: Values = booster.predict(inputs, num_threads=threads_for(len(inputs)))
        return found

    return model


def reward_model(inputs: Matrix, labels: Values, seed: int) -> lightgbm.Booster:
    """What is expected to come of a row."""
    threads = {"num_threads": threads_for(len(labels))}
    data = lightgbm.Dataset(inputs, labels, params={"feature_pre_filter": False, "verbosity": -1, **threads})
    return lightgbm.train({**SETTINGS, **threads, "seed": seed}, data, ROUNDS)


def policy_rows(trial: Trial, chosen: Positions, expected: Values) -> Rows:
    """The rows as a policy sees them that does `chosen`, (rows,): for the estimators of `off_policy`.

    `expected`: a reward model's, (rows, actions).
    """
    every = np.arange(len(trial.reward))
    weight = (chosen == trial.action) / trial.chance[every, trial.action]
    return Rows(weight, trial.reward, expected[every, trial.action], expected[every, chosen])


def best(gains: Values, costs: Values) -> Positions:
    """The action that gains most beyond its cost, (actions,); the first of several."""
    found: Positions = (gains - costs).argmax(axis=1)
    return found


def qini(trial: Trial, gains: Values, action: int, nothing: int) -> float:
    """How much more is gained by acting where most is promised than by acting at random. Radcliffe 2007, with random as 0.

    Area between the curves over the share of rows acted upon, in reward a row. `gains`: promised, (rows,).
    """
    scores = doubly_robust_scores(trial, np.zeros((len(trial.reward), trial.actions)))
    gained = (scores[:, action] - scores[:, nothing])[np.argsort(-gains, kind="stable")]
    curve = np.cumsum(gained) / len(gained)
    return float((curve - curve[-1] * np.arange(1, len(curve) + 1) / len(curve)).mean())
