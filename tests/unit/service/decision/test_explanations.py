"""Every action of every decision has a reason or a rank, and what would have shown it does show it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.contract import Contract, Feature
from features.request_time import request_time_values
from service.catalog.entities import Treatment, Weight
from service.catalog.policies import Cap, Constraint, ContactPolicy, Selector
from service.catalog.validate import parse_catalog
from service.decision.contacts import SERVED, Contact, encode_contacts, type_code
from service.decision.counterfactual import smallest_change
from service.decision.decide import decide
from service.decision.engine import build_engine, by_priority
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.explain import explain
from service.decision.records import Versions
from service.decision.scoring import FlatScorer
from service.decision.situations import Change, Situation, applied, without_chance

RICH = Path(__file__).parents[1] / "catalog" / "rich.yaml"
NOW, DAY = 1_790_000_000.0, 86_400.0
CONTRACT = Contract(
    (
        Feature("age", "number", "profile"),
        Feature("region", "category", "profile", categories=("north", "south")),
        Feature("visits_30d", "number", "activity"),
        Feature("spend_12m", "number", "value"),
        Feature("complaint", "number", "attitude", default=0.0),
        Feature("channel", "category", "context", categories=("web", "app", "email")),
    )
)


class Hidden:
    """Holds an engine, so that a failing example is told without it."""

    def __init__(self, engine) -> None:
        self.engine = engine


@pytest.fixture(scope="module")
def hidden(engine):
    return Hidden(engine)


@pytest.fixture(scope="module")
def engine():
    catalog = parse_catalog(RICH.read_text(), CONTRACT, "rich.yaml")[1]
    rates = {"gold": 0.1, "silver": 0.2, "loan": 0.05, "story": 0.3, "follow_up": 0.4}
    return build_engine(catalog, CONTRACT, FlatScorer([rates[a.id] for a in by_priority(catalog)]), Versions(1, "b", "x"))


contacts = st.lists(
    st.builds(
        lambda kind, action, age, place: Contact(NOW - age, action, f"d{age}", place, kind),
        st.sampled_from([SERVED, type_code("impression"), type_code("dismiss"), type_code("accept")]),
        st.sampled_from(["gold", "silver", "loan", "story"]),
        st.floats(0, 70 * DAY),
        st.sampled_from(["hero", "side", "mail"]),
    ),
    max_size=8,
)
requests = st.builds(
    lambda number, customer, channel, hour, history, places, exclude, candidates, exhausted: DecisionRequest(
        f"d{number}",
        f"c{number}",
        NOW,
        CustomerState(customer, contacts=None if history is None else encode_contacts(history)),
        {"channel": channel, "local_hour": hour},
        tuple(PlacementRequest(*p) for p in places),
        exclude,
        candidates,
        exhausted=exhausted,
    ),
    st.integers(0, 10_000),
    st.fixed_dictionaries(
        {},
        optional={
            "age": st.floats(0, 99),
            "visits_30d": st.integers(0, 12).map(float),
            "spend_12m": st.floats(0, 1000),
            "complaint": st.sampled_from([0.0, 1.0]),
            "region": st.sampled_from(["north", "south"]),
        },
    ),
    st.sampled_from(["web", "app", "email"]),
    st.floats(0, 23.99),
    st.none() | contacts,
    st.lists(
        st.sampled_from([("hero", 1), ("hero", 3), ("side", 1), ("mail", 1)]), min_size=1, max_size=3, unique_by=lambda p: p[0]
    ),
    st.sampled_from([(), ("gold",), ("story", "loan")]),
    st.sampled_from([None, None, ("gold", "story")]),
    st.sampled_from([(), ("gold_budget",)]),
)


@given(requests)
@settings(max_examples=200)
def test_every_action_is_explained_once_at_every_placement(hidden, request_):
    """Shown, beaten, or dropped with a stage and a reason; ranks are those of the utilities, and counts add up."""
    engine = hidden.engine
    [record] = decide(engine, [request_])
    explained = explain(engine, record)
    for placement, logged in zip(explained.placements, record.placements, strict=True):
        assert sorted(a.action_id for a in placement.actions) == sorted(engine.positions)
        dropped = {a.action_id: a for a in placement.actions if a.rank is None}
        if record.experiment and record.experiment.id == "holdout":
            assert {a.stage for a in placement.actions} == {"holdout"}
            continue
        assert set(dropped) == {action for ids in logged.dropped.values() for action in ids}
        assert all(one.reason for one in dropped.values())
        assert sum(placement.dropped_by_stage.values()) == len(dropped)
        ranked = [a for a in placement.actions if a.rank is not None]
        assert [a.rank for a in ranked] == list(range(1, len(ranked) + 1))
        assert [a.factors.utility for a in ranked] == sorted(logged.utilities, reverse=True)
        assert {a.action_id for a in ranked if a.stage == "shown"} == {i.action_id for i in logged.items if not logged.fallback}


def test_only_the_weights_that_hold_for_an_action_are_among_its_factors(tiny):
    """A weight whose condition reads the action comes in several parts, of which one may hold and another not."""
    parts = ((True, "gold"), (False, "silver"))
    weights = [
        Weight("boost", tiny.rule("boost", lambda _customer, _, holds=holds: holds, key=name), 5.0, frozenset({name}))
        for holds, name in parts
    ]
    engine = tiny.engine([tiny.action(name) for _, name in parts], rates={"gold": 0.2, "silver": 0.1}, weights=tuple(weights))
    [placement] = explain(engine, decide(engine, [tiny.request()])[0]).placements
    told = {one.action_id: (one.factors.context, one.factors.weights) for one in placement.actions}
    assert told == {"gold": (5.0, {"boost": 5.0}), "silver": (1.0, {})}


@given(requests, st.sampled_from(["gold", "silver", "loan", "story", "follow_up"]), st.data())
@settings(max_examples=150)
def test_the_smallest_change_does_show_the_action_when_it_is_applied(hidden, request_, action, data):
    """Applied one after the other to the request and the catalog, chance aside: the action is among the items."""
    engine = hidden.engine
    placement = data.draw(st.sampled_from([p.id for p in request_.placements]))
    changes = smallest_change(engine, request_, placement, action)
    assert changes is not None
    situation = Situation(without_chance(engine), request_)
    for change in changes:
        situation = applied(situation, placement, action, change)
    [record] = decide(situation.engine, [situation.request])
    shown = next(p for p in record.placements if p.id == placement)
    assert not shown.fallback
    assert action in [item.action_id for item in shown.items]


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        ({"age": 30.0, "visits_30d": 3.0, "spend_12m": 500.0}, ["customer.visits_30d = 8, was 3"]),
        ({"visits_30d": 9.0, "spend_12m": 500.0}, ["customer.age = 18, was missing"]),
        ({"age": 30.0, "visits_30d": 9.0, "spend_12m": 50.0}, ["customer.spend_12m = 100, was 50"]),
        ({"age": 17.0, "visits_30d": 9.0, "spend_12m": 50.0, "complaint": 1.0}, None),
    ],
)
def test_a_change_says_in_words_which_value_would_have_had_to_be_another(engine, customer, expected):
    """The text names value and what it was."""
    request = DecisionRequest("d", "c", NOW, CustomerState(customer), {"channel": "web"}, (PlacementRequest("hero", 3),))
    changes = smallest_change(engine, request, "hero", "gold")
    values = [c.text for c in changes if c.kind == "value"]
    assert (
        values == expected
        if expected is not None
        else {c.name for c in changes if c.kind == "value"} == {"customer.age", "customer.spend_12m", "customer.complaint"}
    )


def test_what_time_heals_is_told_as_time(tiny):
    """A cap of one a day, reached two hours ago: 22 hours later."""
    policy = ContactPolicy(caps=(Cap("daily", 1, "action", DAY, "impressions"),))
    engine = tiny.engine([tiny.action("gold")], contact=policy)
    state = CustomerState({}, contacts=encode_contacts([Contact(NOW - 7200, "gold", "d0", "hero", type_code("impression"))]))
    [change] = smallest_change(engine, tiny.request(state=state, at=NOW), "hero", "gold")
    assert (change.kind, change.text) == ("moment", "1320 minutes later, when `daily` allows it again")


@pytest.mark.parametrize(
    ("at", "later"),
    [
        (1_790_000_000.0, 1800.0),  # 2026-09-21, a Monday, 14:13:20 UTC
        (1_790_030_340.0, 1860.0),  # 22:39
        (1_790_033_940.0, 1800.0),  # 23:39
        (1_790_000_000.0, -15 * 3600.0),
    ],
    ids=["the same hour", "the next hour", "past midnight", "the day before"],
)
def test_at_another_moment_hour_and_weekday_are_those_of_that_moment(tiny, at, later):
    """As a request of that moment would have them, past the hour and past midnight; the local hour moves along with them."""
    zone = "Europe/Berlin"
    request = tiny.request(at=at, context={"channel": "web", **request_time_values(at, zone)})
    situation = Situation(tiny.engine([tiny.action("a")]), request)
    then = applied(situation, "hero", "a", Change("moment", "at", at + later, "")).request
    assert then.at == at + later
    assert then.context == pytest.approx({"channel": "web", **request_time_values(at + later, zone)})


def test_what_a_context_does_not_have_another_moment_does_not_add(tiny):
    """An imported decision knew no hour: its rules saw none."""
    situation = Situation(tiny.engine([tiny.action("a")]), tiny.request(at=NOW, context={"channel": "web", "weekday": 5.0}))
    then = applied(situation, "hero", "a", Change("moment", "at", NOW + DAY, "")).request
    assert then.context == {"channel": "web", "weekday": 1.0}


@pytest.mark.parametrize(
    ("build", "request_", "kind"),
    [
        (lambda t: t.engine([t.action("a"), t.action("b")], rates={"a": 0.2, "b": 0.1}), {}, "lever"),
        (lambda t: t.engine([t.action("a"), t.action("b")], rates={"a": 0.2}), {}, "mandatory"),
        (lambda t: t.engine([t.action("a", mandatory=True), t.action("b", mandatory=True)]), {}, "slots"),
        (
            lambda t: t.engine([t.action("a"), t.action("b", placements=("side",))], t.placement(), t.placement("side")),
            {},
            "treatment",
        ),
        (lambda t: t.engine([t.action("a"), t.action("b", kind="content")], t.placement(accepts=("offer",))), {}, "treatment"),
        (lambda t: t.engine([t.action("b", span=(2e9, None))]), {}, "moment"),
        (lambda t: t.engine([t.action("b", span=(None, 1e8))]), {}, "moment"),
        (lambda t: t.engine([t.action("b")]), {"exclude_actions": ("b",)}, "request"),
        (lambda t: t.engine([t.action("a"), t.action("b")]), {"candidates": ("a",)}, "request"),
        (lambda t: t.engine([t.action("b")], constraints=(Constraint("none", Selector(), at_most=0),)), {}, "policy"),
    ],
)
def test_each_obstacle_has_its_own_kind_of_change(tiny, build, request_, kind):
    """Of the catalog, the moment, the request: whatever it was that kept the action away."""
    engine, request = build(tiny), tiny.request(at=1e9, **request_)
    changes = smallest_change(engine, request, "hero", "b")
    assert changes[0].kind == kind
    situation = Situation(without_chance(engine), request)
    for change in changes:
        situation = applied(situation, "hero", "b", change)
    assert "b" in [i.action_id for i in decide(situation.engine, [situation.request])[0].placements[0].items]


def test_an_explanation_gives_the_stage_the_rule_and_the_values_at_fault(engine):
    """What a colleague would want to know."""
    customer = {"age": 30.0, "visits_30d": 3.0, "spend_12m": 60.0}
    request = DecisionRequest("d", "c5", NOW, CustomerState(customer), {"channel": "web"}, (PlacementRequest("hero", 1),))
    [record] = decide(engine, [request])
    by_id = {a.action_id: a for a in explain(engine, record, changes_for=frozenset({"gold"})).placements[0].actions}
    gold, loan, follow_up = by_id["gold"], by_id["loan"], by_id["follow_up"]
    assert (gold.stage, gold.reason, gold.details) == ("applicability", "only_the_best", ("customer.visits_30d >= 8, was 3",))
    assert [c.name for c in gold.changes if c.kind == "value"] == ["customer.visits_30d", "customer.spend_12m"]
    assert (loan.stage, loan.reason) == ("suitability", "can_afford")
    assert (follow_up.stage, follow_up.changes) == ("eligibility", None)
    silver = by_id["silver"].factors
    assert silver.utility == pytest.approx(silver.rate * silver.context * silver.value * silver.lever)


def test_a_treatments_rule_is_explained_like_an_actions(tiny):
    """Dropped for want of a treatment that fits this customer."""
    loyal = tiny.rule("is_loyal", lambda customer, _: customer.get("tenure", 0) > 5, layer="applicability")
    engine = tiny.engine([tiny.action("gold", treatments=(Treatment("vip", ("hero",), {}, (loyal,)),))])
    [record] = decide(engine, [tiny.request()])
    [gold] = explain(engine, record).placements[0].actions
    assert (gold.stage, gold.reason) == ("applicability", "is_loyal")
