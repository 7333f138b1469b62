"""What events feed: the same whatever their order, the same as counting them one by one, and bounded."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import ContractError, contract_document, parse_contract, step_of
from features.live import CHANNEL, MOST_IDS, MOST_VALUES, Event, LiveFeatures, decode_state, encode_state

CATEGORIES = "type: category, origin: activity, categories: [fashion, home]"
FASHION = "{aggregate: count, type: viewed, window: 24h, where: {category: fashion}}"
CONTRACT = parse_contract(f"""
features:
  - {{name: views_30min, type: number, origin: activity, events: {{aggregate: count, type: viewed, window: 30 min}}}}
  - {{name: views_24h, type: number, origin: activity, events: {{aggregate: count, type: viewed, window: 24h}}}}
  - {{name: spend_7d, type: number, origin: value, events: {{aggregate: sum, type: bought, property: amount, window: 7d}}}}
  - {{name: anything_30d, type: number, origin: activity, events: {{aggregate: count, window: 30d}}}}
  - {{name: warmth, type: number, origin: activity, events: {{aggregate: count, type: [viewed, bought], half_life: 2d}}}}
  - {{name: worth, type: number, origin: value, events: {{aggregate: sum, type: bought, property: amount, half_life: 30d}}}}
  - {{name: days_since_buying, type: number, origin: value, max_age: 20d, events: {{aggregate: since_last, type: bought}}}}
  - {{name: last_seen, {CATEGORIES}, events: {{aggregate: recent, type: viewed, property: category}}}}
  - {{name: before_that, {CATEGORIES}, events: {{aggregate: recent, type: viewed, property: category, position: 2}}}}
  - {{name: channels_7d, type: number, origin: activity, events: {{aggregate: distinct, property: channel, window: 7d}}}}
  - {{name: fashion_24h, type: number, origin: activity, events: {FASHION}}}
""")
DAY = 86_400.0
NOW = 1_790_000_123.0
live = LiveFeatures(CONTRACT)

events = st.lists(
    st.builds(
        lambda number, kind, age, category, amount, channel: Event(
            f"e{number}", kind, NOW - age, {"category": category, "amount": amount, CHANNEL: channel}
        ),
        st.integers(0, 60),
        st.sampled_from(["viewed", "bought", "other"]),
        st.one_of(st.floats(0, 7200), st.floats(0, 40 * DAY)),
        st.sampled_from(["fashion", "home", "garden"]),
        st.integers(0, 500).map(float),
        st.sampled_from(["web", "app", "email"]),
    ),
    max_size=40,
    unique_by=lambda event: event.event_id,
)


def agree(values, expected) -> bool:
    """Texts are equal, numbers within rounding."""
    texts = {name for name, value in expected.items() if isinstance(value, str)}
    numbers = [{k: v for k, v in one.items() if k not in texts} for one in (values, expected)]
    return all(values.get(name) == expected[name] for name in texts) and numbers[0] == pytest.approx(numbers[1], rel=1e-9)


def naive(happened, now):
    """Every feature by its definition, from all the events."""

    def inside(event, window):
        step = step_of(window)
        return now // step - round(window / step) < event.at // step <= now // step

    viewed = [e for e in happened if e.type == "viewed"]
    bought = [e for e in happened if e.type == "bought"]
    found = {
        "views_30min": sum(inside(e, 1800.0) for e in viewed),
        "views_24h": sum(inside(e, DAY) for e in viewed),
        "spend_7d": sum(e.properties["amount"] for e in bought if inside(e, 7 * DAY)),
        "anything_30d": sum(inside(e, 30 * DAY) for e in happened),
        "warmth": sum(0.5 ** ((now - e.at) / (2 * DAY)) for e in viewed + bought),
        "worth": sum(e.properties["amount"] * 0.5 ** ((now - e.at) / (30 * DAY)) for e in bought),
        "channels_7d": len({e.properties[CHANNEL] for e in happened if inside(e, 7 * DAY)}),
        "fashion_24h": sum(inside(e, DAY) for e in viewed if e.properties["category"] == "fashion"),
    }
    if bought and now - max(e.at for e in bought) <= 20 * DAY:
        found["days_since_buying"] = (now - max(e.at for e in bought)) / DAY
    newest = sorted(viewed, key=lambda e: (-e.at, e.event_id))
    for name, position in (("last_seen", 0), ("before_that", 1)):
        if len(newest) > position and newest[position].properties["category"] != "garden":
            found[name] = newest[position].properties["category"]
    return found


@given(events, st.randoms(use_true_random=False))
def test_features_are_what_counting_by_their_definitions_gives_in_any_order(happened, chance):
    """Late ones included; through bytes and back after every event."""
    state = {}
    for event in chance.sample(happened, len(happened)):
        state = decode_state(encode_state(live.apply(state, [event])))
    assert agree(live.values(state, NOW), naive(happened, NOW))


@given(events, st.floats(0, 60 * DAY))
def test_what_was_counted_leaves_its_window_as_time_passes(happened, later):
    """No event is needed for a count to fall."""
    state = live.apply({}, happened)
    assert agree(live.values(state, NOW + later), naive(happened, NOW + later))


@given(events, events)
def test_a_repeated_event_changes_nothing(happened, others):
    """In the same call or in a later one; the state is equal to the byte."""
    once = live.apply({}, [*happened, *(e for e in others if e.event_id not in {h.event_id for h in happened})])
    again = live.apply(once, happened)
    assert encode_state(again) == encode_state(once)


@given(events, st.sets(st.integers(0, 60)))
def test_two_states_of_one_person_merge_into_what_all_the_events_give(happened, first):
    """Whichever events each of the two had."""
    mine = [e for e in happened if int(e.event_id[1:]) in first]
    others = [e for e in happened if int(e.event_id[1:]) not in first]
    merged = live.merge(live.apply({}, mine), live.apply({}, others))
    assert agree(live.values(merged, NOW), naive(happened, NOW))


def test_nobody_known_has_done_nothing():
    """Counts are zero; what has no last time is missing."""
    values = live.values({}, NOW)
    assert values["views_24h"] == values["worth"] == values["channels_7d"] == 0.0
    assert "days_since_buying" not in values
    assert "last_seen" not in values


def test_a_state_is_bounded_whatever_comes():
    """20,000 events over two years with as many channels: less than 16 kB, and the counts of the last days are right."""
    happened = [
        Event(f"e{n}", "viewed", NOW - n * 3000.0, {"category": f"c{n}", CHANNEL: f"channel{n}"}) for n in reversed(range(20_000))
    ]
    state = live.apply({}, happened)
    assert len(encode_state(state)) < 16_000
    assert len(state["ids"]) == MOST_IDS
    expected = naive(happened, NOW)
    values = live.values(state, NOW)
    assert values["views_24h"] == expected["views_24h"]
    assert values["channels_7d"] == min(MOST_VALUES, expected["channels_7d"])


def test_a_sum_beyond_all_numbers_is_missing():
    """No record could hold it; what is in another window, and what comes after it, counts."""
    huge = [Event(f"e{n}", "bought", NOW - 9 * DAY, {"amount": 1.7e308, CHANNEL: "web"}) for n in range(2)]
    state = live.apply({}, huge)
    assert {"spend_7d", "worth"} - live.values(state, NOW - 9 * DAY).keys() == {"spend_7d", "worth"}
    later = live.apply(state, [Event("e9", "bought", NOW, {"amount": 5.0, CHANNEL: "web"})])
    assert live.values(later, NOW)["spend_7d"] == 5.0


def test_an_event_without_the_property_or_of_another_type_adds_nothing():
    """A sum needs a number, a filter its value."""
    odd = [
        Event("a", "bought", NOW, {CHANNEL: "web"}),
        Event("b", "bought", NOW, {"amount": "much", CHANNEL: "web"}),
        Event("c", "bought", NOW, {"amount": math.inf, CHANNEL: "web"}),
        Event("d", "viewed", NOW, {CHANNEL: "web"}),
    ]
    values = live.values(live.apply({}, odd), NOW)
    assert (values["spend_7d"], values["fashion_24h"], values["views_24h"]) == (0.0, 0.0, 1.0)
    assert "last_seen" not in values


def test_a_contract_with_events_survives_being_written_down():
    """Document and contract are inverses, and the fingerprint knows how events feed a feature."""
    assert parse_contract(contract_document(CONTRACT)) == CONTRACT
    other = contract_document(CONTRACT).replace("window: 1d", "window: 2d", 1)
    assert parse_contract(other).fingerprint != CONTRACT.fingerprint


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ("{aggregate: count}", "either `window` or `half_life`"),
        ("{aggregate: count, window: 1d, half_life: 1d}", "either `window` or `half_life`"),
        ("{aggregate: distinct, property: channel, half_life: 1d}", "Expected `window` for `distinct`"),
        ("{aggregate: since_last, window: 1d}", "no `window`"),
        ("{aggregate: sum, window: 1d}", "a `property`"),
        ("{aggregate: count, window: 1d, property: amount}", "no `property`"),
        ("{aggregate: count, window: 1d, position: 2}", "no `position`"),
        ("{aggregate: recent, property: x, position: 0}", ">= 1"),
        ("{aggregate: mean, window: 1d}", "Invalid enum value 'mean'"),
        ("{aggregate: count, window: soon}", "Expected a duration"),
        ("{aggregate: count, window: 10s}", "whole steps"),
        ("{aggregate: count, window: 90s}", "whole steps"),
        ("{aggregate: count, window: 50h}", "whole steps .of 21600 s"),
        ("{aggregate: count, window: 1000d}", "to 960d, got"),
        ("{aggregate: count, window: 0d}", "whole steps"),
        ("{aggregate: count, half_life: 0d}", "longer than 0 s .a window has 60 s to 960d., got `0d` - at .*events.half_life"),
        ("{aggregate: sum, property: amount, half_life: 0.0h}", "Expected a half-life longer than 0 s"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(events, problem):
    """Expected, found, where."""
    with pytest.raises(ContractError, match=problem):
        parse_contract(f"features: [{{name: x, type: number, origin: activity, events: {events}}}]")
