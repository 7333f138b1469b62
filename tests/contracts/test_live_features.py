"""What every store of live features promises: any process's events are in the next read of any other, once."""

import asyncio
import secrets

import pytest

from features.contract import parse_contract
from features.layout import CustomerLayout
from features.live import CHANNEL, Event, encode_state
from features.redis_client import redis_client
from service.decision.entities import UNKNOWN_CUSTOMER
from service.errors import DependencyFailed
from service.stores.aliases import alias_key
from service.stores.customer_reader import RedisCustomerReader
from service.stores.links import open_link
from service.stores.live_features import AT_ONCE, RedisLiveFeatures, live_key

LAST = "{aggregate: recent, type: viewed, property: category}"
CONTRACT = parse_contract(f"""
features:
  - {{name: age, type: number, origin: profile, max_age: 1d}}
  - {{name: views_24h, type: number, origin: activity, events: {{aggregate: count, type: viewed, window: 24h}}}}
  - {{name: last_category, type: category, origin: activity, categories: [fashion], events: {LAST}}}
""")
NOW = 1_790_000_000.0


def event(name: str, at: float = NOW, category: str = "fashion") -> Event:
    return Event(name, "viewed", at, {"category": category, CHANNEL: "web"})


@pytest.fixture
async def new_process(any_redis_url):
    """A reader and a store as one process has them."""
    made = []

    def build():
        link = open_link(any_redis_url, timeout_ms=5000)
        made.append(link)
        return RedisCustomerReader(link, CONTRACT, lambda: True), RedisLiveFeatures(link, CONTRACT)

    yield build
    for link in made:
        await link.close()


async def values(reader, customer="c1", now=NOW):
    return (await reader.read([customer], now)).states[0].values


async def test_what_one_process_was_told_the_next_read_of_another_knows(new_process):
    """Beside the features that are copied in batches."""
    (_, here), (reader, _) = new_process(), new_process()
    await here.apply([("c1", event("e1")), ("c2", event("e2")), ("c1", event("e3", category="other"))])
    assert (await values(reader))["views_24h"] == 2.0
    assert (await values(reader, "c2")) == {"views_24h": 1.0, "last_category": "fashion"}
    assert (await values(reader, "c3")) == {"views_24h": 0.0}


async def test_many_processes_at_once_lose_nothing(new_process):
    """Ten of them, twenty events each, one customer; every third event is sent by two of them."""
    stores = [new_process()[1] for _ in range(10)]
    reader, _ = new_process()
    calls = [store.apply([("c1", event(f"e{n}-{i if n % 3 else 0}"))]) for n in range(20) for i, store in enumerate(stores)]
    await asyncio.gather(*calls)
    assert (await values(reader))["views_24h"] == 7 + 13 * 10


async def test_a_count_falls_as_time_passes_without_another_event(new_process):
    """Read a day later it is zero; in Feast's layout it is what it was at the last event."""
    reader, store = new_process()
    await store.apply([("c1", event("e1"))])
    assert (await values(reader, now=NOW + 2 * 86_400))["views_24h"] == 0.0


async def test_a_thousand_customers_at_once_and_closing_while_they_are_written(new_process):
    """What was under way is done before the connection goes."""
    reader, store = new_process()
    under_way = asyncio.create_task(store.apply([(f"many{n}", event(f"m{n}")) for n in range(1000)]))
    await asyncio.sleep(0)
    await store.close()
    await under_way
    states = (await new_process()[0].read([f"many{n}" for n in range(1000)], NOW)).states
    assert all(state.values["views_24h"] == 1.0 for state in states)
    await reader.close()


async def test_what_came_under_another_id_is_not_lost_where_its_customer_is_in_a_later_slice(new_process, any_redis_url):
    """The alias leads to its customer after that one's own events were written: both are counted."""
    reader, store = new_process()
    with redis_client(any_redis_url) as client:
        client.set(alias_key("other"), "c1")
    crowd = [(f"many{n}", event(f"m{n}")) for n in range(AT_ONCE)]
    await store.apply([("other", event("e1")), *crowd, ("c1", event("e2"))])
    assert (await values(reader))["views_24h"] == 2.0
    assert (await values(reader, "many7"))["views_24h"] == 1.0


@pytest.mark.parametrize("what", ["a value", b"\xc1", b"\x05"])
async def test_what_cannot_be_read_of_one_customer_costs_no_other_anything(new_process, any_redis_url, caplog, what):
    """That one is unknown, and the log says so once; whoever wants all or nothing is told whose it is."""
    strict, store = new_process()
    await store.apply([("c1", event("e1")), ("c2", event("e2"))])
    layout, link = CustomerLayout(CONTRACT.batch), open_link(any_redis_url, timeout_ms=5000)
    with redis_client(any_redis_url) as client:
        if what == "a value":
            client.hset(layout.key("c1"), layout.fields[0], b"\xff\xff")
        else:
            client.set(live_key("c1"), secrets.token_bytes(8) + what)
    reader = RedisCustomerReader(link, CONTRACT, lambda: True, in_parts=True)
    for _ in range(2):
        first, second = (await reader.read(["c1", "c2"], NOW)).states
        assert first is UNKNOWN_CUSTOMER
        assert second.values["views_24h"] == 1.0
    assert caplog.text.count("of customer `c1`") == 1
    with pytest.raises(DependencyFailed, match="of customer `c1`"):
        await strict.read(["c1", "c2"], NOW)
    await link.close()


async def test_events_of_a_customer_whose_state_is_malformed_hold_up_nobody_elses(new_process, any_redis_url, caplog):
    """Whose could not be added is told, to those who brought some, by the id that they used; the log says so once."""
    reader, store = new_process()
    with redis_client(any_redis_url) as client:
        client.set(live_key("c1"), secrets.token_bytes(8) + b"\xc1")
        client.set(alias_key("other"), "c1")
    calls = [[("other", event("e1")), ("c2", event("e2"))], [("c3", event("e3"))], [("c1", event("e4"))]]
    told = await asyncio.gather(*(store.apply(events) for events in calls))
    assert told == [{"other"}, frozenset(), {"c1"}]
    assert [(await values(reader, customer))["views_24h"] for customer in ("c2", "c3")] == [1.0, 1.0]
    assert caplog.text.count("`nextbest rebuild`") == 1
    with redis_client(any_redis_url) as client:
        assert client.get(live_key("c1"))[8:] == b"\xc1"


async def test_events_of_ids_that_lead_round_in_a_circle_hold_up_nobody_elses(new_process, any_redis_url, caplog):
    """Theirs are told not to be added, by the id that they came under."""
    reader, store = new_process()
    with redis_client(any_redis_url) as client:
        for alias, owner in (("a", "b"), ("b", "a"), ("x", "a"), ("self", "self")):
            client.set(alias_key(alias), owner)
    calls = [[("x", event("e1")), ("c2", event("e2"))], [("c3", event("e3"))], [("b", event("e4")), ("self", event("e5"))]]
    told = await asyncio.gather(*(store.apply(events) for events in calls))
    assert told == [{"x"}, frozenset(), {"b", "self"}]
    assert [(await values(reader, customer))["views_24h"] for customer in ("c2", "c3")] == [1.0, 1.0]
    assert caplog.text.count("`nextbest rebuild`") >= 1


async def test_feast_finds_the_values_as_of_the_last_event(new_process, any_redis_url):
    """In its own layout, with the moment of the view."""
    _, store = new_process()
    await store.apply([("c1", event("e1", NOW - 10)), ("c1", event("e0", NOW - 20))])
    layout = CustomerLayout(CONTRACT)
    with redis_client(any_redis_url) as client:
        found = layout.decode(client.hmget(layout.key("c1"), layout.fields), NOW)
        assert client.ttl(live_key("c1")) > 0
    assert found.values == {"views_24h": 2.0, "last_category": "fashion"}


async def test_nothing_to_add_asks_nothing(new_process):
    """Also where no feature is fed by events."""
    reader, store = new_process()
    await store.apply([])
    link = open_link("unix:///nowhere", timeout_ms=50)
    await RedisLiveFeatures(link, parse_contract("features: []")).apply([("c1", event("e1"))])
    assert await values(reader) == {"views_24h": 0.0}


async def test_somebody_who_is_faster_every_time_is_told_in_the_end(new_process, any_redis_url):
    """The state is moved between every read and write: after so many attempts the caller knows that nothing was added."""
    link = open_link(any_redis_url, timeout_ms=5000)

    class Meddling:
        has_slots = link.has_slots

        async def ask(self, commands, count):
            if b"EVAL" in commands:
                with redis_client(any_redis_url) as client:
                    client.set(live_key("c1"), secrets.token_bytes(8) + encode_state({}))
            return await link.ask(commands, count)

    with pytest.raises(DependencyFailed, match="found others at every attempt"):
        await RedisLiveFeatures(Meddling(), CONTRACT).apply([("c1", event("e1"))])
    assert (await values(new_process()[0]))["views_24h"] == 0.0
    await link.close()


async def test_an_emptied_redis_is_new_only_while_nothing_was_written(any_redis_url):
    """Else it is not believed, until somebody has set the mark."""
    link = open_link(any_redis_url, timeout_ms=5000)
    doubting = RedisCustomerReader(link, CONTRACT, lambda: False)
    assert await doubting.begin() is False
    [state] = (await doubting.read(["c1"], NOW)).states
    assert (state.values, state.stale, state.contacts) == ({}, ("views_24h", "last_category"), None)
    assert (doubting.status()["answers"], "`nextbest rebuild`" in doubting.status()["problem"]) == (True, True)
    assert await RedisCustomerReader(link, CONTRACT, lambda: True).begin() is True
    assert await doubting.begin() is True
    assert (await doubting.read(["c1"], NOW)).states[0].contacts == b""
    assert doubting.status() == {"answers": True, "problem": None}
    await link.close()


async def test_a_redis_that_does_not_answer_is_told():
    """The caller knows that features have not heard of it."""
    with pytest.raises(DependencyFailed):
        await RedisLiveFeatures(open_link("unix:///nowhere", timeout_ms=50), CONTRACT).apply([("c1", event("e1"))])
