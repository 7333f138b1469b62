"""`GET /decisions/{id}`: a decision explained after the fact."""

from urllib.parse import quote

import pytest

ASK = {"customer_id": "cross", "placements": [{"id": "home_hero", "slots": 1}]}


async def test_a_decision_is_explained_by_its_id(client):
    """Both cards were dropped for an open complaint; the record is part of the answer."""
    decided = (await client.post("/recommend", json=ASK)).json()
    told = (await client.get(f"/decisions/{decided['decision_id']}")).json()
    assert told["decision"]["decision_id"] == decided["decision_id"]
    [placement] = told["placements"]
    assert placement["dropped_by_stage"] == {"eligibility": 2}
    assert placement["actions"][0] == {
        "action_id": "gold_card",
        "stage": "eligibility",
        "reason": "no_open_complaint",
        "details": ["customer.open_complaint <= 0, was 1"],
    }


async def test_the_smallest_change_is_told_for_the_actions_that_are_asked_for(client):
    """One by name, or every one."""
    decided = (await client.post("/recommend", json=ASK)).json()["decision_id"]
    one = (await client.get(f"/decisions/{decided}", params={"changes": "silver_card"})).json()["placements"][0]["actions"]
    assert {a["action_id"]: "changes" in a for a in one} == {"gold_card": False, "silver_card": True}
    unknown = await client.get(f"/decisions/{decided}", params={"changes": "silver_cart"})
    assert (unknown.status_code, "did you mean `silver_card`?" in unknown.json()["detail"]) == (400, True)
    every = (await client.get(f"/decisions/{decided}", params={"changes": "*"})).json()["placements"][0]["actions"]
    assert all(a["changes"][0]["text"] == "customer.open_complaint = 0, was 1" for a in every)


async def test_an_unknown_decision_is_404(client):
    """A dry run, for one, is not kept."""
    looked = (await client.post("/recommend", json={**ASK, "dry_run": True})).json()["decision_id"]
    answer = await client.get(f"/decisions/{looked}")
    assert (answer.status_code, answer.json()["title"]) == (404, "Unknown decision")


async def test_a_decision_is_explained_with_the_catalog_of_its_time(client, publish_catalog):
    """A new revision does not rewrite the past."""
    decided = (await client.post("/recommend", json=ASK)).json()["decision_id"]
    publish_catalog("""
catalog: 1
issues: [{id: sales}]
groups: [{id: cards, issue: sales}]
actions: [{id: bronze_card, group: cards, kind: offer, value: 1, treatments: [{id: b, placements: [home_hero]}]}]
placements: [{id: home_hero, channel: web, fallback: {action: welcome, kind: content}}]
""")
    told = (await client.get(f"/decisions/{decided}")).json()
    assert {a["action_id"] for a in told["placements"][0]["actions"]} == {"gold_card", "silver_card"}


async def test_a_full_explanation_comes_with_the_answer_itself(client):
    """Every action with its stage or its factors, while the customer waits; without looking for changes."""
    answer = (await client.post("/recommend", json={**ASK, "customer_id": "c42", "explain": "full"})).json()
    told = answer["placements"][0]["explanation"]
    assert [a["stage"] for a in told["actions"]] == ["shown", "arbitration"]
    assert told["actions"][0]["factors"]["lever"] == 1.0
    assert told["candidates"] == 2


@pytest.mark.parametrize("name", ["order/1", "/a//b/", "50%2F50", "ä b?c#d", "{x}"])
async def test_a_decision_is_found_by_whatever_id_a_client_chose(client, name):
    """Slashes, percent signs and question marks are parts of an id like any other, where they are sent as such."""
    await client.post("/recommend", json={**ASK, "decision_id": name})
    answer = await client.get(f"/decisions/{quote(name, safe='')}", params={"changes": "*"})
    assert answer.json()["decision"]["decision_id"] == name
