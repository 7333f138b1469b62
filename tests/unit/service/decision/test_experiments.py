"""Experiments: sticky, independent, exclusive; an arm is an engine of its own."""

from collections import Counter

import pytest
from scipy.stats import chisquare

from service.asks import Ask, PlacementAsked, Turn, is_asked_by
from service.catalog.entities import Arm, Experiment, Holdout
from service.decision.again import decide_again
from service.decision.decide import decide
from service.decision.engine import build_engine, with_arms
from service.decision.entities import CustomerState, PlacementRequest
from service.decision.experiments import HOLDOUT, PLAIN_ARM, Assigned, Assignment
from service.decision.explain import explain
from service.decision.records import Versions
from service.decision.scoring import FlatScorer
from service.ports import Reading

TWO = (
    Experiment("first", "first", 0.0, 0.3, (Arm("a", 0.5), Arm("b", 0.25), Arm("c", 0.25))),
    Experiment("second", "second", 0.3, 0.2, (Arm("a", 1.0), Arm("never", 0.0))),
)
CUSTOMERS = [f"c{number}" for number in range(20_000)]


def test_a_customer_is_in_one_arm_for_good():
    """The same answer every time, from any copy of the assignment."""
    first, again = Assignment(TWO, Holdout(0.1, "h")), Assignment(TWO, Holdout(0.1, "h"))
    assert [first.of(c) for c in CUSTOMERS[:500]] == [again.of(c) for c in CUSTOMERS[:500]]


def test_shares_are_what_the_catalog_says():
    """Half of 30 % in one arm, a quarter in each of two, 20 % in the second experiment, the rest in none."""
    counts = Counter(Assignment(TWO, None).of(c) for c in CUSTOMERS)
    expected = {
        Assigned("first", "a"): 0.15, Assigned("first", "b"): 0.075, Assigned("first", "c"): 0.075, Assigned("second", "a"): 0.2,
        None: 0.5,
    }  # fmt: skip
    assert set(counts) == set(expected)
    assert chisquare([counts[k] for k in expected], [len(CUSTOMERS) * share for share in expected.values()]).pvalue > 0.001


def test_the_holdout_comes_before_every_experiment_and_is_independent_of_them():
    """A tenth of each arm's customers would be in the holdout: it takes no arm's customers more than another's."""
    with_holdout, without = Assignment(TWO, Holdout(0.1, "h")), Assignment(TWO, None)
    held = [c for c in CUSTOMERS if with_holdout.of(c) == Assigned(HOLDOUT, HOLDOUT)]
    assert len(held) / len(CUSTOMERS) == pytest.approx(0.1, abs=0.01)
    arms, of_held = Counter(without.of(c) for c in CUSTOMERS), Counter(without.of(c) for c in held)
    for arm, count in arms.items():
        assert of_held[arm] / count == pytest.approx(0.1, abs=0.035)


def test_another_salt_parts_the_same_customers_anew():
    """Who was together in one experiment is spread over the arms of the next."""
    old, new = (Assignment((Experiment("e", salt, 0.0, 1.0, (Arm("a", 0.5), Arm("b", 0.5))),), None) for salt in ("x", "y"))
    together = [c for c in CUSTOMERS if old.of(c).arm == "a"]
    assert Counter(new.of(c).arm for c in together)["a"] / len(together) == pytest.approx(0.5, abs=0.02)


@pytest.fixture
def experiment(tiny):
    """Half of the customers see silver first, a fifth are held out."""
    actions = [tiny.action("gold"), tiny.action("silver")]
    arms = (Arm("as_is", 0.5), Arm("silver_first", 0.5))
    engine = tiny.engine(
        actions,
        rates={"gold": 0.2, "silver": 0.1},
        experiments=(Experiment("e", "e", 0.0, 1.0, arms),),
        holdout=Holdout(0.2, "h"),
    )
    other = tiny.engine(actions, rates={"gold": 0.1, "silver": 0.2})
    return with_arms(engine, {Assigned("e", "silver_first"): other})


def test_each_arm_decides_with_its_own_engine_and_the_record_says_which(experiment, tiny):
    """Exposure is logged in the decision."""
    records = decide(experiment, [tiny.request(f"d{i}", customer_id=f"c{i}") for i in range(300)])
    shown = {(r.experiment.arm, r.placements[0].items[0].action_id, r.placements[0].fallback) for r in records}
    assert shown == {("as_is", "gold", False), ("silver_first", "silver", False), (HOLDOUT, "welcome", True)}
    assert [r.decision_id for r in records] == [f"d{i}" for i in range(300)]


def test_a_held_out_customer_gets_the_fallback_with_certainty(experiment, tiny):
    """Nothing was chosen, so there are no candidates and nothing was dropped."""
    held = next(c for c in CUSTOMERS if experiment.assignment.of(c) == Assigned(HOLDOUT, HOLDOUT))
    placement = decide(experiment, [tiny.request(customer_id=held)])[0].placements[0]
    assert (placement.fallback, placement.candidates, placement.dropped) == (True, (), {})
    assert placement.items[0].choice_probability == 1.0


def test_an_arm_may_do_without_an_action_and_have_one_of_its_own(tiny):
    """It is decided, claimed and explained with what it has."""
    arms = (Arm("as_is", 0.5), Arm("other", 0.5))
    common, own = [tiny.action("gold"), tiny.action("silver")], [tiny.action("silver"), tiny.action("bronze", mandatory=True)]
    engine = tiny.engine(common, experiments=(Experiment("e", "e", 0.0, 1.0, arms),), rates={"gold": 0.2})
    engine = with_arms(engine, {Assigned("e", "other"): tiny.engine(own)})
    asks = [Ask(f"d{i}", f"c{i}", {}, (PlacementRequest("hero", 1),), ("gold",)) for i in range(20)]
    made = Turn(engine, 1.79e9).make(asks, Reading([CustomerState({}) for _ in asks]))
    explained = {one.record.experiment.arm: explain(engine, one.record, changes_for=None).placements[0] for one in made}
    shown = {arm: {a.action_id: a.stage for a in placement.actions} for arm, placement in explained.items()}
    assert shown == {"as_is": {"gold": "request", "silver": "shown"}, "other": {"silver": "arbitration", "bronze": "shown"}}
    assert all(one.claim(engine).contacts[0].action_id in shown[one.record.experiment.arm] for one in made)
    assert all(decide_again(engine, one.record) == one.record for one in made)


@pytest.mark.parametrize(("arm", "asked", "served"), [(2, None, 2), (1, None, 1), (1, 2, 1), (1, 1, 1), (3, 2, 2), (3, None, 3)])
def test_an_arm_may_give_its_placement_another_number_of_slots(tiny, arm, asked, served):
    """Its customers get so many where the request does not say how many, and no more where the others may have more."""
    actions, arms = [tiny.action(name) for name in ("gold", "silver", "bronze")], (Arm("other", 1.0),)
    engine = tiny.engine(actions, tiny.placement(slots=2), experiments=(Experiment("e", "e", 0.0, 1.0, arms),))
    engine = with_arms(engine, {Assigned("e", "other"): tiny.engine(actions, tiny.placement(slots=arm))})
    ask = Ask("d1", "c1", {}, (PlacementAsked("hero", asked),))
    [made] = Turn(engine, 1.79e9).make([ask], Reading([CustomerState({})]))
    [hero] = made.record.placements
    assert (hero.slots, len(hero.items)) == (served, served)
    assert is_asked_by(ask, made.record)
    assert decide_again(engine, made.record) == made.record


def test_one_in_a_hundred_is_not_personalised_whatever_the_experiments():
    """Sticky; the universal holdout goes first; in no experiment."""
    assignment = Assignment(TWO, Holdout(0.1, "h"), Holdout(0.01, "plain"))
    counts = Counter(assignment.of(c) for c in CUSTOMERS)
    assert counts[PLAIN_ARM] / len(CUSTOMERS) == pytest.approx(0.009, abs=0.003)
    plain = [c for c in CUSTOMERS if assignment.of(c) == PLAIN_ARM]
    assert not any(assignment.is_personalised(c) for c in plain)
    assert all(assignment.is_personalised(c) for c in CUSTOMERS if assignment.of(c) != PLAIN_ARM)


def test_who_is_not_personalised_is_answered_from_last_known_rates_and_rules_hold_all_the_same(tiny):
    """No model and nothing of the customer but consents, place and contacts; the record says so and can be made again."""
    adults = tiny.rule("is_adult", lambda customer, _context: customer.get("age", 0.0) >= 18)
    actions = [tiny.action("gold"), tiny.action("silver"), tiny.action("loan", rules=[adults])]
    catalog = tiny.catalog(actions, [tiny.placement()], not_personalised=Holdout(1.0, "plain"))
    scorer, rates = FlatScorer([0.9, 0.1, 0.8]), {"gold": 0.1, "silver": 0.2, "loan": 0.3}
    engine = with_arms(build_engine(catalog, tiny.contract, scorer, Versions(1, "b", "f"), last_rates=rates), {})
    ask = Ask("d1", "c1", {}, (PlacementRequest("hero", 1),))
    [made] = Turn(engine, 1.79e9).make([ask], Reading([CustomerState({"age": 40.0, "time_zone": "Asia/Shanghai"})]))
    [hero] = made.record.placements
    assert (hero.candidates, hero.predicted_rates, hero.dropped) == (("gold", "silver"), (0.1, 0.2), {"is_adult": ("loan",)})
    assert hero.items[0].action_id == "silver"
    assert (made.record.experiment, made.record.degraded) == (PLAIN_ARM, ("not_personalised",))
    assert made.record.customer == {"time_zone": "Asia/Shanghai"}
    assert (made.record.versions.bundle, made.record.versions.rates) == (None, "b")
    assert decide_again(engine, made.record) == made.record
