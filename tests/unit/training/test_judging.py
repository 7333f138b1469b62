"""Verdicts: promoted on proof, kept without it, refused where the log cannot carry one."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from training.examples import Examples
from training.judging import report
from training.off_policy import ESTIMATORS, FEWEST_EFFECTIVE
from training.policies import Chunk, PolicyRows

SIZE = 2000
GOLD, SILVER = 0, 1
ALLOWED = np.ones((SIZE, 2), np.bool_)


@pytest.fixture
def unseen() -> Examples:
    """Gold or silver at random; gold succeeds in 30 %, silver in 10 % of the rows."""
    chance = np.random.default_rng(0)
    served = chance.integers(0, 2, SIZE)
    label = (chance.random(SIZE) < np.where(served == GOLD, 0.3, 0.1)).astype(float)
    return Examples(
        decision_id=pa.array([f"d{i}" for i in range(SIZE)]), customer_id=np.array([f"c{i}" for i in range(SIZE)]),
        decided_at=np.arange(SIZE, dtype=float), placement=np.array(["hero"] * SIZE), slot=np.ones(SIZE, np.int64),
        action_id=np.array(["gold", "silver"])[served], choice_probability=np.full(SIZE, 0.5), label=label, values={},
    )  # fmt: skip


def found(unseen: Examples, **tables: float) -> PolicyRows:
    """Policies by name, each with its probability of gold."""
    rows = PolicyRows(unseen)
    served = np.where(unseen.action_id == "gold", GOLD, SILVER)
    chunk = Chunk(np.arange(len(unseen)), [], served, "hero")
    rates = np.broadcast_to([0.3, 0.1], (len(unseen), 2))
    for name, gold in tables.items():
        rows.add(name.replace("__", ":"), chunk, np.tile([gold, 1 - gold], (len(unseen), 1)), rates)
    return rows


def test_a_bundle_that_is_better_than_the_log_for_sure_is_promoted(unseen):
    """No champion: the log is what it has to beat."""
    said = report("click", "new", None, unseen, found(unseen, uniform=0.5, always__gold=1.0, bundle__new=1.0))
    assert said.verdict == "promote"
    value, (low, high) = said.gain_over_logged.value, said.gain_over_logged.ci
    assert low > 0
    assert said.reasons == (f"gain over logged: {value:+.6f} [{low:+.6f}, {high:+.6f}]",)


def test_a_bundle_that_may_be_worse_is_kept_back_and_one_that_is_worse_is_told_so(unseen):
    """An interval over zero proves nothing; one below it proves a loss."""
    alike = report("click", "new", None, unseen, found(unseen, bundle__new=0.49))
    assert (alike.verdict, alike.reasons[1]) == ("keep", "the interval does not exclude a loss")
    worse = report("click", "new", None, unseen, found(unseen, bundle__new=0.0))
    assert (worse.verdict, worse.reasons[1]) == ("keep", "proven to be worse")


def test_the_champion_is_what_a_challenger_has_to_beat(unseen):
    """Better than the log is not enough where something better serves already."""
    said = report("click", "new", "old", unseen, found(unseen, bundle__new=0.7, bundle__old=1.0))
    assert said.gain_over_logged.ci[0] > 0
    assert said.verdict == "keep"
    assert "gain over bundle:old" in said.reasons[0]


def test_a_refresh_may_replace_a_champion_it_is_hardly_worse_than(unseen):
    """Within five per cent of the champion's value, proven: the newer one may serve, and the reasons say why."""
    said = report("click", "new", "old", unseen, found(unseen, bundle__new=0.999, bundle__old=1.0))
    assert said.verdict == "promote"
    assert said.reasons[1] == "a refresh: the champion's value is at most 5% higher"


def test_the_champion_itself_is_compared_with_the_log(unseen):
    """It cannot be better than itself."""
    said = report("click", "old", "old", unseen, found(unseen, bundle__old=1.0))
    assert said.reasons[0].startswith("gain over logged")


def test_too_few_effective_rows_are_refused_whatever_the_values_say(unseen):
    """A policy that the log hardly ever followed cannot be judged by it."""
    few = unseen.take(np.arange(60))
    said = report("click", "new", None, few, found(few, bundle__new=1.0))
    assert said.verdict == "refuse"
    assert said.reasons[0].startswith("bundle:new: effective sample size")


def test_a_bundle_is_not_better_than_a_champion_of_whose_choices_hardly_any_succeed(unseen):
    """None of 200 where one had to be expected: the variance of nothing is 0, and a bundle half as good seemed better."""
    served, label = np.where(np.arange(SIZE) < SIZE // 10, GOLD, SILVER), np.zeros(SIZE)
    label[SIZE // 2 :: 100] = 1.0  # ten of 1,800
    rare = replace(
        unseen, action_id=np.array(["gold", "silver"])[served], label=label, choice_probability=np.where(served == GOLD, 0.1, 0.9)
    )
    said = report("click", "new", "old", rare, found(rare, bundle__new=0.0, bundle__old=1.0, always__gold=1.0))
    assert (said.verdict, said.best_static) == ("refuse", None)
    assert "bundle:old: 1.0 successes, had or to be expected, at least 10 are needed" in said.reasons


def test_a_bundle_is_not_judged_by_a_handful_of_customers(unseen):
    """Five with 400 rows each: what is true of them may be true of nobody else."""
    few = replace(unseen, customer_id=np.array([f"c{i % 5}" for i in range(SIZE)]))
    said = report("click", "new", None, few, found(few, bundle__new=1.0))
    assert said.verdict == "refuse"
    assert said.reasons == ("bundle:new: rows of 5 customers, of at least 10 are needed",)


def of_first(unseen: Examples, rows: int, **tables: float) -> PolicyRows:
    """Only so many rows are of a placement that there still is; each policy with its probability of gold there."""
    found_there = PolicyRows(unseen)
    served = np.where(unseen.action_id == "gold", GOLD, SILVER)[:rows]
    for name, gold in tables.items():
        chunk = Chunk(np.arange(rows), [], served, "hero")
        found_there.add(name.replace("__", ":"), chunk, np.tile([gold, 1 - gold], (rows, 1)), np.tile([0.3, 0.1], (rows, 1)))
    return found_there


def test_rows_that_a_bundle_does_not_decide_carry_no_verdict(unseen):
    """Sixty of 2,000 are of a placement that there still is: the others have weight one, and say nothing of the bundle."""
    said = report("click", "new", None, unseen, of_first(unseen, 60, bundle__new=1.0))
    assert said.verdict == "refuse"
    assert said.reasons[0].startswith("bundle:new: effective sample size")
    assert said.reasons[0].endswith("of 60 rows, at least 100 are needed")
    assert said.policies["bundle:new"].ess <= 60


def test_a_bundle_that_decides_nothing_is_refused(unseen):
    """Every row is of a placement that is gone, or nothing may be offered."""
    nothing = PolicyRows(unseen)
    nothing.add("bundle:new", Chunk(np.arange(10), [], np.full(10, GOLD), "hero"), np.zeros((10, 2)), np.zeros((10, 2)))
    said = report("click", "new", None, unseen, nothing)
    assert (said.verdict, said.policies["bundle:new"].max_weight) == ("refuse", 0.0)


def test_an_action_that_is_allowed_in_a_few_rows_is_not_the_best_one(unseen):
    """In twenty: everywhere else it does what the log did, and would be as good as the log."""
    said = report("click", "new", None, unseen, of_first(unseen, 20, bundle__new=1.0, always__gold=1.0))
    assert said.best_static is None


def test_the_best_static_action_is_chosen_among_those_the_log_can_speak_of(unseen):
    """A lucky handful of rows makes no best action."""
    rows = found(unseen, bundle__new=1.0, always__gold=1.0)
    rare = unseen.choice_probability.copy()
    rare[unseen.action_id == "silver"] = 1e-3
    lucky = Examples(**{**vars(unseen), "choice_probability": rare})
    chunk = Chunk(np.arange(5), [], np.full(5, SILVER), "hero")
    rows.add("always:silver", chunk, np.tile([0.0, 1.0], (5, 1)), np.full((5, 2), 0.9))
    said = report("click", "new", None, lucky, rows)
    assert said.best_static == "always:gold"
    assert said.policies["always:gold"].ess >= FEWEST_EFFECTIVE


def test_no_victory_over_the_best_static_is_claimed_without_proof(unseen):
    """The same choices as the best action: no gain, and no claim."""
    same = report("click", "new", None, unseen, found(unseen, always__gold=1.0, bundle__new=1.0))
    assert same.gain_over_best_static.value == 0.0
    assert not same.beats_best_static
    better = report("click", "new", None, unseen, found(unseen, always__silver=0.0, bundle__new=1.0))
    assert better.beats_best_static == (better.gain_over_best_static.ci[0] > 0)


def test_every_policy_says_its_estimator_and_the_logged_one_is_a_plain_mean(unseen):
    """The log's own value needs no weights."""
    said = report("click", "new", None, unseen, found(unseen, uniform=0.5, bundle__new=1.0))
    assert said.policies["logged"].estimator == "mean"
    assert said.policies["logged"].value == pytest.approx(unseen.label.mean(), abs=1e-6)
    assert said.policies["logged"].estimators is None
    assert said.policies["uniform"].estimator == "dr"
    assert set(said.policies["uniform"].estimators) == set(ESTIMATORS)
    assert said.policies["uniform"].ess == SIZE
    assert said.bundle == "new"
