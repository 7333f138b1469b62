"""Contact policy: how often, how long silent, who excludes whom, within one answer and over time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.catalog.hashed import hash32
from service.catalog.policies import Budget, Cap, ContactPolicy, CoolDown, Exclusion, QuietHours, Selector
from service.decision.contact_policy import NO_CONTACT_HISTORY
from service.decision.contacts import CANCELLED, SERVED, SIZE, Contact, decode_contacts, encode_contacts, type_code
from service.decision.decide import decide
from service.decision.entities import CustomerState

NOW = 1_790_000_000.0
HOUR, DAY = 3600.0, 86_400.0
OFFERS = Selector(kinds=("offer",))


def contact(kind: str | int, action: str = "gold", age: float = HOUR, decision: str = "d0", placement: str = "hero") -> Contact:
    return Contact(NOW - age, action, decision, placement, kind if isinstance(kind, int) else type_code(kind))


@pytest.fixture(scope="module")
def policed(tiny):
    """Gold and silver are cards, loan is another offer, story is content; hero is on the web, mail is e-mail."""
    places = ("hero", "side", "mail")
    actions = [
        tiny.action("gold", placements=places, group="cards", priority=4.0),
        tiny.action("silver", placements=places, group="cards", priority=3.0),
        tiny.action("loan", placements=places, group="loans", priority=2.0),
        tiny.action("story", placements=places, group="stories", kind="content", priority=1.0),
    ]

    def build(**policy):
        return tiny.engine(
            actions, tiny.placement(slots=4), tiny.placement("side", slots=4, repeats=True),
            tiny.placement("mail", channel="email"), contact=ContactPolicy(**policy),
        )  # fmt: skip

    return build


def decided(engine, tiny, *history: Contact, placements=(("hero", 1),), **request):
    customer = CustomerState({}, contacts=encode_contacts(history))
    asked = tiny.request(request.pop("decision_id", "d1"), *placements, at=NOW, state=customer, **request)
    return decide(engine, [asked])[0].placements


def shown(placement) -> list[str]:
    return [item.action_id for item in placement.items]


@pytest.mark.parametrize(
    ("per", "blocked"),
    [
        ("action", {"gold"}),
        ("group", {"gold", "silver"}),
        ("issue", {"gold", "silver", "loan", "story"}),
        ("kind", {"gold", "silver", "loan"}),
        ("channel", {"gold", "silver", "loan", "story"}),
        ("placement", {"gold", "silver", "loan", "story"}),
        ("everything", {"gold", "silver", "loan", "story"}),
    ],
)
def test_a_cap_counts_what_shares_the_unit(policed, tiny, per, blocked):
    """One impression of gold fills a cap of one for its action, its group, its kind, its channel, and so on."""
    engine = policed(caps=(Cap("once", 1, per, DAY, "impressions"),))
    [hero] = decided(engine, tiny, contact("impression"))
    assert set(hero.dropped.get("once", ())) == blocked
    [free] = decided(engine, tiny, contact("impression", age=DAY + 2))
    assert free.dropped == {}


def test_a_cap_per_channel_leaves_other_channels_alone(policed, tiny):
    """What was shown on the web does not fill the mailbox."""
    engine = policed(caps=(Cap("once", 1, "channel", DAY, "impressions"),))
    [mail] = decided(engine, tiny, contact("impression"), placements=[("mail", 1)])
    assert mail.dropped == {}
    [mail] = decided(engine, tiny, contact("impression", placement="mail"), placements=[("mail", 1)])
    assert mail.fallback


@pytest.mark.parametrize(
    ("count", "history", "full"),
    [
        ("decisions", [contact(SERVED)], True),
        ("impressions", [contact(SERVED)], False),
        ("impressions", [contact(SERVED, age=60.0)], True),
        ("impressions", [contact("impression")], True),
        ("impressions", [contact(SERVED, age=60.0), contact("impression", age=50.0)], True),
        ("clicks", [contact("impression")], False),
        ("clicks", [contact("click")], True),
        ("outcomes", [contact(SERVED)], False),
        ("outcomes", [contact("dismiss")], True),
        ("unsubscribe", [contact("unsubscribe")], True),
        ("unsubscribe", [contact("subscribe")], False),
        ("decisions", [contact(SERVED), contact(CANCELLED)], False),
        ("impressions", [contact(SERVED, age=60.0), contact(CANCELLED, age=60.0)], False),
        ("decisions", [contact(SERVED, age=60.0), contact(CANCELLED, age=60.0), contact(SERVED, age=59.0)], True),
    ],
)
def test_a_cap_counts_decisions_impressions_clicks_or_any_outcome(policed, tiny, count, history, full):
    """A decision counts as an impression for the time of its reservation; one that was taken back counts as nothing."""
    engine = policed(caps=(Cap("once", 1, "action", DAY, count),), reservation=900.0)
    [hero] = decided(engine, tiny, *history)
    assert ("gold" in hero.dropped.get("once", ())) == full


def test_an_impression_and_its_own_reservation_count_once(policed, tiny):
    """Two of two are not reached by one decision that was seen."""
    engine = policed(caps=(Cap("twice", 2, "action", DAY, "impressions"),))
    [hero] = decided(engine, tiny, contact(SERVED, age=60.0), contact("impression", age=50.0))
    assert hero.dropped == {}


def test_a_cap_limits_what_one_answer_may_add(policed, tiny):
    """Two offers a day and one was seen: an answer of four slots holds one more offer, and content."""
    engine = policed(caps=(Cap("two_offers", 2, "kind", DAY, "impressions", OFFERS),))
    [hero] = decided(engine, tiny, contact("impression"), placements=[("hero", 4)])
    assert shown(hero) == ["gold", "story"]
    assert hero.dropped == {}


def test_a_cap_holds_over_the_placements_of_one_answer(policed, tiny):
    """One gold a day: shown in the hero, it is not shown again where repeats are allowed."""
    engine = policed(caps=(Cap("once", 1, "action", DAY, "decisions"),))
    hero, side = decided(engine, tiny, placements=[("hero", 1), ("side", 2)])
    assert shown(hero) == ["gold"]
    assert shown(side) == ["silver", "loan"]
    assert side.dropped == {"once": ("gold",)}


def test_a_cap_of_zero_forbids(policed, tiny):
    """None at all."""
    engine = policed(caps=(Cap("never", 0, "action", DAY, "impressions", Selector(actions=("gold",))),))
    assert shown(decided(engine, tiny)[0]) == ["silver"]


def test_a_contact_whose_action_is_gone_still_counts_for_channel_and_everything(policed, tiny):
    """A retired action was seen all the same; which group it was in, nobody knows any more."""
    for per, full in (("channel", True), ("everything", True), ("group", False), ("kind", False)):
        engine = policed(caps=(Cap("once", 1, per, DAY, "impressions"),))
        assert decided(engine, tiny, contact("impression", "retired"))[0].fallback == full, per


@pytest.mark.parametrize(
    ("ages", "silent"),
    [
        ([DAY, 2 * DAY], True),
        ([DAY], False),
        ([DAY, 9 * DAY], False),
        ([59 * DAY, 60 * DAY], True),
        ([61 * DAY, 62 * DAY], False),
        ([DAY, 9 * DAY, 3 * DAY], True),
        ([61 * DAY, 62 * DAY, 30 * DAY], False),
    ],
)
def test_dismissed_twice_in_seven_days_is_silent_for_sixty(policed, tiny, ages, silent):
    """Counted from the second of the two, whatever else lies before or after them."""
    engine = policed(cool_downs=(CoolDown("dismissed", "dismiss", 2, 7 * DAY, 60 * DAY, "group"),))
    [hero] = decided(engine, tiny, *(contact("dismiss", age=age) for age in ages))
    assert hero.dropped == ({"dismissed": ("gold", "silver")} if silent else {})


@pytest.mark.parametrize(("after", "kind"), [("clicks", "click"), ("click", "click"), ("impressions", "impression")])
def test_a_cool_down_takes_the_words_of_caps(policed, tiny, after, kind):
    """Who counts `clicks` is silent after one, too."""
    engine = policed(cool_downs=(CoolDown("quiet", after, 1, DAY, 30 * DAY, "action"),))
    [hero] = decided(engine, tiny, contact(kind, age=5 * DAY))
    assert hero.dropped == {"quiet": ("gold",)}


def test_a_cool_down_per_channel_silences_that_channel(policed, tiny):
    """Who unsubscribed from e-mail still gets an answer on the web."""
    engine = policed(cool_downs=(CoolDown("left", "unsubscribe", 1, DAY, 30 * DAY, "channel"),))
    past = contact("unsubscribe", placement="mail", age=5 * DAY)
    assert decided(engine, tiny, past, placements=[("mail", 1)])[0].fallback
    assert not decided(engine, tiny, past)[0].fallback


@pytest.mark.parametrize(("hour", "quiet"), [(21.4, False), (21.5, True), (23.9, True), (0.0, True), (7.99, True), (8.0, False)])
def test_quiet_hours_go_over_midnight_in_the_customers_time(policed, tiny, hour, quiet):
    """From half past nine until eight: e-mail is silent, the web is not."""
    engine = policed(quiet_hours=(QuietHours("night", 21.5, 8.0, Selector(channels=("email",))),))
    mail, hero = decided(engine, tiny, placements=[("mail", 1), ("hero", 1)], context={"local_hour": hour})
    assert (mail.fallback, hero.fallback) == (quiet, False)
    noon = policed(quiet_hours=(QuietHours("lunch", 12.0, 13.0),))
    assert decided(noon, tiny, context={"local_hour": 12.5})[0].fallback
    assert not decided(noon, tiny, context={"local_hour": 13.0})[0].fallback


def test_whoever_took_one_of_a_set_is_not_offered_the_others(policed, tiny):
    """Accepted gold: no silver, and gold itself may go on."""
    engine = policed(exclusions=(Exclusion("one_card", ("gold", "silver"), "accept", 30 * DAY),))
    [hero] = decided(engine, tiny, contact("accept", "gold"))
    assert hero.dropped == {"one_card": ("silver",)}
    [both] = decided(engine, tiny, contact("accept", "gold"), contact("accept", "silver"))
    assert both.dropped == {"one_card": ("gold", "silver")}
    [before] = decided(engine, tiny, contact("accept", "gold", age=31 * DAY))
    assert before.dropped == {}


def test_a_set_of_exclusive_actions_is_not_shown_together_in_one_answer(policed, tiny):
    """Gold in the first slot: no silver in the others."""
    engine = policed(exclusions=(Exclusion("one_card", ("gold", "silver"), "accept", 30 * DAY),))
    assert shown(decided(engine, tiny, placements=[("hero", 4)])[0]) == ["gold", "loan", "story"]


def test_an_exhausted_budget_drops_its_action_and_names_itself(policed, tiny):
    """Nobody gets gold any more; the others stay."""
    engine = policed(budgets=(Budget("gold_budget", "gold", 100, per_day=False, count="impressions"),))
    assert decided(engine, tiny, exhausted=("gold_budget",))[0].dropped == {"gold_budget": ("gold",)}
    assert decided(engine, tiny)[0].dropped == {}


def test_an_unknown_history_counts_as_reached(policed, tiny):
    """Whatever a cap, a cool-down or an exclusion might forbid is forbidden; the rest is not."""
    engine = policed(
        caps=(Cap("offers", 3, "kind", DAY, "impressions", OFFERS),),
        exclusions=(Exclusion("one_card", ("gold", "silver"), "accept", DAY),),
    )
    request = tiny.request("d1", ("hero", 1), at=NOW, state=CustomerState({}, contacts=None))
    [hero] = decide(engine, [request])[0].placements
    assert hero.dropped == {NO_CONTACT_HISTORY: ("gold", "silver", "loan")}
    assert shown(hero) == ["story"]


contacts = st.lists(
    st.builds(
        contact,
        st.sampled_from([SERVED, CANCELLED, "impression", "click", "dismiss", "accept", "other"]),
        st.sampled_from(["gold", "silver", "loan", "story", "retired"]), st.floats(0, 5 * DAY),
        st.sampled_from(["a", "b", "c"]), st.sampled_from(["hero", "side", "mail", "gone"]),
    ), max_size=12,
)  # fmt: skip


@given(st.lists(contacts, min_size=1, max_size=5))
@settings(max_examples=60)
def test_a_history_is_judged_alike_alone_or_beside_others(policed, tiny, histories):
    """Vectorised over a batch or one by one: the same candidates and the same reasons."""
    engine = policed(
        caps=(
            Cap("a", 1, "action", DAY, "impressions"),
            Cap("b", 3, "kind", 2 * DAY, "decisions"),
            Cap("c", 2, "channel", DAY, "click"),
        ),
        cool_downs=(CoolDown("d", "dismiss", 2, DAY, 3 * DAY, "group"), CoolDown("e", "other", 1, DAY, DAY, "placement")),
        exclusions=(Exclusion("f", ("gold", "loan"), "accept", DAY),),
    )
    requests = [
        tiny.request(f"d{i}", ("hero", 2), ("mail", 1), at=NOW, state=CustomerState({}, contacts=encode_contacts(history)))
        for i, history in enumerate(histories)
    ]
    assert decide(engine, requests) == [decide(engine, [request])[0] for request in requests]


@given(contacts)
def test_contacts_read_back_as_they_were_written(history):
    """16 bytes each; a moment is rounded up to a second; a cut-off last entry is left out."""
    data = encode_contacts(history)
    found = decode_contacts([data, None, data[:-1]])
    assert len(data) == SIZE * len(history)
    assert found.row.tolist() == [0] * len(history) + [2] * max(0, len(history) - 1)
    for entry, made in zip(found.entries, history, strict=False):
        assert 0 <= entry["at"] - made.at < 1
        assert (entry["action"], entry["decision"], entry["type"]) == (
            hash32(made.action_id),
            hash32(made.decision_id),
            made.type,
        )


def test_types_of_any_name_have_a_number_of_their_own():
    """Well-known ones are small, others are hashes above them; none is 0."""
    codes = {name: type_code(name) for name in ("impression", "click", "accept", "dismiss", "conversion", "unsubscribe", "share")}
    assert len(set(codes.values())) == len(codes)
    assert max(codes[name] for name in ("impression", "conversion")) < 16 <= min(codes["unsubscribe"], codes["share"])
    assert np.iinfo(np.uint16).max >= max(codes.values())
