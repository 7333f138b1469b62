"""`POST /consents` and `GET /consents/{customer_id}`: said, obeyed by the next answer, and there to be looked up."""

import pytest

from service.asks import NO_PROFILE_CONSENT
from tests.unit.service.api.conftest import CATALOG

CONSENT = """
consent:
  marketing: {needed_for: {kinds: [offer]}}
  profiling: {unless_said: given, needed_for: profile}
"""


@pytest.fixture
async def web(client, publish_catalog):
    """A client of a service whose catalog asks for consent."""
    publish_catalog(CATALOG + CONSENT)
    for _ in range(100):
        answer = (await client.post("/recommend", json={"customer_id": "nobody", "placement": "home_hero"})).json()
        if answer["versions"]["catalog"] == 2:
            return client
    raise AssertionError(answer)


async def say(web, **consent):
    return await web.post(
        "/consents", json={"consents": [{"customer_id": "c42", "purpose": "marketing", "given": True} | consent]}
    )


async def shown(web, customer="c42"):
    answer = (await web.post("/recommend", json={"customer_id": customer, "placement": "home_hero", "explain": "full"})).json()
    return answer, [item["action_id"] for item in answer["placements"][0]["items"]]


async def test_no_offer_before_consent_and_none_after_it_is_withdrawn(web, service):
    """The reason is the purpose's name; each is on disk before it is acknowledged."""
    answer, before = await shown(web)
    assert before == ["welcome"]
    assert answer["placements"][0]["explanation"]["dropped"] == {"marketing_consent": ["gold_card", "silver_card"]}
    assert (await say(web)).json() == {"accepted": 1, "rejected": []}
    assert (await shown(web))[1] == ["gold_card", "silver_card"]
    await say(web, given=False)  # at the same moment: the denial is stronger
    assert (await shown(web))[1] == ["welcome"]
    assert [(r.customer_id, r.purpose, r.given) for r in service.log.consents] == [
        ("c42", "marketing", True),
        ("c42", "marketing", False),
    ]


async def test_whoever_does_not_want_to_be_known_is_answered_from_the_context_alone(web, service):
    """No feature reaches the rules, the model or the record; what they were shown still counts."""
    await say(web)
    assert service.log.decisions[-1].customer == {"consent_marketing": 0.0, "consent_profiling": 1.0}
    await say(web, purpose="profiling", given=False, at="2026-01-01T11:00:00Z")
    answer, _ = await shown(web)
    assert NO_PROFILE_CONSENT in answer["degraded"]
    assert service.log.decisions[-1].customer == {"consent_marketing": 1.0, "consent_profiling": 0.0}
    await say(web, purpose="profiling", given=True)
    answer, _ = await shown(web)
    assert NO_PROFILE_CONSENT not in answer["degraded"]
    assert service.log.decisions[-1].customer["age"] == 40.0


async def test_what_a_customer_said_can_be_looked_up(web):
    """By purpose, with the moment; somebody who said nothing said nothing."""
    await say(web, at="2026-01-01T11:00:00Z")
    answer = await web.get("/consents/c42")
    assert answer.json() == {"customer_id": "c42", "consents": {"marketing": {"given": True, "at": "2026-01-01T11:00:00Z"}}}
    await say(web, customer_id="c44", at="0001-01-02T00:00:00Z")
    assert (await web.get("/consents/c44")).json()["consents"]["marketing"]["at"] == "0001-01-02T00:00:00Z"
    assert (await web.get("/consents/c43")).json() == {"customer_id": "c43", "consents": {}}
    assert (await web.get("/consents/ann@shop.example")).status_code == 400


@pytest.mark.parametrize(
    ("spoiled", "expected"),
    [
        ({"purpose": "marketting"}, "Expected a purpose of the catalog (`marketing`, `profiling`), got `marketting`"),
        ({"at": "2030-01-01T00:00:00Z"}, "Expected a time at most 300 s ahead"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "Expected a time from the year 1 on, got -62135647200 s since 1970 - at `$.at`"),
        ({"given": "yes"}, "Expected `bool`, got `str` - at `$.given`"),
        ({"customer_id": None}, "Expected `customer_id` or `anonymous_id`, got neither"),
        ({"customer_id": "ann@shop.example"}, "got an e-mail address"),
        ({"colour": "red"}, "unknown field `colour`"),
    ],
)
async def test_one_that_cannot_be_taken_is_refused_and_the_others_are_taken(web, service, spoiled, expected):
    """Its place in the call and the reason; nothing of it is written down."""
    good = {"customer_id": "c42", "purpose": "marketing", "given": True}
    body = (await web.post("/consents", json={"consents": [good | spoiled, good]})).json()
    assert (body["accepted"], [r["index"] for r in body["rejected"]]) == (1, [0])
    assert expected in body["rejected"][0]["error"]
    assert len(service.log.consents) == 1


@pytest.mark.parametrize("body", ["", "{}", '{"consents": []}', '{"consents": 1}'])
async def test_a_call_that_is_none_is_refused(client, body):
    """400."""
    assert (await client.post("/consents", content=body)).status_code == 400


async def test_what_somebody_said_is_found_by_an_id_with_slashes(web):
    """As they are, or written as `%2F`; the answer names the id as it was sent."""
    assert (await say(web, customer_id="org/a-1")).status_code == 202
    for path in ("/consents/org%2Fa-1", "/consents/org/a-1"):
        answer = (await web.get(path)).json()
        assert (answer["customer_id"], answer["consents"]["marketing"]["given"]) == ("org/a-1", True)
