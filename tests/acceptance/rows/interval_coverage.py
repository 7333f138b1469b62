"""Row 2: how often intervals hold the truth of a world where it is known, and what each estimator gets wrong."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.decision.arbitration import draw, greedy
from tests.acceptance.row import Context, Measured, Row
from training.calibrate import sigmoid
from training.off_policy import ESTIMATORS, Interval, Rows, estimate
from training.simulate import DAY, World, exploring_engine, probabilities

Table = npt.NDArray[np.float64]

RUNS, LOGGED, MOMENTS = 200, 2000, 20_000
AT_LEAST = 0.93
TASTE, SURE = (
    0.7,
    0.8,
)  # how much the logging policy prefers some actions; how often the policy takes the best that it believes in
FADED, WRONG = 0.6, 0.4  # the reward model knows the truth's logit so far, and is off by so much for each action


class Setting(NamedTuple):
    """What may happen at each moment, (moments, actions): the log's choices, the policy's, the truth and a model's belief."""

    logging: Table
    policy: Table
    truth: Table
    model: Table

    @property
    def value(self) -> float:
        return float((self.policy * self.truth).sum(axis=1).mean())

    def drawn(self, chance: np.random.Generator) -> Rows:
        """One log: moments at random, choices by the logging policy, clicks by the truth."""
        rows = chance.integers(0, len(self.truth), LOGGED)
        chosen = draw(self.logging[rows], chance.random(LOGGED))
        clicks = (chance.random(LOGGED) < self.truth[rows, chosen]).astype(float)
        expected = (self.policy[rows] * self.model[rows]).sum(axis=1)
        return Rows(self.policy[rows, chosen] / self.logging[rows, chosen], clicks, self.model[rows, chosen], expected)


def setting(seed: int) -> Setting:
    """The simulated world, with a policy that is greedy in what a wrong model believes."""
    world, chance = World(seed=seed), np.random.default_rng(seed)
    moments = world.moments(MOMENTS, 0.0, 30 * DAY, seed)
    may = probabilities(exploring_engine(world), [world.request(moment, f"m{n}") for n, moment in enumerate(moments)])
    there = np.flatnonzero(may.sum(axis=1) > 0.0)  # a customer to whom nothing may be shown is nobody's choice
    may, truth = may[there], world.rates([moments[row] for row in there])
    logging = may * np.exp(TASTE * chance.standard_normal(may.shape[1]))
    logging /= logging.sum(axis=1, keepdims=True)
    model = sigmoid(FADED * np.log(truth / (1.0 - truth)) - 1.0 + WRONG * chance.standard_normal(may.shape[1]))
    best = greedy(model, may > 0.0)
    policy = (1.0 - SURE) * may / may.sum(axis=1, keepdims=True)
    policy[np.arange(len(best)), best] += SURE
    return Setting(logging, policy, truth, model)


def measure(context: Context) -> Measured:
    world = setting(context.seed)
    runs = list(intervals(world, context.seed))
    told, covered = [], dict.fromkeys(ESTIMATORS, 0.0)
    for name in ESTIMATORS:
        found = [run[name] for run in runs]
        values = np.array([one.value for one in found])
        covered[name] = float(np.mean([one.low <= world.value <= one.high for one in found]))
        bias, variance = values.mean() - world.value, values.var(ddof=1)
        told.append(f"{name} bias {bias:+.5f}, variance {variance:.2e}, holds the truth in {covered[name]:.1%}")
    figure = f"truth {world.value:.4f}, {RUNS} logs of {LOGGED:,} decisions: {'; '.join(told)}"
    return Measured(figure, covered["dr"] >= AT_LEAST)


def intervals(world: Setting, seed: int) -> Iterator[dict[str, Interval]]:
    """By estimator, for each log."""
    for run in range(RUNS):
        yield estimate(world.drawn(np.random.default_rng([seed, run])), np.arange(LOGGED)).intervals


ROW = Row(
    2,
    f"the simulated world, {RUNS} logs, a reward model that is wrong: bias and variance of each estimator, and its intervals",
    f"95% intervals of DR hold the truth in at least {AT_LEAST:.0%}",
    measure,
)
