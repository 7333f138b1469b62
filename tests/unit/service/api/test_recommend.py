"""`POST /recommend` over the wire."""

import asyncio
import re

import msgspec
import pytest

from features.event_types import LONGEST_TEXT
from service.api.examples import OUTCOMES_ANSWER, OUTCOMES_REQUEST, RECOMMEND_ANSWER, RECOMMEND_REQUEST
from service.api.openapi import REDOC
from service.api.outcomes import judge
from service.api.recommend import answered
from service.api.wire import OutcomesResponse, RecommendRequest, RecommendResponse
from service.decision.engine import build_engine
from service.decision.records import Versions
from service.errors import ModelFailed
from service.metrics import Metrics
from service.pipeline import Parts, Pipeline
from service.stores.contact_history import MemoryContactHistory
from service.stores.customer_reader import MemoryCustomerReader
from service.stores.memory_log import MemoryDecisionLog
from tests.unit.service.api.conftest import CATALOG, until

SHORT = {"customer_id": "c42", "placement": "home_hero"}


async def test_the_answer_names_what_to_show_and_how_likely_that_was(client):
    """The wire format of the architecture page, field by field."""
    response = await client.post(
        "/recommend",
        json={"customer_id": "c42", "placements": [{"id": "home_hero", "slots": 1}], "context": {"device": "mobile"}},
    )
    body = response.json()
    assert response.status_code == 200
    assert body.pop("took_ms") >= 0
    assert len(body.pop("decision_id")) == 36
    assert body == {
        "customer_id": "c42",
        "placements": [
            {
                "id": "home_hero",
                "items": [
                    {
                        "rank": 1, "action_id": "gold_card", "treatment_id": "gold_hero", "kind": "offer",
                        "content": {"title": "Gold"},
                        "predicted_rate": 0.0, "utility": 0.0, "choice_probability": 1.0, "explored": False,
                        "reasons": ["highest_utility"],
                    }
                ],
                "fallback": False,
            }
        ],
        "experiment": None,
        "versions": {"catalog": 1, "bundle": None},
        "degraded": ["no_model"], "logged": True,
    }  # fmt: skip


async def test_the_short_form_fills_every_slot_of_the_placement(client):
    """`placement` alone means as many slots as the catalog gives it."""
    body = (await client.post("/recommend", json=SHORT)).json()
    assert [i["action_id"] for i in body["placements"][0]["items"]] == ["gold_card", "silver_card"]


async def test_an_anonymous_visitor_gets_an_answer(client):
    """No customer id: the anonymous one stands in."""
    response = await client.post("/recommend", json={"anonymous_id": "a1", "placement": "sidebar"})
    assert (response.status_code, response.json()["customer_id"]) == (200, "a1")


async def test_a_customer_with_an_open_complaint_is_not_sold_to(client):
    """The rule removes every offer; the fallback has no rules, and the explanation names the reason."""
    body = (await client.post("/recommend", json={"customer_id": "cross", "placement": "home_hero", "explain": "full"})).json()
    [placement] = body["placements"]
    assert placement["fallback"] is True
    assert placement["items"][0]["content"] == {"title": "Welcome"}
    assert placement["explanation"]["dropped"] == {"no_open_complaint": ["gold_card", "silver_card"]}


async def test_a_summary_counts_what_a_full_explanation_names(client):
    """Two levels of why."""
    request = SHORT | {"exclude_actions": ["gold_card"]}
    summary, full = [
        (await client.post("/recommend", json=request | {"explain": level})).json()["placements"][0]["explanation"]
        for level in ("summary", "full")
    ]
    assert summary == {"candidates": 1, "dropped": {"excluded_by_request": 1}}
    assert full["dropped"] == {"excluded_by_request": ["gold_card"]}
    assert [c["action_id"] for c in full["ranking"]] == ["silver_card"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "Input data was truncated"),
        (b'{"customer_id": 3}', "Expected `str | null`, got `int` - at `$.customer_id`"),
        (b'{"customer_id": "c", "placements": [{"id": "home_hero", "slots": "two"}]}', "got `str` - at `$.placements[0].slots`"),
        (b'{"customer_id": "c", "placements": [{"id": "home_hero", "slots": 0}]}', "$.placements[0].slots"),
        (b'{"customer_id": "c", "placement": "home_hero", "colour": 1}', "unknown field `colour`"),
        (b'{"placement": "home_hero"}', "Expected `customer_id` or `anonymous_id`, got neither - at `$`"),
        (b'{"customer_id": "c"}', "Expected either `placement` or `placements`, got both or neither - at `$`"),
        (b'{"customer_id": "c", "placements": []}', "$.placements"),
        (
            b'{"customer_id": "c", "placements": [{"id": "home_hero", "slots": 3}]}',
            "Expected at most 2 slots for `home_hero`, got 3",
        ),
        (b'{"customer_id": "c", "placements": [{"id": "sidebar"}, {"id": "sidebar"}]}', "twice - at `$.placements[1].id`"),
        (b'{"customer_id": "c", "placement": "home_hero", "context": {"device": {"a": 1}}}', "$.context"),
        (
            b'{"customer_id": "c", "placement": "home_hero", "context": {"time_zone": "%b"}}' % (b"x" * 4097),
            "Expected `str` of length <= 4096 - at `$.context[...]`",
        ),
        (b'{"customer_id": "c", "placement": "home_hero", "deadline_ms": 0}', "$.deadline_ms"),
        (b'{"customer_id": "c\xff"}', ""),
        (b"", ""),
    ],
)
async def test_a_malformed_request_is_told_what_where(client, body, detail):
    """400, problem+json: expected, found, where."""
    response = await client.post("/recommend", content=body)
    assert response.status_code == 400, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    assert detail in response.json()["detail"]


async def test_a_text_of_the_context_may_be_as_long_as_one_of_an_event(client):
    """So long and no longer; beside it numbers, truths and nothing at all."""
    context = {"device": "x" * LONGEST_TEXT, "basket": 3, "is_new": True, "campaign": None}
    answer = await client.post("/recommend", json=SHORT | {"context": context})
    assert (answer.status_code, answer.json()["customer_id"]) == (200, "c42")


async def test_an_unknown_placement_is_404_naming_the_known_ones(client):
    """A typing error is mended in one look."""
    response = await client.post("/recommend", json=SHORT | {"placement": "home_herp"})
    assert response.status_code == 404
    assert response.json()["detail"] == "Expected a known placement (`home_hero`, `sidebar`), got `home_herp` - at `$.placement`"


async def test_a_client_chosen_id_decides_once(client, service):
    """The same id, the same answer, one record; with another request it is refused."""
    first, again = [(await client.post("/recommend", json=SHORT | {"decision_id": "d1"})).json() for _ in range(2)]
    assert first["placements"] == again["placements"]
    assert [d.decision_id for d in service.log.decisions] == ["d1"]
    assert (await client.post("/recommend", json=SHORT | {"decision_id": "d1", "customer_id": "c43"})).status_code == 422


@pytest.mark.parametrize("then", [CATALOG.replace("slots: 2", "slots: 1"), CATALOG.replace("home_hero", "home_banner")])
async def test_a_retry_gets_its_answer_whatever_became_of_the_catalog(client, service, publish_catalog, then):
    """Of the slots that were left out the catalog may give another number now, and the placement may be gone."""
    first = (await client.post("/recommend", json=SHORT | {"decision_id": "d1"})).json()
    publish_catalog(then)
    await until(lambda: client.app.state.parts.engine().versions.catalog == 2)
    again = (await client.post("/recommend", json=SHORT | {"decision_id": "d1"})).json()
    assert (again["placements"], again["versions"]) == (first["placements"], {"catalog": 1, "bundle": None})
    assert len(service.log.decisions) == 1


async def test_a_body_beyond_the_limit_is_413(client):
    """Refused before it is read."""
    assert (await client.post("/recommend", content=b" " * 20_000)).status_code == 413


async def test_before_the_first_catalog_the_service_asks_to_come_back(service, publish_catalog):
    """503 with Retry-After, alive but not ready; the first publication changes that without a restart."""
    async with service.client() as client:
        response = await client.post("/recommend", json=SHORT)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/live")).json() == {"status": "live"}
        publish_catalog()
        for _ in range(200):
            if (await client.get("/ready")).status_code == 200:
                break
            await asyncio.sleep(0.01)
        assert (await client.post("/recommend", json=SHORT)).status_code == 200


async def test_a_new_catalog_serves_within_the_interval_of_the_watch(client, publish_catalog):
    """Published beside the running service; no request fails meanwhile."""
    publish_catalog(CATALOG_WITHOUT_GOLD)
    for _ in range(200):
        response = await client.post("/recommend", json={"customer_id": "c42", "placement": "sidebar"})
        assert response.status_code == 200
        if response.json()["versions"]["catalog"] == 2:
            break
        await asyncio.sleep(0.01)
    assert response.json()["placements"][0]["items"][0]["action_id"] == "silver_card"


CATALOG_WITHOUT_GOLD = """
catalog: 1
issues: [{id: sales}]
groups: [{id: cards, issue: sales}]
actions:
  - {id: silver_card, group: cards, kind: offer, value: 60, treatments: [{id: s, placements: [home_hero, sidebar], content: {}}]}
placements:
  - {id: home_hero, channel: web, slots: 2, accepts: [offer], fallback: {action: welcome, kind: content, content: {}}}
  - {id: sidebar, channel: web, slots: 1, accepts: [offer], fallback: {action: welcome, kind: content, content: {}}}
"""


async def test_a_catalog_that_cannot_be_used_leaves_the_old_one_serving(client, service):
    """A revision that somebody broke on disk: `/ready` stays 200 and says why the newer one does not serve."""
    service.registry.publish_catalog({"catalog": 1}, fingerprint="x", author="me", note="", at="2026-01-01T00:00:00Z")
    for _ in range(200):
        health = (await client.get("/ready")).json()
        if "problem" in health:
            break
        await asyncio.sleep(0.01)
    assert health["catalog"] == 1
    assert "Expected" in health["problem"]
    assert (await client.post("/recommend", json=SHORT)).json()["versions"]["catalog"] == 1


async def test_an_id_that_is_personal_data_is_refused_with_advice(client):
    """Neither answered nor written down."""
    answer = await client.post("/recommend", json={"customer_id": "ann@shop.example", "placement": "home_hero"})
    assert answer.status_code == 400
    assert "send its SHA-256 instead" in answer.json()["detail"]


async def test_the_page_at_schema_needs_one_script_and_is_a_link_without_it(client):
    """Of one version, and no fonts or pictures of others."""
    page = (await client.get("/schema")).text
    assert re.findall(r"(?:src|href)=[\"']([^\"']*)", page) == ["data:,", REDOC, "/schema/openapi.json"]
    assert re.search(r"@\d+\.\d+\.\d+/", REDOC)
    assert (await client.get("/schema/openapi.yaml")).status_code == 200


async def test_the_document_at_schema_describes_what_the_service_takes(client):
    """OpenAPI with request bodies, answers and examples."""
    document = (await client.get("/schema/openapi.json")).json()
    assert set(document["paths"]) == {
        "/recommend",
        "/outcomes",
        "/events",
        "/nextbest.js",
        "/identities",
        "/consents",
        "/consents/{customer_id}",
        "/decisions/{decision_id}",
        "/live",
        "/ready",
        "/status",
        "/metrics",
    }
    body = document["paths"]["/recommend"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"] == RECOMMEND_REQUEST
    assert body["schema"]["properties"]["placements"]["anyOf"][0]["items"]["properties"]["slots"]
    outcomes = document["paths"]["/outcomes"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "decision_id" in outcomes["properties"]["outcomes"]["items"]["properties"]
    assert document["paths"]["/recommend"]["post"]["responses"]["200"]["content"]["application/json"]["examples"]
    record = document["components"]["schemas"]["PlacementRecord"]["properties"]
    assert record["predicted_rates"] == record["utilities"] == {"oneOf": [{"type": "array", "items": {"type": "number"}}]}


def test_the_documented_examples_are_what_the_service_takes_and_gives():
    """An example that does not decode would be a lie."""
    msgspec.convert(RECOMMEND_REQUEST, RecommendRequest)
    msgspec.convert(RECOMMEND_ANSWER[0].value, RecommendResponse)
    msgspec.convert(OUTCOMES_ANSWER[0].value, OutcomesResponse)
    accepted, rejected = judge(msgspec.json.encode(OUTCOMES_REQUEST), now=2e9, kept_s=1e9)
    assert (len(accepted), rejected) == (1, [])


async def test_metrics_are_in_the_exposition_format(client):
    """What was answered is counted."""
    await client.post("/recommend", json=SHORT)
    await client.post("/recommend", content=b"{")
    text = (await client.get("/metrics")).text
    assert "nextbest_decisions_total 1.0" in text
    assert 'nextbest_errors_total{status="400"} 1.0' in text


async def test_a_wrong_path_is_a_problem_too(client):
    """Every error has one form."""
    response = await client.get("/nowhere")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert (response.json()["title"], "got `/nowhere`" in response.json()["detail"]) == ("Not found", True)


async def test_a_wrong_method_says_which_and_where(client):
    """Who opens the address of a POST in a browser reads what to do."""
    problem = (await client.get("/recommend")).json()
    assert (problem["status"], problem["title"]) == (405, "Method not allowed")
    assert problem["detail"].endswith("got `GET` - at `/recommend`")


class FailingModel:
    """Gives no rates, as long as it is asked."""

    inputs = ()

    def score(self, requests):
        raise ModelFailed(f"Expected rates for {len(requests)} requests, got none")


async def test_what_was_decided_without_a_model_that_failed_is_explained_without_it(tiny):
    """Answered by the last known rates, and by those it is explained: the model is not asked for what it cannot give."""
    catalog = tiny.catalog([tiny.action("gold"), tiny.action("news")], [tiny.placement()])
    versions = Versions(1, "failing", tiny.contract.fingerprint)
    engine = build_engine(catalog, tiny.contract, FailingModel(), versions, last_rates={"gold": 0.1, "news": 0.3})
    parts = Parts(MemoryCustomerReader({}), MemoryContactHistory(), MemoryDecisionLog(), lambda: engine, Metrics())
    asked = {"customer_id": "c1", "placement": "hero", "explain": "full"}
    body = await answered(Pipeline(parts), msgspec.json.encode(asked), lambda _seconds: None)
    told = msgspec.json.decode(body)
    assert told["degraded"] == ["no_model"]
    rates = {a["action_id"]: a["factors"]["rate"] for a in told["placements"][0]["explanation"]["actions"]}
    assert rates == {"news": 0.3, "gold": 0.1}
