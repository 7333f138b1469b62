"""What a customer consents to: the latest holds, under whichever id, and nothing is believed that was not said."""

import asyncio
from itertools import permutations

import pytest

from features.contract import parse_contract
from service.catalog.policies import Purpose
from service.decision.records import ConsentRecord
from service.errors import DependencyFailed
from service.ports import Terms
from service.stores.aliases import alias_key
from service.stores.completeness import mark_of
from service.stores.consents import MemoryConsents, RedisConsents, consents_key
from service.stores.customer_reader import MemoryCustomerReader, RedisCustomerReader
from service.stores.identities import RedisIdentities
from service.stores.links import open_link
from service.stores.resp import encode

CONTRACT = parse_contract("features: [{name: views, type: number, origin: activity, events: {aggregate: count, window: 24h}}]")
NOW = 1_790_000_000.0
TERMS = Terms(purposes=(Purpose("marketing"), Purpose("profiling", given=True, profile=True)))


def said(customer: str, given: bool, at: float = NOW, purpose: str = "marketing") -> ConsentRecord:  # reads as a sentence
    return ConsentRecord(customer, purpose, given, at, at)


@pytest.fixture(params=["memory", "redis_url", "cluster_url"])
async def stores(request):
    """(consents, reader) of either kind."""
    if request.param == "memory":
        consents = MemoryConsents()
        yield consents, MemoryCustomerReader({}, consents=consents)
        return
    link = open_link(request.getfixturevalue(request.param), timeout_ms=5000)
    yield RedisConsents(link), RedisCustomerReader(link, CONTRACT, lambda: True)
    await link.close()


async def values(reader, customer: str) -> dict[str, object]:
    return {k: v for k, v in (await reader.read([customer], NOW, TERMS)).states[0].values.items() if k.startswith("consent_")}


async def test_whoever_said_nothing_is_taken_as_the_catalog_says(stores):
    """Marketing is denied, profiling given; and `known` knows nothing."""
    consents, reader = stores
    assert await values(reader, "c1") == {"consent_marketing": 0.0, "consent_profiling": 1.0}
    assert await consents.known("c1") == {}


async def test_the_latest_holds_in_whatever_order_they_come(stores):
    """Given, withdrawn, given again; at one moment a denial is stronger."""
    consents, reader = stores
    for n, order in enumerate(permutations([(True, NOW), (False, NOW + 1), (True, NOW + 2)])):
        for given, at in order:
            await consents.record([said(f"c{n}", given, at)])
        assert (await values(reader, f"c{n}"))["consent_marketing"] == 1.0
        await consents.record([said(f"c{n}", given=False, at=NOW + 2), said(f"c{n}", given=True, at=NOW + 2)])
        assert (await values(reader, f"c{n}"))["consent_marketing"] == 0.0
        assert await consents.known(f"c{n}") == {"marketing": (False, NOW + 2)}


async def test_a_denial_stands_against_what_holds_unless_said(stores):
    """One purpose does not speak for another."""
    consents, reader = stores
    await consents.record([said("c1", given=False, purpose="profiling")])
    assert await values(reader, "c1") == {"consent_marketing": 0.0, "consent_profiling": 0.0}


@pytest.fixture
async def link(any_redis_url):
    made = open_link(any_redis_url, timeout_ms=5000)
    yield made
    await made.close()


async def test_consents_of_an_alias_become_the_customers(link):
    """For each purpose the later of the two; afterwards either id gives and withdraws, and reads the same."""
    consents, reader = RedisConsents(link), RedisCustomerReader(link, CONTRACT, lambda: True)
    await consents.record([said("anon", given=True, at=NOW + 1), said("anon", given=True, purpose="profiling")])
    await consents.record([said("c42", given=False), said("c42", given=False, at=NOW + 1, purpose="profiling")])
    await RedisIdentities(link, CONTRACT, lambda: True).link("anon", "c42")
    assert await values(reader, "anon") == await values(reader, "c42") == {"consent_marketing": 1.0, "consent_profiling": 0.0}
    await consents.record([said("anon", given=False, at=NOW + 2)])
    assert (await values(reader, "c42"))["consent_marketing"] == 0.0
    assert await consents.known("anon") == await consents.known("c42")
    assert (await consents.known("c42"))["marketing"] == (False, NOW + 2)


async def test_a_withdrawal_is_obeyed_however_often_the_customer_became_an_alias(link):
    """Under the first of many ids; where ids lead round in a circle nobody says that it was taken, or that nothing was said."""
    consents, reader = RedisConsents(link), RedisCustomerReader(link, CONTRACT, lambda: True)
    identities = RedisIdentities(link, CONTRACT, lambda: True)
    for n in range(20):
        await identities.link(f"h{n}", f"h{n + 1}")
    await consents.record([said("h0", given=False, purpose="profiling")])
    assert {(await values(reader, f"h{n}"))["consent_profiling"] for n in range(21)} == {0.0}
    assert await consents.known("h3") == {"profiling": (False, NOW)}
    await link.ask(encode("SET", alias_key("x"), "y") + encode("SET", alias_key("y"), "x"), 2)
    with pytest.raises(DependencyFailed, match="found no end: `nextbest rebuild` - of `x`"):
        await consents.record([said("x", given=False)])
    with pytest.raises(DependencyFailed, match="found no end"):
        await consents.known("x")


async def test_a_withdrawal_while_ids_are_linked_is_never_lost(any_redis_url):
    """Fifty links, and a withdrawal under the alias at the same time: afterwards the customer does not consent."""
    links = [open_link(any_redis_url, timeout_ms=5000) for _ in range(2)]
    consents, reader = RedisConsents(links[0]), RedisCustomerReader(links[0], CONTRACT, lambda: True)
    for n in range(50):
        await consents.record([said(f"c{n}", given=True)])
        linking = RedisIdentities(links[1], CONTRACT, lambda: True).link(f"a{n}", f"c{n}")
        await asyncio.gather(linking, consents.record([said(f"a{n}", given=False, at=NOW + 1)]))
        assert (await values(reader, f"c{n}"))["consent_marketing"] == 0.0
    for one in links:
        await one.close()


async def test_after_redis_was_emptied_every_consent_counts_as_denied(link):
    """Also one that holds unless said: what was said may have been forgotten."""
    reader = RedisCustomerReader(link, CONTRACT, lambda: False)
    await link.ask(encode("DEL", mark_of(link, consents_key("c1"))), 1)
    assert await values(reader, "c1") == {"consent_marketing": 0.0, "consent_profiling": 0.0}
