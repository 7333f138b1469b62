"""`POST /events`: what is taken, what is set aside, and a decision in the same round trip."""

import asyncio
import time

import msgspec
import pytest

from service.api.events import EVENT_DECODER
from service.errors import LogUnavailable
from service.stores.live_features import MemoryLiveFeatures
from service.stores.memory_log import MemoryDecisionLog
from tests.unit.service.api.conftest import CONTRACT

VIEWED = {"event_id": "e-1", "customer_id": "c42", "type": "product_viewed", "channel": "web", "at": "2026-01-01T11:59:00Z"}


async def send(client, *events, **more):
    answer = await client.post("/events", json={"events": list(events), **more})
    return answer.status_code, answer.json()


async def test_an_event_is_on_disk_and_in_the_features_when_the_call_returns(client, service):
    """With its properties, its channel and both moments."""
    code, body = await send(client, {**VIEWED, "properties": {"category": "fashion", "price": 59}})
    assert (code, body["accepted"], body["rejected"]) == (202, 1, [])
    [record] = service.log.events
    assert (record.customer_id, record.properties) == ("c42", {"category": "fashion", "price": 59})
    assert record.received_at - record.at == 60.0
    assert "c42" in service.live.states


async def test_the_same_id_counts_once_in_a_call_and_across_calls(client, service):
    """Retries change nothing."""
    _, first = await send(client, VIEWED, VIEWED, {**VIEWED, "event_id": "e-2"})
    _, second = await send(client, VIEWED)
    assert (first["accepted"], first["duplicates"]) == (2, 1)
    assert (second["accepted"], second["duplicates"]) == (0, 1)
    assert len(service.log.events) == 2


async def test_an_event_id_with_other_content_is_refused_and_the_first_stands(client, service):
    """422 where the call holds nothing else and asks for nothing; the order of properties is no content."""
    priced = {**VIEWED, "properties": {"category": "fashion", "price": 59}}
    await send(client, priced)
    code, body = await send(client, {**priced, "channel": "app"})
    assert (code, body["title"]) == (422, "Id reused")
    code, body = await send(client, {**priced, "properties": {"price": 59, "category": "fashion"}})
    assert (code, body["duplicates"]) == (202, 1)
    code, body = await send(client, {**priced, "channel": "app"}, decide={"customer_id": "c42", "placement": "sidebar"})
    assert (code, [r["index"] for r in body["rejected"]], body["decision"]["customer_id"]) == (202, [0], "c42")
    assert len(service.log.events) == 1


async def test_a_type_that_nobody_declared_is_kept_and_counted_and_feeds_nothing(client, service):
    """Never guessed at."""
    _, body = await send(client, {**VIEWED, "type": "unheard_of", "properties": {"anything": True}})
    assert (body["accepted"], body["undeclared"]) == (1, 1)
    assert service.log.events[0].declared is False
    assert not service.live.states


async def test_without_a_moment_it_happened_now_and_anonymous_customers_are_customers(client, service):
    """The service's clock."""
    event = {key: value for key, value in VIEWED.items() if key not in ("at", "customer_id")}
    await send(client, {**event, "anonymous_id": "a-1"})
    [record] = service.log.events
    assert (record.customer_id, record.at) == ("a-1", service.clock())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"at": "2026-01-01T12:06:00Z"}, "at most 300 s ahead"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "Expected a time from the year 1 on, got -62135647200 s since 1970 - at `$.at`"),
        ({"at": "noon"}, "Invalid RFC3339"),
        ({"properties": {"price": "cheap"}}, "Expected a number, got `cheap` - at `$.properties.price`"),
        ({"properties": {"colour": "red"}}, "Expected a declared property"),
        ({"properties": {"category": "x" * 5000}}, "at most 4096 characters"),
        ({"properties": {f"p{n}": 1 for n in range(65)}}, "at most 64 properties"),
        ({"properties": {"category": ["a"]}}, "Expected `bool | float | str`"),
        ({"type": "email_opened"}, "Expected a channel among email"),
        ({"customer_id": None}, "Expected `customer_id` or `anonymous_id`"),
        ({"customer_id": "ann@shop.example"}, "got an e-mail address: send its SHA-256 instead - at `$.customer_id`"),
        ({"customer_id": None, "anonymous_id": "+49 170 1234567"}, "got a phone number"),
        ({"type": ""}, "length >= 1"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"event_id": "x" * 300}, "length <= 256"),
    ],
)
async def test_what_cannot_be_taken_is_set_aside_with_its_reason_and_the_rest_is_taken(client, service, change, reason):
    """As it came, so that it can be sent again once the reason is gone."""
    bad = {key: value for key, value in {**VIEWED, "event_id": "bad", **change}.items() if value is not None}
    code, body = await send(client, VIEWED, bad, {**VIEWED, "event_id": "e-3"})
    assert (code, body["accepted"]) == (202, 2)
    [rejection] = body["rejected"]
    assert rejection["index"] == 1
    assert reason in rejection["error"]
    [record] = service.log.quarantined
    assert record.reason == rejection["error"]
    assert msgspec.json.decode(record.event) == bad


async def test_a_decision_can_be_asked_for_in_the_same_call(client, service):
    """It is made after the event; a placement nobody knows stops the call before anything is written."""
    _, body = await send(client, VIEWED, decide={"customer_id": "c42", "placement": "home_hero", "explain": "summary"})
    assert body["decision"]["placements"][0]["items"][0]["action_id"] == "gold_card"
    answer = await client.post("/events", json={"events": [VIEWED], "decide": {"customer_id": "c42", "placement": "nowhere"}})
    assert answer.status_code == 404
    assert len(service.log.events) == 1


class HangingFeatures(MemoryLiveFeatures):
    """A store that takes a second for everything."""

    async def apply(self, events) -> frozenset[str]:
        await asyncio.sleep(1.0)
        return await super().apply(events)


async def test_a_decision_does_not_wait_for_features_beyond_its_deadline(service, publish_catalog):
    """Where Redis hangs, it is made without what its events feed, which they do all the same."""
    publish_catalog()
    service.live = HangingFeatures(CONTRACT)
    async with service.client() as client:
        begun = time.perf_counter()
        code, body = await send(client, VIEWED, decide={"customer_id": "c42", "placement": "sidebar", "deadline_ms": 200})
        assert time.perf_counter() - begun < 0.9
        assert (code, body["accepted"], body["decision"]["logged"]) == (202, 1, True)
        assert not service.live.states
    assert "c42" in service.live.states


async def test_an_event_stays_where_the_decision_that_came_with_it_is_refused(client, service):
    """422 for a `decision_id` of before: the event is on disk, and a duplicate when it is sent again."""
    asked = {"customer_id": "c42", "placement": "sidebar", "decision_id": "d1"}
    await client.post("/recommend", json=asked)
    code, body = await send(client, VIEWED, decide=asked | {"customer_id": "c43"})
    assert (code, body["title"], len(service.log.events)) == (422, "Id reused", 1)
    assert (await send(client, VIEWED))[1]["duplicates"] == 1


@pytest.mark.parametrize("body", ["", "[]", '{"events": []}', '{"events": 1}', '{"event": []}'])
async def test_a_call_that_is_none_is_refused_as_a_whole(client, body):
    """400, and what was expected."""
    answer = await client.post("/events", content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"]


async def test_a_thousand_events_are_one_call_and_one_more_is_too_many(client):
    """The bound is told."""
    many = [{**VIEWED, "event_id": f"e-{n}"} for n in range(40)]
    assert (await send(client, *many))[1]["accepted"] == 40
    answer = await client.post("/events", content=b'{"events": [' + b",".join([b"{}"] * 1001) + b"]}")
    assert answer.status_code == 400
    assert "1000" in answer.json()["detail"]


async def test_an_event_that_is_not_on_disk_is_not_acknowledged(service, publish_catalog):
    """503 with Retry-After: nothing was kept, and features know nothing of it."""

    class Full(MemoryDecisionLog):
        async def append_events(self, _records):
            raise LogUnavailable("Expected the disk to take a record")

    publish_catalog()
    service.log = Full()
    async with service.client() as client:
        code, _ = await send(client, VIEWED)
    assert code == 503
    assert not service.live.states


def test_a_truth_is_no_number():
    """`true` stays what it is."""
    event = EVENT_DECODER.decode(msgspec.json.encode({**VIEWED, "properties": {"a": True, "b": 1, "c": "1"}}))
    assert [type(value) for value in event.properties.values()] == [bool, float, str]


async def test_what_a_text_sounds_like_is_written_down_with_the_event(client, service):
    """Once, here; beside it, events without text are as they were sent, and a sender's own number is refused."""
    answered = {**VIEWED, "type": "survey_answered", "properties": {"score": 2, "text": "Terrible, I am very disappointed."}}
    own = {**answered, "event_id": "e-3", "properties": {"sentiment": 1}}
    _, body = await send(client, answered, {**VIEWED, "event_id": "e-2"}, own)
    assert (body["accepted"], [one["index"] for one in body["rejected"]]) == (2, [2])
    assert "Expected `sentiment` to be left out of `survey_answered`" in body["rejected"][0]["error"]
    scored, plain = service.log.events
    assert scored.properties.keys() == {"score", "text", "sentiment"}
    assert scored.properties["sentiment"] < -0.5
    assert plain.properties == {}


async def test_an_unhappy_customer_with_an_open_complaint_raises_an_alert(client, service):
    """Whoever sends the event waits for it to be in the log, and hears nothing of it; a retry raises nothing."""
    answered = {**VIEWED, "type": "survey_answered", "properties": {"survey": "nps", "score": 3}}
    for customer in ("cross", "c42"):
        await send(client, {**answered, "event_id": f"e-{customer}", "customer_id": customer})
    await send(client, {**answered, "event_id": "e-cross", "customer_id": "cross"})
    [alert] = service.log.alerts
    assert (alert.name, alert.customer_id, alert.event_id, alert.route) == (
        "unhappy_detractor",
        "cross",
        "e-cross",
        "service_desk",
    )
    assert list(service.alerts.stream) == [alert.alert_id]
    metrics = (await client.get("/metrics")).text
    assert 'nextbest_alerts_total{result="raised"} 1.0' in metrics
