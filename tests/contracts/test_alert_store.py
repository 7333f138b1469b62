"""What every store of alerts promises, in Redis or in memory."""

import json
import time

import msgspec
import pytest

from features.redis_client import redis_client
from service.decision.records import AlertRaised
from service.errors import DependencyFailed
from service.stores.alert_stream import STREAM, MemoryAlerts, RedisAlerts
from service.stores.erasures import NEVER, erased_command
from service.stores.links import open_link

WEEK = 7 * 86_400.0


def alert(name: str, customer: str = "c1", /, **changes) -> AlertRaised:
    made = AlertRaised(name, "unhappy", "high", "desk", customer, f"e-{name}", "answered", 1.79e9, {"event.score": 3.0}, WEEK)
    return msgspec.structs.replace(made, **changes)


@pytest.fixture(params=["memory", "redis_url", "cluster_url"])
async def store(request):
    if request.param == "memory":
        yield MemoryAlerts(time.time)
        return
    link = open_link(request.getfixturevalue(request.param), timeout_ms=5000)
    yield RedisAlerts(link)
    await link.close()


async def test_a_customer_is_held_back_by_its_first_and_by_nobody_elses(store):
    """Also within one call; another alert, or another customer, is free."""
    assert await store.first([alert("a"), alert("b"), alert("c", "c2"), alert("d", name="other")]) == [True, False, True, True]
    assert await store.first([alert("b")]) == [False]


async def test_the_same_alert_again_is_still_the_first(store):
    """A retry is not held back by itself."""
    assert await store.first([alert("a")]) == [True]
    assert await store.first([alert("a")]) == [True]


async def test_whoever_is_released_is_held_back_no_more_and_by_nobody_elses_alert(store):
    """What holds is let go by the alert that holds, and by no other."""
    assert await store.first([alert("a")]) == [True]
    await store.release([alert("b")])
    assert await store.first([alert("b")]) == [False]
    await store.release([alert("a"), alert("c", "c2")])
    assert await store.first([alert("b")]) == [True]


async def test_nothing_to_hand_over_is_no_error(store):
    """An empty call asks nothing."""
    assert await store.first([]) == await store.erased_until([]) == []
    await store.release([])
    await store.publish([])


async def test_until_when_an_id_is_erased_is_known(any_redis_url):
    """To the microsecond, by id; the others never were."""
    link = open_link(any_redis_url, timeout_ms=5000)
    await link.ask(erased_command("c1", 1_790_000_000.123457), 1)
    assert await RedisAlerts(link).erased_until(["c2", "c1"]) == [NEVER, 1_790_000_000.123457]
    await link.close()


async def test_an_alert_is_in_the_stream_once_with_what_whoever_acts_needs(any_redis_url):
    """However often it is sent, by whichever process; texts and JSON, so that any client reads it."""
    links = [open_link(any_redis_url, timeout_ms=5000) for _ in range(2)]
    for link in links:
        await RedisAlerts(link).publish([alert("a"), alert("b")])
        await link.close()
    with redis_client(any_redis_url) as client:
        found = [fields for _, fields in client.xrange(STREAM)]
    entries = [{name.decode(): value.decode() for name, value in fields.items()} for fields in found]
    assert [fields["alert_id"] for fields in entries] == ["a", "b"]
    assert json.loads(entries[0].pop("because")) == {"event.score": 3.0}
    assert entries[0] == {
        "alert_id": "a", "name": "unhappy", "severity": "high", "route": "desk", "customer_id": "c1", "event_id": "e-a",
        "event_type": "answered", "at": "1790000000.000",
    }  # fmt: skip


async def test_the_twin_in_memory_has_it_once_as_well():
    """By its id."""
    store = MemoryAlerts(time.time)
    await store.publish([alert("a"), alert("a"), alert("b")])
    assert list(store.stream) == ["a", "b"]


async def test_a_redis_that_does_not_answer_is_told():
    """Nobody listens there."""
    link = open_link("redis://127.0.0.1:1", timeout_ms=50)
    with pytest.raises(DependencyFailed):
        await RedisAlerts(link).publish([alert("a")])
    with pytest.raises(DependencyFailed):
        await RedisAlerts(link).first([alert("a")])
    await link.close()
