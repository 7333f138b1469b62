"""Following a journey: the stage at a moment, whatever the order, the repetition and the parting of events."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import ContractError, parse_contract
from features.journey import journey_document, parse_journey
from features.live import CHANNEL, Event, LiveFeatures, decode_state, encode_state
from features.live_offline import disagreement, event_table, live_values
from features.walk import ENTRY, MOST_KEPT, US, JourneyFeatures, Walk

JOURNEY = parse_journey("""
start: new
stages:
  new: {on: {viewed: browsing, carted: cart}, after: {2h: quiet}}
  browsing: {on: {viewed: browsing, carted: cart, bought: bought}, after: {30min: quiet}}
  cart:
    on: [{type: carted, where: {category: gift}, to: bought}, {type: carted, to: cart}, {type: bought, to: bought}]
    after: {30min: abandoned}
  abandoned: {on: {viewed: browsing, bought: bought}, after: {1d: quiet}}
  bought: {on: {viewed: browsing}}
  quiet: {on: {viewed: browsing, carted: cart}}
""")
TELLING = """
  - {name: journey_stage, type: category, origin: activity, journey: stage}
  - {name: journey_days_in_stage, type: number, origin: activity, journey: days_in_stage}
  - {name: journey_previous_stage, type: category, origin: activity, journey: previous_stage, categories: [browsing, cart]}
"""
CONTRACT = parse_contract(f"features: {TELLING}", journey=JOURNEY)
BESIDE = parse_contract(
    f"features: {TELLING}  - {{name: views, type: number, origin: activity, events: {{aggregate: count, window: 1d}}}}",
    journey=JOURNEY,
)
NOW = 1_790_000_123.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
live = LiveFeatures(CONTRACT)


def event(name: str, kind: str, ago: float, category: str = "home") -> Event:
    return Event(name, kind, NOW - ago, {"category": category, CHANNEL: "web"})


def told(*happened: Event, now: float = NOW):
    """Stage, days in it, the stage before."""
    values = live.values(live.apply({}, happened), now)
    return tuple(values.get(f"journey_{name}") for name in ("stage", "days_in_stage", "previous_stage"))


def naive(happened, now):
    """The stage by the document's words, one microsecond-exact step after the other, from all the events."""
    stages = {stage.name: stage for stage in JOURNEY.stages}
    stage, since, previous, waiting = "new", None, None, None

    def wait(until):
        nonlocal stage, since, previous, waiting
        while stages[stage].after is not None and waiting is not None and waiting + round(stages[stage].after * US) <= until:
            previous, waiting = stage, waiting + round(stages[stage].after * US)
            stage, since = stages[stage].then, waiting

    for one in happened:
        at = round(one.at * US)
        wait(at)
        fitting = [m for m in stages[stage].moves if m.type == one.type and m.where.items() <= one.properties.items()]
        if fitting:
            waiting = at
            if fitting[0].to != stage:
                previous, stage, since = stage, fitting[0].to, at
    wait(round(now * US))
    days = None if since is None else (round(now * US) - since) / (DAY * US)
    return stage, days, previous if previous in ("browsing", "cart") else None


some_events = st.lists(
    st.builds(
        event,
        st.integers(0, 500).map("e{}".format),
        st.sampled_from(["viewed", "carted", "bought", "other"]),
        st.one_of(st.integers(0, 40).map(lambda n: n * 15 * MINUTE), st.floats(0, 5 * DAY)),
        st.sampled_from(["gift", "home"]),
    ),
    max_size=50,
    unique_by=(lambda e: e.event_id, lambda e: round(e.at * US)),  # of one moment the hash of the id says which is first
)  # fmt: skip


@pytest.mark.parametrize(
    ("happened", "expected"),
    [
        ([], ("new", None, None)),
        ([event("a", "bought", 10.0)], ("new", None, None)),  # leads nowhere from there
        ([event("a", "viewed", MINUTE)], ("browsing", MINUTE / DAY, None)),
        ([event("a", "viewed", 31 * MINUTE)], ("quiet", MINUTE / DAY, "browsing")),
        ([event("a", "viewed", 30 * MINUTE)], ("quiet", 0.0, "browsing")),  # the moment itself is too late
        ([event("a", "viewed", 50 * MINUTE), event("b", "viewed", 25 * MINUTE)], ("browsing", 50 * MINUTE / DAY, None)),
        ([event("a", "carted", 40 * MINUTE)], ("abandoned", 10 * MINUTE / DAY, "cart")),
        ([event("a", "carted", DAY + HOUR)], ("quiet", 30 * MINUTE / DAY, None)),  # two time-outs, one after the other
        ([event("a", "carted", 40 * MINUTE), event("b", "bought", 20 * MINUTE)], ("bought", 20 * MINUTE / DAY, "cart")),
        ([event("a", "carted", HOUR), event("b", "carted", 50 * MINUTE, "gift")], ("bought", 50 * MINUTE / DAY, "cart")),
    ],
)
def test_the_stage_is_where_events_and_time_outs_lead(happened, expected):
    """A self-transition starts the time-out anew and lets the time in the stage go on; time-outs follow each other."""
    stage, days, previous = told(*happened)
    assert (stage, previous) == (expected[0], expected[2])
    assert days == (None if expected[1] is None else pytest.approx(expected[1], abs=1e-9))


def test_a_time_out_passes_without_an_event():
    """The same state, read again later."""
    happened = [event("a", "carted", 0.0)]
    assert [told(*happened, now=NOW + later)[0] for later in (0, 29 * MINUTE, 30 * MINUTE, 2 * DAY)] == [
        "cart", "cart", "abandoned", "quiet",
    ]  # fmt: skip


@given(some_events, st.floats(0, 3 * DAY), st.randoms(use_true_random=False))
def test_any_order_any_repetition_any_parting_gives_the_stage_that_the_document_says(happened, later, chance):
    """In pieces, twice, in two states that are merged, through bytes: what following the document word by word gives."""
    kinds = [
        [e for e in happened if e.type == kind and (e.properties["category"] in categories)]
        for kind, categories in (("viewed", "gift home"), ("carted", "gift"), ("carted", "home"), ("bought", "gift home"))
    ]
    newest = sorted((e for some in kinds for e in sorted(some, key=lambda e: e.at)[-MOST_KEPT:]), key=lambda e: e.at)
    states = [{}, {}]
    for one in [*chance.sample(happened, len(happened)), *chance.sample(happened, len(happened) // 2)]:
        which = chance.randrange(2)
        states[which] = decode_state(encode_state(live.apply(states[which], [one])))
    values = live.values(live.merge(*states), NOW + later)
    stage, days, previous = naive(newest, NOW + later)
    assert values["journey_stage"] == stage
    assert values.get("journey_previous_stage") == previous
    assert values.get("journey_days_in_stage") == days


@given(some_events, st.lists(st.floats(-5 * DAY, 3 * DAY), min_size=1, max_size=5))
def test_at_any_moment_offline_is_what_online_would_have_said(happened, moments):
    """DuckDB finds the newest of each kind until then, and the same walk follows them; also events of one moment."""
    asked = pa.table({"customer_id": ["c1"] * len(moments), "at": [NOW + m for m in moments]})
    found = live_values(BESIDE, event_table([("c1", e) for e in happened], BESIDE), asked).to_pylist()
    online = LiveFeatures(BESIDE)
    for row in found:
        values = online.values(online.apply({}, [e for e in happened if e.at <= row["at"]]), row["at"])
        assert [f.name for f in BESIDE.live if disagreement(values, row, f)] == []


@given(some_events, some_events)
def test_a_repeated_event_and_the_order_of_two_calls_leave_no_trace(first, second):
    """What is kept is equal to the byte."""
    others = [e for e in second if e.event_id not in {f.event_id for f in first}]
    key = JourneyFeatures(CONTRACT).key
    one = live.apply(live.apply({}, first), [*others, *first])
    other = live.apply(live.apply({}, others), first)
    assert one.get(key) == other.get(key)


def test_what_is_kept_is_bounded():
    """5,000 events in one call: 16 of each of four kinds."""
    happened = [event(f"e{n}", ("viewed", "carted", "bought")[n % 3], n * 60.0, ("gift", "home")[n % 2]) for n in range(5000)]
    state = live.apply({}, happened)
    assert len(state[JourneyFeatures(CONTRACT).key]) == 4 * MOST_KEPT * ENTRY.size


def test_a_change_tells_the_type_of_its_event():
    """Whichever of the conditions it met."""
    walk = Walk(JOURNEY)
    entries = [(n, n, walk.kind(kind, {"category": "gift"})) for n, kind in enumerate(["viewed", "carted", "carted"])]
    changes = walk.changes(entries, 10)
    assert [(walk.names[stage], walk.type_of(kind)) for stage, _, kind in changes] == [
        ("browsing", "viewed"), ("cart", "carted"), ("bought", "carted"),
    ]  # fmt: skip


def test_a_journey_is_told_only_where_there_is_one():
    """A contract without one has nothing to follow."""
    with pytest.raises(ContractError, match="Expected a contract with a journey"):
        JourneyFeatures(parse_contract("features: []"))


def test_a_changed_time_out_holds_at_once_and_other_conditions_start_anew():
    """What is kept says what happened, not what it meant; kinds of other conditions are not mistaken for these."""
    text = journey_document(JOURNEY)
    state = live.apply({}, [event("a", "carted", 40 * MINUTE)])

    def stage(changed: str) -> object:
        contract = parse_contract(f"features: {TELLING}", journey=parse_journey(changed))
        return LiveFeatures(contract).values(state, NOW)["journey_stage"]

    assert stage(text) == "abandoned"
    assert stage(text.replace("30min: abandoned", "1h: abandoned")) == "cart"
    assert stage(text.replace("category: gift", "category: toy")) == "new"
