"""Arms by their customers, and differences that may be looked at any time."""

import io
import math
from collections.abc import Sequence

import numpy as np
import pytest
import yaml
from rich.console import Console

from features.contract import parse_contract
from service.catalog.entities import Arm, Experiment, Holdout
from service.cli import main
from service.decision.experiments import Assigned, Assignment
from service.decision.records import DecisionRecord, OutcomeRecord, Versions
from service.errors import NotReady
from service.registry import Registry
from tests.unit.training.conftest import write_log
from training.decision_tables import experiments_table
from training.experiments import (
    ArmReport,
    ArmSums,
    Difference,
    ExperimentReport,
    always_valid,
    arm_sums,
    difference,
    experiments,
    mismatch,
)
from training.judging import Gain
from training.planned import Plans

EMPTY = parse_contract("features: []")
ARMS = {"id": "e", "share": 0.5, "arms": [{"id": "a"}, {"id": "b"}]}


def test_an_arms_value_is_outcomes_per_decision():
    """Four decisions of two customers, one success."""
    found = arm_sums(np.array([3.0, 1.0]), np.array([1.0, 0.0]))
    assert (found.customers, found.decisions, found.value) == (2, 4, 0.25)


def test_its_variance_is_that_of_a_ratio_over_customers():
    """Against 4,000 repetitions of the same world, in which customers differ in how often they come and respond."""
    chance = np.random.default_rng(1)

    def drawn() -> ArmSums:
        decisions = chance.poisson(3, 300) + 1.0
        rates = chance.beta(2, 8, 300)
        return arm_sums(decisions, chance.binomial(decisions.astype(int), rates).astype(float))

    repeated = [drawn() for _ in range(4000)]
    assert np.mean([r.variance for r in repeated]) == pytest.approx(np.var([r.value for r in repeated]), rel=0.06)


@pytest.mark.parametrize("customers", [0, 1])
def test_one_customer_says_nothing(customers):
    """No variance, no interval."""
    found = arm_sums(np.ones(customers), np.zeros(customers))
    assert math.isinf(found.variance)
    assert difference("b", found, found).gain.ci == (-math.inf, math.inf)


def test_whoever_looks_at_every_customer_is_misled_in_five_of_a_hundred_at_most():
    """500 streams without a difference, looked at 400 times each; a plain interval misleads in half of them."""
    chance = np.random.default_rng(2)
    plain = valid = 0
    for _ in range(500):
        values = chance.normal(0, 1, 4000)
        looks = np.arange(100, 4001, 10)
        means = np.cumsum(values)[looks - 1] / looks
        valid += any(not low <= 0 <= high for low, high in (always_valid(m, 1 / n, n) for m, n in zip(means, looks, strict=True)))
        plain += bool((np.abs(means) > 1.96 / np.sqrt(looks)).any())
    assert valid <= 25
    assert plain > 100


def test_a_real_difference_is_found_and_has_its_sign():
    """Better where more comes of it, worse where less."""
    many, few = ArmSums(5000, 10_000, 0.12, 1e-5, 1000), ArmSums(5000, 10_000, 0.08, 1e-5, 700)
    assert difference("b", many, few).verdict == "better"
    assert difference("b", few, many).verdict == "worse"
    assert difference("b", many, many).verdict == "no difference shown"
    assert difference("b", many._replace(customers=99), few).verdict == "too few customers"


def of_each(customers: int, successes: int) -> ArmSums:
    """One decision of each customer."""
    return arm_sums(np.ones(customers), (np.arange(customers) < successes) * 1.0)


@pytest.mark.parametrize(
    ("tried", "first", "expected"),
    [
        ((100, 0), (9_900, 99), "too few outcomes"),
        ((100, 2), (9_900, 99), "too few outcomes"),
        ((9_900, 99), (100, 0), "too few outcomes"),
        ((9_900, 0), (9_900, 0), "too few outcomes"),
        ((600, 0), (9_900, 99), "worse"),
        ((100, 30), (9_900, 0), "better"),
        ((100, 5), (9_900, 99), "no difference shown"),
    ],
)
def test_an_arm_without_outcomes_differs_where_some_had_to_be_expected(tried, first, expected):
    """None of 100 at one in a hundred is chance; none of 600 is not, nor are 30 of 100 where nobody else has any."""
    assert difference("b", of_each(*tried), of_each(*first)).verdict == expected


@pytest.mark.parametrize(("customers", "expected"), [((500, 500), 1.0), ((550, 450), 0.0016), ((600, 400), 2.5e-10)])
def test_shares_that_chance_would_not_give_are_found(customers, expected):
    """Chi-square with one degree of freedom: (50^2 / 500) x 2 = 10, and so on."""
    assert mismatch(customers, (0.5, 0.5)) == pytest.approx(expected, rel=0.05)


def test_the_log_tells_what_the_arms_brought(busy_home):
    """Half of the customers, two arms in the catalog's order; chance brings less than the model, or nothing is shown."""
    report, plain = sorted(experiments(busy_home, "click"), key=lambda one: one.id)
    assert (report.id, [arm.arm for arm in report.arms]) == ("levels", ["as_it_is", "chance"])
    assert 1200 < sum(arm.decisions for arm in report.arms) < 1800
    assert report.mismatch > 0.001
    [found] = report.differences
    assert found.verdict in ("worse", "no difference shown")
    assert found.gain.value < 0
    assert (plain.id, [arm.arm for arm in plain.arms]) == ("not_personalised", ["not_personalised", "personalised"])
    assert 5 < plain.arms[0].customers < 60
    assert plain.mismatch > 0.001


def logged(home, assigned: Sequence[Assigned | None], first: int = 0, *, succeed: float = 0.0) -> None:
    """A decision of the catalog that serves for each customer from c0 on, and the arm that it is in; so many succeed."""
    versions = Versions(Registry(home / "registry").current().catalog or 0, None, "x")
    ids = [f"d{first + n}" for n in range(len(assigned))]
    records = [
        DecisionRecord(name, f"c{n}", 1e9 + first, {}, {}, (), versions, experiment=arm)
        for n, (name, arm) in enumerate(zip(ids, assigned, strict=True))
    ]
    lucky = np.random.default_rng(first).random(len(ids)) < succeed
    clicks = [OutcomeRecord(f"o-{name}", name, "click", 1e9, 1e9) for name, is_lucky in zip(ids, lucky, strict=True) if is_lucky]
    write_log(home, records, clicks)


def planned(home, *experiments: dict, **sections: object) -> None:
    """The home's catalog with these experiments, and further sections."""
    draft, catalog = home / "planned.yaml", yaml.safe_load((home / "catalog.yaml").read_text())
    draft.write_text(yaml.safe_dump({**catalog, "experiments": experiments, **sections}))
    assert main(["--home", str(home), "catalog", "publish", str(draft)]) == 0


def two_arms(weight: float, share: float = 1.0, salt: str = "e") -> dict:
    """An experiment whose second arm has this weight."""
    return {"id": "e", "salt": salt, "share": share, "arms": [{"id": "a", "weight": 1.0 - weight}, {"id": "b", "weight": weight}]}


def as_planned(weight: float, share: float = 1.0, customers: int = 5_000, plain: float = 0.01) -> list[Assigned | None]:
    """Customers as they are really assigned."""
    arms = Arm("a", 1.0 - weight), Arm("b", weight)
    assignment = Assignment((Experiment("e", "e", 0.0, share, arms),), None, Holdout(plain, "not_personalised"))
    return [assignment.of(f"c{n}") for n in range(customers)]


def test_what_an_arm_brought_when_it_had_another_weight_does_not_count(own_home):
    """A tenth gets the new arm in a bad season, a half in a good one: it is no better, and pooled it would look so."""
    for first, (weight, rate) in enumerate([(0.1, 0.1), (0.5, 0.4)]):
        planned(own_home, two_arms(weight))
        logged(own_home, as_planned(weight), 10_000 * first, succeed=rate)
    report, _plain = sorted(experiments(own_home, "click"), key=lambda one: one.id)
    assert report.differences[0].verdict == "no difference shown"
    assert report.mismatch is not None
    assert report.mismatch > 0.001
    now = sum(assigned is not None and assigned.id == "e" for assigned in as_planned(0.5))
    assert (sum(arm.decisions for arm in report.arms), report.left_out) == (now, now)
    told = io.StringIO()
    experiments_table([report], Console(file=told, width=120, highlight=False))
    assert f"{now:,} decisions are left out, of when its arms were planned otherwise" in told.getvalue()


def test_an_experiment_may_have_the_name_of_those_who_are_in_none(own_home):
    """It is over, and everybody else has a newer catalog: its decisions are still told."""
    planned(own_home, {**two_arms(0.5), "id": "personalised"})
    logged(own_home, [Assigned("personalised", arm) for arm in "ab"] * 200)
    planned(own_home)
    logged(own_home, [None] * 5, 10_000)
    [found] = experiments(own_home, "click")
    assert (found.id, [arm.decisions for arm in found.arms], found.left_out) == ("personalised", [200, 200], 0)


def test_more_customers_for_the_same_arms_change_nothing(own_home):
    """All decisions count where an experiment grows; and once it is over, its shares are still known."""
    for first, share in enumerate([0.2, 0.8]):
        planned(own_home, two_arms(0.5, share))
        logged(own_home, as_planned(0.5, share), 10_000 * first)
    planned(own_home)
    report, plain = sorted(experiments(own_home, "click"), key=lambda one: one.id)
    assert (report.left_out, plain.left_out) == (0, 0)
    assert report.mismatch is not None
    assert min(report.mismatch, plain.mismatch or 0.0) > 0.001


def test_more_who_are_not_personalised_are_compared_with_their_time(own_home):
    """One in a hundred, then one in twenty: the first time counts no more, whatever the experiments of then and now."""
    for first, plain in enumerate([0.01, 0.05]):
        planned(own_home, two_arms(0.5, 0.5), not_personalised={"share": plain})
        logged(own_home, as_planned(0.5, 0.5, plain=plain), 10_000 * first)
    report, compared = sorted(experiments(own_home, "click"), key=lambda one: one.id)
    assert (report.left_out, compared.left_out > 2_000) == (0, True)
    assert 200 < compared.arms[0].customers < 300
    assert min(report.mismatch or 0.0, compared.mismatch or 0.0) > 0.001


@pytest.mark.parametrize(
    ("weights", "customers", "expected"),
    [
        ({"a": 1, "b": 1}, {"a": 1000}, 1.7e-219),
        ({"a": 1, "b": 1}, {"b": 1000}, 1.7e-219),
        ({"a": 1, "b": 1, "c": 1}, {"a": 1000, "b": 1000}, 7.1e-218),
        ({"a": 1, "b": 1, "c": 1}, {"a": 1000, "b": 1000, "c": 1}, 2.5e-217),
        ({"a": 1, "b": 1}, {"a": 3}, 0.083),
        ({"a": 1, "b": 1, "c": 0}, {"a": 1000, "b": 1000}, 1.0),
    ],
)
def test_an_arm_that_nobody_got_is_missing_where_some_had_to_be_expected(own_home, weights, customers, expected):
    """All in one of two arms, one or nobody in a third; none of three is chance, and an arm without a share is none at all."""
    planned(own_home, {"id": "e", "share": 1.0, "arms": [{"id": arm, "weight": weight} for arm, weight in weights.items()]})
    logged(own_home, [Assigned("e", arm) for arm, size in customers.items() for _ in range(size)])
    [found] = experiments(own_home, "click")
    assert {arm.arm: arm.customers for arm in found.arms} == {arm: customers.get(arm, 0) for arm, w in weights.items() if w}
    assert found.mismatch == pytest.approx(expected, rel=0.05)


def test_an_experiment_that_came_later_takes_nobody_from_those_who_are_not_personalised(own_home):
    """10,000 customers before it and half of them again beside it, as they are really assigned."""
    plain = Holdout(0.01, "not_personalised")
    arms = (Arm("a", 0.5), Arm("b", 0.5))
    before, after = (Assignment(of, None, plain) for of in ((), (Experiment("e", "e", 0.0, 0.5, arms),)))
    planned(own_home, {"id": "e", "share": 0.5, "arms": [{"id": "a"}, {"id": "b"}]})
    logged(own_home, [before.of(f"c{n}") for n in range(10_000)])
    logged(own_home, [after.of(f"c{n}") for n in range(5_000)], 10_000)
    found = {report.id: report.mismatch for report in experiments(own_home, "click")}
    assert found.keys() == {"e", "not_personalised"}
    assert min(found.values()) > 0.001


def test_one_who_is_not_personalised_still_counts_once_nobody_is(own_home):
    """Of the time when some were; a decision of after that takes nothing from it."""
    for first, plain in enumerate([0.05, 0.0]):
        planned(own_home, not_personalised={"share": plain})
        logged(own_home, [arm if arm and arm.id != "e" else None for arm in as_planned(0.5, plain=plain)], 10_000 * first)
    [found] = experiments(own_home, "click")
    assert (sum(arm.customers for arm in found.arms), found.left_out) == (5_000, 5_000)
    assert found.mismatch is not None
    assert found.mismatch > 0.001


@pytest.mark.parametrize(("customers", "names"), [(5_000, ["not_personalised"]), (50, [])])
def test_that_nobody_is_without_personalisation_is_told_where_somebody_had_to_be(own_home, customers, names):
    """One in a hundred, as every catalog has it that says nothing."""
    planned(own_home)
    logged(own_home, [None] * customers)
    try:
        found = experiments(own_home, "click")
    except NotReady:
        found = []
    assert [report.id for report in found] == names
    assert [report.mismatch < 1e-6 for report in found if report.mismatch is not None] == [True] * len(names)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"experiments": [ARMS]}, {"experiments": [{**ARMS, "salt": "e"}]}),
        (
            {"experiments": [ARMS]},
            {"experiments": [{**ARMS, "share": 1.0, "arms": [{"id": "a", "weight": 3}, {"weight": 3.0, "id": "b"}]}]},
        ),
        ({}, {"not_personalised": {"share": 0.01, "salt": "not_personalised"}}),
        ({}, {"holdout": {"share": 0}}),
    ],
    ids=["salt", "weights", "not_personalised", "holdout"],
)
def test_what_a_catalog_means_is_the_same_plan_however_it_is_spelt(tmp_path, before, after):
    """Defaults may be written out, weights be in proportion."""
    registry = Registry(tmp_path)
    numbers = [
        registry.publish_catalog(one, fingerprint="f", author="a", note="n", at="2026-01-01T00:00:00Z") for one in (before, after)
    ]
    plans = Plans(registry, EMPTY)
    for name in ("e", "holdout", "not_personalised"):
        assert plans.of(numbers[0], name) == plans.of(numbers[1], name)
    assert plans.of(numbers[0], "e") != plans.of(99, "e") != plans.of(98, "e")


@pytest.mark.parametrize(
    "after",
    [
        {**ARMS, "salt": "f"},
        {**ARMS, "arms": [{"id": "a"}, {"id": "b", "weight": 2}]},
        {**ARMS, "arms": [{"id": "a"}, {"id": "b", "bundle": "x"}]},
    ],
    ids=["salt", "weights", "what an arm does"],
)
def test_what_shares_out_or_does_something_else_is_another_plan(tmp_path, after):
    """Of the experiment, and of no other."""
    registry = Registry(tmp_path)
    documents = [{"experiments": [one, {**ARMS, "id": "other"}]} for one in (ARMS, after)]
    numbers = [
        registry.publish_catalog(one, fingerprint="f", author="a", note="n", at="2026-01-01T00:00:00Z") for one in documents
    ]
    plans = Plans(registry, EMPTY)
    assert [plans.of(numbers[0], name) == plans.of(numbers[1], name) for name in ("e", "other")] == [False, True]


def test_without_an_experiment_there_is_nothing_to_tell(trained_home):
    """And the error says what to do."""
    with pytest.raises(NotReady, match="declare `experiments`"):
        experiments(trained_home, "click")


def test_arms_of_which_nothing_has_come_yet_are_told(own_home):
    """The first days of an outcome that takes weeks: every difference is 0, and so is the interval's picture."""
    planned(own_home, two_arms(0.5))
    logged(own_home, as_planned(0.5))
    told = io.StringIO()
    experiments_table(experiments(own_home, "click"), Console(file=told, width=120, highlight=False))
    assert "too few outcomes" in told.getvalue()
    assert "+0.0000 to +0.0000" in told.getvalue()


def test_no_figure_of_the_table_is_cut_where_a_terminal_says_nothing():
    """A pipe has 120 characters: names of columns, figures and the verdict are whole."""
    found = Difference("personalised", Gain(0.0856, (0.0104, 0.1608)), "no difference shown")
    arms = (ArmReport("not_personalised", 32, 249, 0.0803), ArmReport("personalised", 1_003_492, 12_024_741, 0.1659))
    told = io.StringIO()
    experiments_table([ExperimentReport("e", "click", arms, (found,), None)], Console(file=told, width=120, highlight=False))
    assert "…" not in told.getvalue()
    assert "12,024,741" in told.getvalue()
