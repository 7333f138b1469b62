"""What ranks an action, what comes first, and what an answer may hold as a whole."""

import sys

import msgspec
import numpy as np
import pytest

from features.contract import parse_contract
from service.catalog.entities import PRIMARY, Exploration, Treatment, Weight
from service.catalog.policies import Constraint, Selector
from service.catalog.validate import parse_catalog
from service.decision.again import encode_record
from service.decision.decide import choice_table, decide
from service.decision.engine import ablated, build_engine
from service.decision.records import DecisionRecord, Versions
from service.decision.scoring import FlatScorer

RATES = {"gold": 0.1, "silver": 0.1, "story": 0.1}
CONTRACT = parse_contract("""
features:
  - {name: returns, type: number, origin: value, max_age: 400d}
  - {name: fee, type: number, origin: value, max_age: 400d, default: 2}
  - {name: channel, type: category, origin: context, categories: [web, app]}
""")
FORMULAS = """
catalog: 1
attributes: {margin: number, cost: number}
issues: [{id: sales}]
groups: [{id: cards, issue: sales}]
actions:
  - {id: gold, group: cards, kind: offer, value: {formula: "action.margin - action.cost * customer.returns", otherwise: 7},
     attributes: {margin: 30, cost: 10}, treatments: [{id: g, placements: [hero]}]}
  - {id: silver, group: cards, kind: offer, value: {formula: "action.margin - action.cost * customer.returns", otherwise: 3},
     attributes: {margin: 20, cost: 1}, treatments: [{id: s, placements: [hero]}]}
  - {id: loan, group: cards, kind: offer, value: "max(customer.fee, 5) / 2", treatments: [{id: l, placements: [hero]}]}
placements: [{id: hero, channel: web, slots: 3, fallback: {action: none, kind: nothing}}]
"""


def utilities(engine, request) -> dict[str, float]:
    placement = decide(engine, [request])[0].placements[0]
    return dict(zip(placement.candidates, placement.utilities, strict=True))


@pytest.fixture(scope="module")
def formulas():
    catalog = parse_catalog(FORMULAS, CONTRACT)[1]
    return build_engine(catalog, CONTRACT, FlatScorer([1.0, 1.0, 1.0]), Versions(1, None, ""))


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        ({"returns": 0.0}, {"gold": 30.0, "silver": 20.0, "loan": 2.5}),
        ({"returns": 2.0, "fee": 8.0}, {"gold": 10.0, "silver": 18.0, "loan": 4.0}),
        ({}, {"gold": 7.0, "silver": 3.0, "loan": 2.5}),
        ({"returns": "many"}, {"gold": 7.0, "silver": 3.0, "loan": 2.5}),
        ({"returns": 1e308, "fee": -1.0}, {"gold": 7.0, "silver": -1e308, "loan": 2.5}),
    ],
)
def test_a_formula_gives_each_customer_their_own_value(formulas, tiny, customer, expected):
    """Defaults stand in, a missing value or one beyond all numbers takes what the action says instead."""
    assert utilities(formulas, tiny.request(customer=customer)) == pytest.approx(expected)


@pytest.mark.parametrize("explore", ["{epsilon: 0}", "{softmax: {temperature: 1}}"])
def test_a_utility_beyond_the_largest_float_is_that_float(tiny, explore):
    """JSON has no infinity, so that the record could not be read again. Others in its batch are as they are alone."""
    text = FORMULAS.replace("slots: 3", f"slots: 1, explore: {explore}").replace("id: loan,", "id: loan, lever: 10,")
    engine = build_engine(parse_catalog(text, CONTRACT)[1], CONTRACT, FlatScorer([1.0, 1.0, 1.0]), Versions(1, None, ""))
    batch = [tiny.request(f"d{i}", customer={"returns": 1.0, "fee": fee}) for i, fee in enumerate([1.7e308, 8.0])]
    huge, usual = decide(engine, batch)
    assert utilities(engine, batch[0])["loan"] == sys.float_info.max
    assert [(item.action_id, item.choice_probability) for item in huge.placements[0].items] == [("loan", 1.0)]
    assert msgspec.json.decode(encode_record(huge), type=DecisionRecord) == huge
    assert usual == decide(engine, batch[1:])[0]


@pytest.mark.parametrize("formula", ["1 / 0", "action.margin / (2 - 2)", "customer.fee * (1 / (2 - 2))", "min(1, abs(0 / 0))"])
def test_a_division_by_zero_counts_as_missing(tiny, formula):
    """Also one of two numbers that stand in the formula."""
    text = FORMULAS.replace("action.margin - action.cost * customer.returns", formula)
    engine = build_engine(parse_catalog(text, CONTRACT)[1], CONTRACT, FlatScorer([1.0, 1.0, 1.0]), Versions(1, None, ""))
    assert utilities(engine, tiny.request()) == pytest.approx({"gold": 7.0, "silver": 3.0, "loan": 2.5})


def test_a_formula_is_worked_out_for_a_batch_as_for_one(formulas, tiny):
    """Columns of a batch do not mix."""
    batch = [tiny.request(f"d{i}", customer={"returns": float(i)} if i % 3 else {}) for i in range(20)]
    assert decide(formulas, batch) == [decide(formulas, [request])[0] for request in batch]


def test_context_weights_multiply_where_their_condition_holds(tiny):
    """On the web gold counts double, and twice that for the young; silver never."""
    actions = [tiny.action("gold"), tiny.action("silver")]
    weights = (
        Weight("web", tiny.rule("web", lambda _, context: context.get("channel") == "web"), 2.0, frozenset({"gold"})),
        Weight("young", tiny.rule("young", lambda customer, _: customer.get("age", 99) < 30), 2.0, frozenset({"gold"})),
    )
    engine = tiny.engine(actions, rates=RATES, weights=weights)
    assert utilities(engine, tiny.request()) == pytest.approx({"gold": 0.1, "silver": 0.1})
    assert utilities(engine, tiny.request(context={"channel": "web"})) == pytest.approx({"gold": 0.2, "silver": 0.1})
    both = tiny.request(context={"channel": "web"}, customer={"age": 20.0})
    assert utilities(engine, both) == pytest.approx({"gold": 0.4, "silver": 0.1})


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        (("rate", "context", "value", "lever"), 0.1 * 5 * 3 * 2),
        (("rate",), 0.1),
        (("value",), 5.0),
        (("rate", "lever"), 0.3),
        ((), 1.0),
    ],
)
def test_each_factor_can_be_switched_off_per_placement(tiny, factors, expected):
    """Rate 0.1, value 5, lever 3, context weight 2."""
    always = Weight("always", tiny.rule("always", lambda _customer, _context: True), 2.0, frozenset({"gold"}))
    engine = tiny.engine(
        [tiny.action("gold", value=5.0, lever=3.0)], tiny.placement(factors=factors), rates=RATES, weights=(always,)
    )
    assert utilities(engine, tiny.request())["gold"] == pytest.approx(expected)


def test_several_objectives_are_weighted_and_one_without_a_model_adds_nothing(tiny):
    """Clicks count once, conversions four times, retention is predicted by nobody."""
    placement = tiny.placement(objectives={PRIMARY: 1.0, "conversion": 4.0, "retention": 9.0})
    catalog = tiny.catalog([tiny.action("gold"), tiny.action("silver")], [placement])
    scorers = {PRIMARY: FlatScorer([0.3, 0.1]), "conversion": FlatScorer([0.0, 0.2])}
    engine = build_engine(catalog, tiny.contract, scorers, Versions(1, None, ""))
    record = decide(engine, [tiny.request()])[0].placements[0]
    assert dict(zip(record.candidates, record.utilities, strict=True)) == pytest.approx({"gold": 0.3, "silver": 0.9})
    assert record.items[0].action_id == "silver"
    assert record.items[0].predicted_rate == 0.1


def test_a_mandatory_action_comes_first_with_certainty_wherever_it_may_be_offered(tiny):
    """Whatever it is worth, and whatever is explored; where a rule forbids it, nothing changes."""
    complained = tiny.rule("complained", lambda customer, _: customer.get("complaint", 0) > 0)
    actions = [
        tiny.action("gold", value=100.0),
        tiny.action("follow_up", value=0.0, kind="service", mandatory=True, rules=[complained]),
    ]
    engine = tiny.engine(actions, tiny.placement(slots=2, epsilon=0.5), rates=RATES)
    for number in range(20):
        items = decide(engine, [tiny.request(f"d{number}", ("hero", 2), customer={"complaint": 1.0})])[0].placements[0].items
        assert [(i.action_id, i.choice_probability, i.explored) for i in items] == [
            ("follow_up", 1.0, False), ("gold", 1.0, False)
        ]  # fmt: skip
    assert decide(engine, [tiny.request()])[0].placements[0].items[0].action_id == "gold"
    table = choice_table(engine, [tiny.request(customer={"complaint": 1.0})], "hero")
    assert table.probabilities.tolist() == [[0.0, 1.0]]


def test_of_several_mandatory_actions_the_best_comes_first(tiny):
    """They fill the slots in the order of their utility."""
    actions = [
        tiny.action("a", value=9.0),
        tiny.action("b", value=1.0, mandatory=True),
        tiny.action("c", value=2.0, mandatory=True),
    ]
    engine = tiny.engine(actions, tiny.placement(slots=3), rates=dict.fromkeys("abc", 0.5))
    assert [i.action_id for i in decide(engine, [tiny.request("d", ("hero", 3))])[0].placements[0].items] == ["c", "b", "a"]


@pytest.fixture
def mixed(tiny):
    """Four offers worth more than three stories."""
    offers = [tiny.action(f"offer{i}", value=9.0 - i, placements=("hero", "side")) for i in range(4)]
    stories = [tiny.action(f"story{i}", kind="content", value=3.0 - i, placements=("hero", "side")) for i in range(3)]
    rates = {a.id: 0.5 for a in (*offers, *stories)}

    def build(*constraints, **given):
        return tiny.engine(
            [*offers, *stories], tiny.placement(slots=5, **given), tiny.placement("side", slots=5, repeats=True), rates=rates,
            constraints=constraints,
        )  # fmt: skip

    return build


def kinds(record) -> list[str]:
    return [item.kind for placement in record.placements if not placement.fallback for item in placement.items]


@pytest.mark.parametrize(
    ("constraint", "slots", "expected"),
    [
        (Constraint("c", Selector(kinds=("offer",)), at_most=2), 5, ["offer", "offer", "content", "content", "content"]),
        (Constraint("c", Selector(kinds=("offer",)), at_most=0), 2, ["content", "content"]),
        (Constraint("c", Selector(kinds=("offer",)), at_most_share=0.5), 4, ["offer", "offer", "content", "content"]),
        (Constraint("c", Selector(kinds=("offer",)), at_most_share=0.5), 3, ["offer", "offer", "content"]),
        (Constraint("c", Selector(kinds=("content",)), at_least_share=0.5), 4, ["offer", "offer", "content", "content"]),
        (Constraint("c", Selector(kinds=("content",)), at_least_share=0.5), 3, ["offer", "offer", "content"]),
        (Constraint("c", Selector(kinds=("content",)), at_least_share=0.5), 1, ["offer"]),
        (Constraint("c", Selector(kinds=("content",)), at_least_share=0.3), 10, ["offer"] * 4 + ["content"] * 3),
    ],
)
def test_an_answer_holds_no_more_of_a_kind_than_its_constraints_say(mixed, tiny, constraint, slots, expected):
    """A number, a share of the slots rounded up, or a share that must at least be there, rounded down."""
    asked = [("hero", min(slots, 5)), *([("side", slots - 5)] if slots > 5 else [])]
    engine = mixed(constraint)
    found = kinds(decide(engine, [tiny.request("d", *asked)])[0])
    assert found == expected if slots <= 5 else sorted(found)[:3] == ["content"] * 3


def test_a_constraint_counts_over_all_placements_of_the_answer(mixed, tiny):
    """Two offers in the hero: none left for the side."""
    engine = mixed(Constraint("two_offers", Selector(kinds=("offer",)), at_most=2))
    record = decide(engine, [tiny.request("d", ("hero", 2), ("side", 2))])[0]
    assert [[i.kind for i in p.items] for p in record.placements] == [["offer", "offer"], ["content", "content"]]
    assert record.placements[1].dropped["two_offers"] == ("offer0", "offer1", "offer2", "offer3")


def test_an_action_is_not_repeated_in_an_answer_unless_a_placement_allows_it(mixed, tiny):
    """The side may show again what the hero shows; the other way round it may not."""
    engine = mixed()
    hero_first = decide(engine, [tiny.request("d", ("hero", 1), ("side", 1))])[0]
    assert [p.items[0].action_id for p in hero_first.placements] == ["offer0", "offer0"]
    side_first = decide(engine, [tiny.request("d", ("side", 1), ("hero", 1))])[0]
    assert [p.items[0].action_id for p in side_first.placements] == ["offer0", "offer1"]
    within = decide(engine, [tiny.request("d", ("side", 5))])[0].placements[0]
    assert len({i.action_id for i in within.items}) == 5


def test_the_first_treatment_whose_rules_pass_is_shown(tiny):
    """The loyal see theirs, others the common one; with none left the action is dropped under its rule's name."""
    loyal = tiny.rule("is_loyal", lambda customer, _: customer.get("tenure", 0) > 5)
    vip = Treatment("vip", ("hero",), {"title": "For you"}, (loyal,))
    common = Treatment("common", ("hero",), {"title": "For all"})
    engine = tiny.engine([tiny.action("gold", treatments=(vip, common)), tiny.action("silver", treatments=(vip,), priority=-1.0)])
    loyal_one = decide(engine, [tiny.request(customer={"tenure": 9.0})])[0].placements[0]
    other = decide(engine, [tiny.request("d2")])[0].placements[0]
    assert (loyal_one.items[0].treatment_id, other.items[0].treatment_id) == ("vip", "common")
    assert (loyal_one.dropped, other.dropped) == ({}, {"is_loyal": ("silver",)})
    assert engine.content("gold", "vip") == {"title": "For you"}


def test_a_missing_value_names_itself_in_the_reason():
    """Not old enough and nobody knows how old are two different things."""
    text = FORMULAS.replace("issue: sales}]", "issue: sales, eligibility: {few: 'customer.returns < 3'}}]")
    catalog = parse_catalog(text, CONTRACT)[1]
    rules = build_engine(catalog, CONTRACT, FlatScorer([1.0] * 3), Versions(1, None, "")).rules
    assert rules.eligible({"returns": 9.0}, {}, 0.0).dropped == {"few": ("gold", "silver", "loan")}
    assert rules.eligible({}, {}, 0.0).dropped == {"few (missing customer.returns)": ("gold", "silver", "loan")}


def test_actions_the_model_hardly_knows_share_the_floor(tiny):
    """Below 100 rows of evidence: the newcomer gets its share, the others what is left."""
    explore = Exploration(floor_share=0.2, floor_below=100)
    engine = tiny.engine(
        [tiny.action("gold"), tiny.action("silver"), tiny.action("new")], tiny.placement(explore=explore), rates=RATES,
        evidence={"gold": 5000, "silver": 100, "new": 99},
    )  # fmt: skip
    assert choice_table(engine, [tiny.request()], "hero").probabilities.tolist() == pytest.approx(np.array([[0.8, 0.0, 0.2]]))


@pytest.mark.parametrize(
    ("ablation", "allowed", "best"),
    [
        (None, ["gold", "silver"], {"gold": 1.0}),
        ("no_levers", ["gold", "silver"], {"silver": 1.0}),
        ("predicted_rate_only", ["gold", "silver"], {"gold": 1.0}),
        ("eligibility_only", ["gold", "silver"], {"gold": 0.5, "silver": 0.5}),
        ("random", ["gold", "silver", "unsuitable"], {"gold": 1 / 3, "silver": 1 / 3, "unsuitable": 1 / 3}),
    ],
)
def test_an_ablation_takes_one_stage_out(tiny, ablation, allowed, best):
    """Eligibility always holds; the other layers, the model, the levers are what an arm can do without."""
    never = tiny.rule("never", lambda _customer, _context: False)
    bad = tiny.rule("bad", lambda _customer, _context: False, key="bad", layer="suitability")
    actions = [
        tiny.action("gold", lever=9.0, value=1.0), tiny.action("silver", value=2.0), tiny.action("illegal", rules=[never]),
        tiny.action("unsuitable", rules=[bad], value=99.0),
    ]  # fmt: skip
    catalog = ablated(tiny.catalog(actions, [tiny.placement()]), ablation)
    engine = build_engine(catalog, tiny.contract, FlatScorer([0.2, 0.2, 0.9, 0.9]), Versions(1, None, ""))
    table = choice_table(engine, [tiny.request()], "hero")
    assert [a.id for a, ok in zip(engine.actions, table.allowed[0], strict=True) if ok] == allowed
    chosen = {a.id: p for a, p in zip(engine.actions, table.probabilities[0], strict=True) if p}
    assert chosen == pytest.approx(best)
