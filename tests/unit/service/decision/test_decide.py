"""The decision: who is chosen, how likely that was, and why the others were not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from service.decision.board import EXCLUDED_BY_REQUEST, NOT_REQUESTED, SHOWN_ELSEWHERE
from service.decision.decide import choice_table, decide
from service.decision.eligibility import NOT_SHOWN_HERE

RATES = {"gold": 0.2, "silver": 0.3, "news": 0.1}


@pytest.fixture
def actions(tiny):
    return [tiny.action("gold", value=10.0), tiny.action("silver", value=5.0), tiny.action("news", kind="content", value=1.0)]


def test_the_highest_utility_wins_not_the_highest_rate(tiny, actions):
    """Gold succeeds less often than silver and is worth more: 0.2 x 10 beats 0.3 x 5."""
    [record] = decide(tiny.engine(actions, rates=RATES), [tiny.request()])
    [item] = record.placements[0].items
    assert (item.action_id, item.treatment_id, item.choice_probability, item.explored) == ("gold", "gold_creative", 1.0, False)
    assert (item.predicted_rate, item.utility) == (pytest.approx(0.2), pytest.approx(2.0))


def test_a_lever_multiplies_the_value(tiny):
    """Marketers push an action by its lever, and the utility says so."""
    engine = tiny.engine([tiny.action("a", lever=3.0), tiny.action("b", value=2.0)], rates={"a": 0.1, "b": 0.1})
    [record] = decide(engine, [tiny.request()])
    assert record.placements[0].items[0].action_id == "a"
    assert record.placements[0].items[0].utility == pytest.approx(0.3)


def test_without_a_model_the_priority_ranks(tiny):
    """All predicted rates equal: the action with the highest priority comes first."""
    engine = tiny.engine([tiny.action("low", priority=1.0), tiny.action("high", priority=2.0)])
    assert decide(engine, [tiny.request()])[0].placements[0].items[0].action_id == "high"


def test_the_same_request_gets_the_same_record_alone_or_in_any_batch(tiny, actions):
    """Coalescing must not change an answer."""
    engine = tiny.engine(actions, tiny.placement(epsilon=0.5, slots=3), rates=RATES)
    requests = [tiny.request(f"d{i}", ("hero", 1 + i % 3)) for i in range(50)]
    together = decide(engine, requests)
    assert together == [decide(engine, [r])[0] for r in requests]
    assert together[::-1] == decide(engine, requests[::-1])


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(1, 3), st.booleans(), st.booleans()), max_size=8))
@settings(max_examples=60)
def test_no_action_appears_twice_in_one_answer(tiny, batch):
    """Whatever is asked, slots and placements of one answer share no action."""
    engine = tiny.engine(
        [tiny.action(n, placements=("hero", "side")) for n in "abcd"],
        tiny.placement(slots=3, epsilon=0.4),
        tiny.placement("side", slots=3),
    )
    requests = [
        tiny.request(name, ("hero", slots), *([("side", 2)] if side else []), exclude_actions=("a",) if exclude else ())
        for name, slots, side, exclude in batch
    ]
    for record in decide(engine, requests):
        served = [i.action_id for p in record.placements if not p.fallback for i in p.items]
        assert len(served) == len(set(served))


def test_logged_probabilities_are_the_frequencies_of_each_slot(tiny, actions):
    """10,000 decisions over two slots: served counts match the sum of the probabilities of every candidate, slot by slot."""
    engine = tiny.engine(actions, tiny.placement(epsilon=0.3, slots=2), rates=RATES)
    records = decide(engine, [tiny.request(f"d{i}", ("hero", 2)) for i in range(10_000)])
    first = [r.placements[0].items[0] for r in records]
    probability = {item.action_id: item.choice_probability for item in first}
    observed = [sum(i.action_id == name for i in first) for name in RATES]
    assert chisquare(observed, [10_000 * probability[name] for name in RATES]).pvalue > 0.001
    after_gold = [r.placements[0].items[1] for r in records if r.placements[0].items[0].action_id == "gold"]
    expected = {item.action_id: item.choice_probability for item in after_gold}
    assert sum(expected.values()) == pytest.approx(1.0)
    observed = [sum(i.action_id == name for i in after_gold) for name in expected]
    assert chisquare(observed, [len(after_gold) * p for p in expected.values()]).pvalue > 0.001


def test_an_explored_choice_says_so(tiny, actions):
    """Explored means: not what greed alone would have chosen."""
    engine = tiny.engine(actions, tiny.placement(epsilon=1.0), rates=RATES)
    items = [r.placements[0].items[0] for r in decide(engine, [tiny.request(f"d{i}") for i in range(200)])]
    assert {i.explored for i in items} == {True, False}
    assert all(i.explored == (i.action_id != "gold") for i in items)


def test_the_choice_table_holds_the_probability_that_each_served_item_carries(tiny, actions):
    """Evaluation weighs by the very numbers that serving logs."""
    engine = tiny.engine(actions, tiny.placement(epsilon=0.3), rates=RATES)
    requests = [tiny.request(f"d{i}", exclude_actions=("gold",) if i % 2 else ()) for i in range(40)]
    table = choice_table(engine, requests, "hero")
    for row, record in enumerate(decide(engine, requests)):
        item = record.placements[0].items[0]
        assert table.probabilities[row, engine.positions[item.action_id]] == item.choice_probability
    np.testing.assert_allclose(table.probabilities.sum(axis=1), 1.0)


def test_a_dropped_action_is_named_under_the_first_reason_that_removed_it(tiny):
    """Rules first, then the request, then the places already taken, then the placement itself."""
    engine = tiny.engine(
        [
            tiny.action("taken", placements=("hero", "side"), priority=9.0),
            tiny.action("ruled_out", rules=[tiny.rule("never", lambda _customer, _context: False)]),
            tiny.action("excluded"),
            tiny.action("unasked"),
            tiny.action("elsewhere", placements=("hero",)),
            tiny.action("fits", placements=("side",)),
        ],
        tiny.placement(), tiny.placement("side"),
    )  # fmt: skip
    request = tiny.request(
        "d1",
        ("hero", 1),
        ("side", 1),
        exclude_actions=("excluded",),
        candidates=("taken", "ruled_out", "excluded", "elsewhere", "fits"),
    )
    side = decide(engine, [request])[0].placements[1]
    assert side.dropped == {
        "never": ("ruled_out",),
        EXCLUDED_BY_REQUEST: ("excluded",),
        NOT_REQUESTED: ("unasked",),
        SHOWN_ELSEWHERE: ("taken",),
        NOT_SHOWN_HERE: ("elsewhere",),
    }
    assert side.candidates == ("fits",)


def test_unknown_names_in_the_request_are_no_error(tiny, actions):
    """A caller may know tomorrow's actions already."""
    request = tiny.request(exclude_actions=("tomorrow",), candidates=("tomorrow", "news"))
    assert decide(tiny.engine(actions, rates=RATES), [request])[0].placements[0].items[0].action_id == "news"


def test_nothing_eligible_shows_the_fallback_with_certainty(tiny, actions):
    """The fallback has no rules, no model and no chance in it."""
    placement = decide(tiny.engine(actions), [tiny.request(candidates=())])[0].placements[0]
    [item] = placement.items
    assert placement.fallback
    assert (item.action_id, item.kind, item.choice_probability, item.explored) == ("welcome", "content", 1.0, False)


def test_fewer_actions_than_slots_fill_what_they_can(tiny):
    """Three slots and two actions: two items, ranked, no fallback."""
    engine = tiny.engine([tiny.action("a"), tiny.action("b")], tiny.placement(slots=3, epsilon=0.5))
    placement = decide(engine, [tiny.request("d", ("hero", 3))])[0].placements[0]
    assert [i.rank for i in placement.items] == [1, 2]
    assert not placement.fallback


def test_a_kind_that_a_placement_does_not_accept_is_not_shown_there(tiny, actions):
    """A placement for content never shows an offer, whatever it is worth."""
    engine = tiny.engine(actions, tiny.placement(accepts=("content",)), rates=RATES)
    placement = decide(engine, [tiny.request()])[0].placements[0]
    assert placement.items[0].action_id == "news"
    assert placement.dropped == {NOT_SHOWN_HERE: ("gold", "silver")}


def test_an_empty_batch_has_no_decisions(tiny, actions):
    """Nothing asked, nothing answered."""
    assert decide(tiny.engine(actions), []) == []
