"""Estimators against their formulas written as loops, against truth that is known, and against logs that are too thin."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import t as student

from training.off_policy import (
    ESTIMATORS,
    FEWEST_EFFECTIVE,
    Rows,
    direct_method,
    doubly_robust,
    doubts,
    doubts_of,
    effective_sample_size,
    estimate,
    inverse_propensity,
    mean_interval,
    self_normalized,
    shrunk,
    shrunk_doubly_robust,
    successes,
    switch_doubly_robust,
    switched,
)

moderate = st.floats(-100.0, 100.0)
logged = st.lists(st.tuples(st.floats(0.0, 50.0), moderate, moderate, moderate), min_size=1, max_size=25)


def as_rows(table) -> Rows:
    return Rows(*(np.array(column, np.float64) for column in zip(*table, strict=True)))


class TinyWorld(NamedTuple):
    """Two kinds of customer, three actions, success or not: everything is written down, nothing is estimated.

    Tables are (customers, actions): what the log did, what the policy would do, how often it succeeds, what a model believes.
    """

    customers: np.ndarray
    logging: np.ndarray
    policy: np.ndarray
    truth: np.ndarray
    model: np.ndarray

    @property
    def value(self) -> float:
        """What the policy earns per decision."""
        return float((self.customers[:, None] * self.policy * self.truth).sum())

    def rows(self, customers, actions, rewards) -> Rows:
        weight = self.policy[customers, actions] / self.logging[customers, actions]
        expected = (self.policy * self.model).sum(axis=1)[customers]
        return Rows(weight, np.asarray(rewards, np.float64), self.model[customers, actions], expected)

    def every_row(self) -> tuple[Rows, np.ndarray]:
        """All twelve things that a decision can be, and how likely each is."""
        cases = np.array(list(itertools.product(range(2), range(3), (0, 1))))
        customer, action, reward = cases.T
        success = np.where(reward == 1, self.truth[customer, action], 1 - self.truth[customer, action])
        return self.rows(customer, action, reward), self.customers[customer] * self.logging[customer, action] * success

    def every_log(self, length: int):
        """All logs of so many decisions, each with its probability."""
        single, likely = self.every_row()
        for picked in itertools.product(range(len(likely)), repeat=length):
            yield single.take(np.array(picked)), math.prod(likely[i] for i in picked)

    def draw(self, decisions: int, chance: np.random.Generator) -> Rows:
        customers = chance.choice(2, decisions, p=self.customers)
        actions = (chance.random(decisions)[:, None] > self.logging.cumsum(axis=1)[customers]).sum(axis=1)
        return self.rows(customers, actions, chance.random(decisions) < self.truth[customers, actions])


TRUTH = np.array([[0.2, 0.6, 0.4], [0.7, 0.1, 0.5]])
WORLD = TinyWorld(
    customers=np.array([0.7, 0.3]), logging=np.array([[0.5, 0.2, 0.3], [0.25, 0.25, 0.5]]),
    policy=np.array([[0.1, 0.8, 0.1], [0.9, 0.0, 0.1]]), truth=TRUTH, model=np.array([[0.3, 0.5, 0.2], [0.6, 0.3, 0.6]]),
)  # fmt: skip
WELL_MODELLED = WORLD._replace(model=TRUTH)
estimators = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


def test_estimators_go_by_their_names_in_the_field():
    """What a report shows for each policy."""
    by_name = {
        "dm": direct_method, "ips": inverse_propensity, "snips": self_normalized, "dr": doubly_robust,
        "switch_dr": switch_doubly_robust, "dr_os": shrunk_doubly_robust,
    }  # fmt: skip
    assert by_name == ESTIMATORS


@given(logged)
def test_the_direct_method_is_the_mean_of_what_the_model_expects(table):
    """(1/n) sum of the model's mean over the policy's choices."""
    total = 0.0
    for _weight, _reward, _predicted, expected in table:
        total += expected
    assert direct_method(as_rows(table)).mean() == pytest.approx(total / len(table), abs=1e-9)


@given(logged)
def test_inverse_propensity_is_the_mean_weighted_reward(table):
    """(1/n) sum of w r."""
    total = 0.0
    for weight, reward, _predicted, _expected in table:
        total += weight * reward
    assert inverse_propensity(as_rows(table)).mean() == pytest.approx(total / len(table), rel=1e-9, abs=1e-9)


@given(logged)
def test_self_normalized_is_the_weighted_mean_reward(table):
    """(sum of w r) / (sum of w); nothing where no row has weight."""
    above = below = 0.0
    for weight, reward, _predicted, _expected in table:
        above += weight * reward
        below += weight
    assume(below == 0.0 or below > 1e-6)
    assert self_normalized(as_rows(table)).mean() == pytest.approx(above / below if below else 0.0, rel=1e-7, abs=1e-7)


@given(logged)
def test_doubly_robust_is_the_model_corrected_by_weighted_residuals(table):
    """(1/n) sum of m + w (r - q)."""
    total = 0.0
    for weight, reward, predicted, expected in table:
        total += expected + weight * (reward - predicted)
    assert doubly_robust(as_rows(table)).mean() == pytest.approx(total / len(table), rel=1e-9, abs=1e-8)


@given(logged, st.floats(0.0, 60.0))
def test_switching_corrects_the_model_by_rows_of_small_weight(table, largest):
    """(1/n) sum of m + w (r - q), where w is not too large."""
    total = 0.0
    for weight, reward, predicted, expected in table:
        total += expected + (weight * (reward - predicted) if weight <= largest else 0.0)
    assert switched(as_rows(table), largest).mean() == pytest.approx(total / len(table), rel=1e-9, abs=1e-8)


@given(logged, st.floats(0.001, 1e6))
def test_shrinking_takes_more_of_a_large_weight(table, strength):
    """(1/n) sum of m + s w / (w^2 + s) (r - q)."""
    total = 0.0
    for weight, reward, predicted, expected in table:
        total += expected + strength * weight / (weight * weight + strength) * (reward - predicted)
    assert shrunk(as_rows(table), strength).mean() == pytest.approx(total / len(table), rel=1e-9, abs=1e-8)


@given(logged)
def test_without_shrinking_and_without_switching_both_are_doubly_robust(table):
    """And with all of it they are the model alone."""
    rows = as_rows(table)
    assert shrunk(rows, np.inf).tolist() == switched(rows, np.inf).tolist() == doubly_robust(rows).tolist()
    assert shrunk(rows, 0.0).tolist() == switched(rows, -1.0).tolist() == direct_method(rows).tolist()


@pytest.mark.parametrize("estimator", [switch_doubly_robust, shrunk_doubly_robust])
def test_few_rows_of_large_weight_are_not_believed_where_a_model_is_good(estimator):
    """Over 300 logs of a policy that hardly any row was logged of: less error than doubly robust, which is right on average."""
    chance = np.random.default_rng(3)
    rare = WELL_MODELLED._replace(logging=np.array([[0.97, 0.005, 0.025], [0.01, 0.965, 0.025]]))
    logs = [rare.draw(300, chance) for _ in range(300)]
    errors = [np.array([float(each(rows).mean()) - rare.value for rows in logs]) for each in (estimator, doubly_robust)]
    assert (errors[0] ** 2).mean() < 0.8 * (errors[1] ** 2).mean()


@pytest.mark.parametrize("estimator", [switch_doubly_robust, shrunk_doubly_robust])
def test_with_many_rows_a_wrong_model_is_found_out(estimator):
    """The bias that the rows themselves show costs more than the variance that shrinking saves."""
    rows = WORLD.draw(200_000, np.random.default_rng(6))
    assert float(estimator(rows).mean()) == pytest.approx(WORLD.value, abs=0.01)
    assert abs(float(direct_method(rows).mean()) - WORLD.value) > 0.05


@pytest.mark.parametrize("estimator", [inverse_propensity, doubly_robust])
@pytest.mark.parametrize("length", [1, 2])
def test_weighted_estimators_are_right_on_average_over_all_possible_logs(estimator, length):
    """Every log of that length, weighted by its probability; the model of the doubly robust one is wrong on purpose."""
    average = sum(likely * float(estimator(rows).mean()) for rows, likely in WORLD.every_log(length))
    assert average == pytest.approx(WORLD.value, abs=1e-12)


@pytest.mark.parametrize("estimator", [direct_method, doubly_robust])
def test_a_right_model_needs_no_right_weights(estimator):
    """The other half of doubly robust: weights three times too large change nothing on average."""
    rows, likely = WELL_MODELLED.every_row()
    assert float(estimator(rows._replace(weight=3 * rows.weight)) @ likely) == pytest.approx(WORLD.value, abs=1e-12)


def test_a_wrong_model_shifts_the_direct_method_by_all_of_its_error():
    """Nothing corrects it: its average is what the model believes."""
    rows, likely = WORLD.every_row()
    believed = WORLD._replace(truth=WORLD.model).value
    assert float(direct_method(rows) @ likely) == pytest.approx(believed, abs=1e-12)
    assert abs(believed - WORLD.value) > 0.05


def test_a_good_model_takes_variance_away():
    """Over all that a decision can be: doubly robust below inverse propensity, and the direct method below both."""
    rows, likely = WELL_MODELLED.every_row()
    spread = {name: float((estimator(rows) - WORLD.value) ** 2 @ likely) for name, estimator in ESTIMATORS.items()}
    assert spread["dm"] < spread["dr"] < 0.7 * spread["ips"]


def test_self_normalized_comes_near_the_truth_with_many_rows():
    """Biased by little on few rows, consistent on many: 200,000 of them."""
    rows = WORLD.draw(200_000, np.random.default_rng(5))
    assert float(self_normalized(rows).mean()) == pytest.approx(WORLD.value, abs=0.01)


@given(logged, st.floats(-10.0, 10.0))
def test_a_constant_added_to_every_reward_is_added_to_the_self_normalized_value(table, constant):
    """Inverse propensity moves with the mean weight instead, which is why its origin matters."""
    rows = as_rows(table)
    assume(rows.weight.mean() > 1e-6)
    shifted = rows._replace(reward=rows.reward + constant)
    assert self_normalized(shifted).mean() == pytest.approx(self_normalized(rows).mean() + constant, abs=1e-6)
    moved = inverse_propensity(rows).mean() + constant * rows.weight.mean()
    assert inverse_propensity(shifted).mean() == pytest.approx(moved, abs=1e-6)


@given(logged)
def test_the_self_normalized_value_lies_among_the_rewards(table):
    """A mean of rewards cannot leave their range, whatever the weights."""
    rows = as_rows(table)
    assume(rows.weight.mean() > 1e-6)
    assert rows.reward.min() - 1e-6 <= self_normalized(rows).mean() <= rows.reward.max() + 1e-6


@given(logged, st.floats(0.1, 10.0))
def test_a_self_normalized_contribution_is_what_its_row_moves(table, scale):
    """The derivative of the value by the row's share, times the rows; the scale of all weights does not count."""
    rows = as_rows(table)
    assume(rows.weight.mean() > 0.1)
    found, step = self_normalized(rows._replace(weight=scale * rows.weight)), 1e-6
    for position in range(len(table)):
        share = np.ones(len(table))
        share[position] += step
        moved = np.average(rows.reward, weights=share * rows.weight) - np.average(rows.reward, weights=rows.weight)
        assert found[position] - found.mean() == pytest.approx(len(table) * moved / step, rel=1e-3, abs=0.05)


@estimators
def test_a_policy_that_does_what_the_log_did_is_worth_what_the_log_earned(estimator):
    """Weights of one and a model that knows the rewards: the mean reward, by every estimator."""
    reward = np.array([0.0, 1.0, 0.0, 3.0])
    assert estimator(Rows(np.ones(4), reward, reward, reward)).mean() == 1.0


@estimators
def test_a_policy_that_nothing_was_logged_of_divides_nothing_by_zero(estimator):
    """Weights of zero everywhere: finite contributions, what the model says or nothing. Warnings are errors here."""
    rows = Rows(np.zeros(3), np.ones(3), np.full(3, 0.2), np.full(3, 0.3))
    assert estimator(rows).tolist() == [0.0 if estimator in (inverse_propensity, self_normalized) else 0.3] * 3


@pytest.mark.parametrize("name", ["ips", "snips", "dr"])
def test_the_interval_holds_the_truth_in_95_of_100_logs(name):
    """400 simulated logs of 500 decisions; the standard error of the share is one percent."""
    chance, held = np.random.default_rng(7), 0
    for _ in range(400):
        interval = mean_interval(ESTIMATORS[name](WORLD.draw(500, chance)), np.arange(500))
        held += interval.low <= WORLD.value <= interval.high
    assert 0.92 <= held / 400 <= 0.98


def test_the_interval_holds_the_truth_where_rows_of_a_customer_go_together():
    """100 customers of 1 to 8 rows with a taste of their own: clustered it holds, row by row it would not."""
    chance, held, naive = np.random.default_rng(8), 0, 0
    for _ in range(400):
        clusters = np.repeat(np.arange(100), chance.integers(1, 9, 100))
        rows = chance.standard_normal(100)[clusters] + 0.5 * chance.standard_normal(len(clusters))
        held += abs(rows.mean()) <= mean_interval(rows, clusters).high - rows.mean()
        naive += abs(rows.mean()) <= mean_interval(rows, np.arange(len(rows))).high - rows.mean()
    assert 0.92 <= held / 400 <= 0.98
    assert naive / 400 < 0.8


clustered = st.lists(st.tuples(moderate, st.integers(0, 5)), min_size=2, max_size=25)


@given(clustered)
def test_the_interval_is_the_formula_of_liang_and_zeger(table):
    """G/(G-1) times the sum of squared cluster sums, over n squared; numbers that no row has do not count as clusters.

    The quantile is Student's.
    """
    names = {cluster for _, cluster in table}
    assume(len(names) > 1)
    mean = sum(value for value, _ in table) / len(table)
    squares = sum(sum(value - mean for value, cluster in table if cluster == name) ** 2 for name in names)
    error = float(student.ppf(0.975, len(names) - 1)) * math.sqrt(len(names) / (len(names) - 1) * squares) / len(table)
    found = mean_interval(np.array([v for v, _ in table]), np.array([c for _, c in table]))
    assert found == pytest.approx((mean, mean - error, mean + error), abs=1e-6)


@given(st.lists(moderate, min_size=2, max_size=25), st.integers(2, 5))
def test_rows_that_are_repeated_prove_nothing_new(values, times):
    """Twice the rows, the same customers, the same interval; taken for new customers, they would seem to prove more."""
    rows, customers = np.array(values), np.arange(len(values))
    once = mean_interval(rows, customers)
    again = mean_interval(np.repeat(rows, times), np.repeat(customers, times))
    naive = mean_interval(np.repeat(rows, times), np.arange(len(values) * times))
    assert again == pytest.approx(once, abs=1e-6)
    assert naive.high - naive.low <= (again.high - again.low) / math.sqrt(times) + 1e-6


@pytest.mark.parametrize("customers", [2, 3, 5, 10])
def test_intervals_of_few_customers_hold_the_truth_as_often_as_they_say(customers):
    """In 95 of 100 worlds; the normal quantile holds it in 70 to 92."""
    chance, clusters = np.random.default_rng(customers), np.repeat(np.arange(customers), 20)
    found = [mean_interval(np.repeat(chance.normal(size=customers), 20), clusters) for _ in range(2000)]
    assert np.mean([one.low <= 0.0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("succeeded", "told"), [(9, 9.0), (10, 10.0), (100, 100.0)])
def test_successes_are_counted_by_their_weight(succeeded, told):
    """Of 400 rows of one weight as many as there are; one of them that weighs as much as a hundred is hardly more than one."""
    reward = np.where(np.arange(400) < succeeded, 1.0, 0.0)
    even = Rows(np.full(400, 3.0), reward, np.zeros(400), np.zeros(400))
    assert successes(even) == pytest.approx(told)
    heavy = even._replace(weight=np.where(np.arange(400) == 0, 300.0, 1.0))
    assert successes(heavy) < 2.0 + succeeded / 50


def test_successes_that_had_to_be_expected_count_where_none_came():
    """A policy that decides half of the rows earns nothing there, where one in five of all succeed: that is known well enough."""
    reward = np.where(np.arange(400) % 5 == 1, 1.0, 0.0)
    nothing = Rows(np.where(np.arange(400) % 2 == 0, 2.0, 0.0) * (reward == 0.0), reward, np.zeros(400), np.zeros(400))
    assert successes(nothing) == pytest.approx(0.2 * 160)
    assert successes(nothing._replace(decided=np.zeros(400, np.bool_))) == 0.0


def test_rows_of_few_customers_carry_no_verdict():
    """However many they are."""
    rows = Rows(np.ones(900), np.ones(900), np.ones(900), np.ones(900))
    assert doubts_of(rows, np.arange(900) % 10) == []
    assert doubts_of(rows, np.arange(900) % 9) == ["rows of 9 customers, of at least 10 are needed"]


def test_one_customer_alone_proves_nothing():
    """Deviations within it always sum to zero: that is no certainty about others."""
    found = mean_interval(np.array([1.0, 2.0, 3.0]), np.zeros(3, np.intp))
    assert found == (2.0, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("weights", "worth"), [([1.0, 1.0, 1.0, 1.0], 4.0), ([2.0, 0.0, 0.0], 1.0), ([3.0, 1.0], 1.6), ([0.0, 0.0], 0.0)]
)
def test_the_effective_sample_size_is_that_of_kish(weights, worth):
    """(3 + 1)^2 / (9 + 1) = 1.6; equal weights count in full, weights of zero not at all."""
    assert effective_sample_size(np.array(weights)) == pytest.approx(worth)


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=25), st.floats(0.01, 100.0))
def test_the_effective_sample_size_is_between_one_and_all_rows_whatever_the_scale(weights, scale):
    """Only the proportions of weights count."""
    found = effective_sample_size(np.array(weights))
    assert 1.0 - 1e-9 <= found <= len(weights) + 1e-9
    assert effective_sample_size(np.array(weights) * scale) == pytest.approx(found)


@pytest.mark.parametrize("weights", [np.ones(100), np.linspace(0.5, 1.5, 1000), np.tile([0.0, 3.0], 500)])
def test_healthy_weights_raise_no_doubt(weights):
    """A hundred equal rows are just enough."""
    assert doubts(weights) == []


@pytest.mark.parametrize("weights", [np.ones(99), np.tile([1.0] + [0.0] * 9, 99)])
def test_too_few_effective_rows_are_a_doubt(weights):
    """99, in as many rows as one likes: the sentence says how many and how many are needed."""
    assert doubts(weights) == [f"effective sample size 99 of {len(weights)} rows, at least 100 are needed"]


def test_a_row_that_decides_alone_is_a_doubt():
    """Weight 100 among 999 rows of weight 1: enough effective rows, and 9 % of everything on one of them."""
    weights = np.append(np.ones(999), 100.0)
    assert effective_sample_size(weights) > FEWEST_EFFECTIVE
    assert doubts(weights) == ["one row carries 9% of the weight (weight 100), at most 5% may"]


def test_both_doubts_are_told_together():
    """Few rows, and one of them heavy."""
    few, heavy = doubts(np.array([1.0, 1.0, 8.0]))
    assert few.startswith("effective sample size 2 of 3 rows")
    assert heavy.startswith("one row carries 80% of the weight (weight 8)")


def test_weights_of_zero_everywhere_are_a_doubt_and_no_division():
    """A policy of which nothing was logged: no row carries anything."""
    assert doubts(np.zeros(500)) == ["effective sample size 0 of 500 rows, at least 100 are needed"]


def test_an_estimate_tells_every_interval_and_refuses_where_rows_are_too_few():
    """A single weight that decides alone is named; without it there is nothing to doubt."""
    rows = WORLD.draw(2000, np.random.default_rng(4))
    found = estimate(rows, np.arange(2000))
    assert found.intervals.keys() == ESTIMATORS.keys()
    assert found.intervals["dr"] == mean_interval(doubly_robust(rows), np.arange(2000))
    assert (found.verdict, found.doubts, found.effective) == ("tell", [], effective_sample_size(rows.weight))
    spoiled = rows._replace(weight=np.append(1e5, rows.weight[1:]))
    doubted = estimate(spoiled, np.arange(2000))
    assert (doubted.verdict, doubted.largest) == ("refuse", 1e5)
    assert any("one row carries" in doubt for doubt in doubted.doubts)
