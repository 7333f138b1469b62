"""Row 8: tests of a thing against itself, looked at all the time: how often somebody is misled."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tests.acceptance.row import Context, Measured, Row
from training.experiments import arm_sums, difference
from training.off_policy import NORMAL_95

Values = npt.NDArray[np.float64]

TESTS, CUSTOMERS, EVERY = 400, 6000, 50  # customers of both arms; between two looks
MOST = 0.05


class Arrivals(NamedTuple):
    """The customers of one test in the order of their coming: arm 0 or 1, decisions, outcomes: (customers,) each."""

    arm: npt.NDArray[np.intp]
    decisions: Values
    outcomes: Values


def arrivals(chance: np.random.Generator) -> Arrivals:
    """Customers come once or often, respond seldom or more often, and both arms are the same thing."""
    decisions = chance.poisson(chance.gamma(2.0, 1.5, CUSTOMERS)) + 1
    outcomes = chance.binomial(decisions, chance.beta(1.0, 12.0, CUSTOMERS))
    return Arrivals(chance.integers(0, 2, CUSTOMERS), decisions.astype(float), outcomes.astype(float))


def misled(test: Arrivals) -> tuple[bool, bool]:
    """Whether the arms ever seem to differ: by the verdict that reports give, and by a plain interval of 95 %."""
    valid = plain = False
    for seen in range(EVERY, CUSTOMERS + 1, EVERY):
        arms = [test.arm[:seen] == arm for arm in (0, 1)]
        first, tried = (arm_sums(test.decisions[:seen][arm], test.outcomes[:seen][arm]) for arm in arms)
        found = difference("again", tried, first)
        valid |= found.verdict in ("better", "worse")
        plain |= found.is_told and abs(found.gain.value) > NORMAL_95 * (tried.variance + first.variance) ** 0.5
    return valid, plain


def measure(context: Context) -> Measured:
    found = [misled(arrivals(np.random.default_rng([context.seed, number]))) for number in range(TESTS)]
    valid, plain = (sum(one[kind] for one in found) for kind in (0, 1))
    figure = (
        f"looked at {CUSTOMERS // EVERY} times each, {valid} of {TESTS} tests ever say that arms differ: {valid / TESTS:.1%}; "
        f"plain intervals would say so in {plain / TESTS:.1%}"
    )
    return Measured(figure, valid <= MOST * TESTS and plain > MOST * TESTS)


ROW = Row(
    8,
    f"{TESTS} A/A tests of {CUSTOMERS:,} customers, looked at after every {EVERY}",
    f"at most {MOST:.0%} ever reject; plain intervals reject more often",
    measure,
)
