"""What is linked while the service runs, what the log says of it, and what a rebuild makes of that are the same."""

import asyncio

import pytest

from features.contract import parse_contract
from features.homes import write_home_contract
from features.redis_client import redis_client
from service.catalog.policies import Purpose
from service.decision.contacts import CANCELLED, SERVED, Contact, decode_contacts
from service.decision.records import ConsentRecord, EventRecord, IdentityRecord
from service.errors import DependencyFailed
from service.ids import customer_key, new_decision_id
from service.ports import KNOWN, LINKED, TAKEN, Claim, Terms
from service.stores.aliases import alias_key
from service.stores.completeness import nothing_written
from service.stores.consents import RedisConsents, consents_key
from service.stores.contact_history import RedisContactHistory, contacts_key
from service.stores.customer_reader import RedisCustomerReader
from service.stores.identities import RedisIdentities
from service.stores.links import open_link
from service.stores.live_features import RedisLiveFeatures, live_key
from service.stores.resp import encode
from training.live_log import write_segment
from training.rebuild import rebuild

NOW = 1_790_000_000.0
CONTRACT = parse_contract("""
features:
  - {name: views_24h, type: number, origin: activity, events: {aggregate: count, type: product_viewed, window: 24h}}
""")


@pytest.fixture
def home(tmp_path):
    write_home_contract(tmp_path / "home", CONTRACT)
    return tmp_path / "home"


@pytest.fixture
async def link(any_redis_url):
    made = open_link(any_redis_url, timeout_ms=5000)
    yield made
    await made.close()


async def test_a_rebuild_ends_the_circle_that_an_earlier_one_made(home, any_redis_url, link):
    """What is in the log of it is passed over, and what is in Redis of it is taken away; a link that holds stays."""
    said = ["a b", "b a", "x x", "p q", "q r", "r p"]
    links = [IdentityRecord(*pair.split(), NOW + n) for n, pair in enumerate(said)]
    write_segment(home, "identities", "served", links, NOW)
    there = {"a": "b", "b": "a", "x": "x", "p": "r", "q": "p", "r": "q"}  # each as far as one comes
    await link.ask(b"".join(encode("SET", alias_key(alias), owner) for alias, owner in there.items()), len(there))
    await asyncio.to_thread(rebuild, home, any_redis_url)
    identities = RedisIdentities(link, CONTRACT, lambda: nothing_written(home))
    assert [await identities.owner(name) for name in "abxpqr"] == ["b", "b", "x", "r", "r", "r"]
    assert await identities.link("p", "r") == KNOWN


async def test_a_rebuild_knows_the_aliases_of_a_customer_who_becomes_one(home, any_redis_url, link):
    """They lead to the new customer at once, as if Redis had never been emptied."""
    links = [IdentityRecord("a", "b", NOW), IdentityRecord("b", "c", NOW + 1)]
    write_segment(home, "identities", "served", links, NOW)
    await asyncio.to_thread(rebuild, home, any_redis_url)
    assert await RedisIdentities(link, CONTRACT, lambda: nothing_written(home)).link("c", "d") == LINKED
    assert await link.ask(b"".join(encode("GET", alias_key(name)) for name in "abc"), 3) == [b"d"] * 3


async def test_an_emptied_redis_takes_no_link_before_it_knows_those_of_the_log(home, any_redis_url, link):
    """Whose an alias was is written down and not known: a link of it to somebody else would stand against that for good."""
    identities = RedisIdentities(link, CONTRACT, lambda: nothing_written(home))
    assert await identities.link("dev", "ann") == LINKED  # the first of all: there is nothing that could be lost
    write_segment(home, "identities", "served", [IdentityRecord("dev", "ann", NOW)], NOW)
    with redis_client(any_redis_url) as client:
        client.flushdb()
    for pair in (("dev", "bob"), ("ann", "dev"), ("new", "bob")):
        with pytest.raises(DependencyFailed, match="found it was emptied: `nextbest rebuild`"):
            await identities.link(*pair)
    await asyncio.to_thread(rebuild, home, any_redis_url)
    assert [await identities.link("dev", "bob"), await identities.link("ann", "dev")] == [TAKEN, KNOWN]


async def test_a_redis_that_is_emptied_between_looking_and_linking_takes_no_link_either(home, any_redis_url, link):
    """The step that binds the alias asks once more."""
    write_segment(home, "identities", "served", [IdentityRecord("dev", "ann", NOW)], NOW)
    await asyncio.to_thread(rebuild, home, any_redis_url)

    class Emptied:
        has_slots = link.has_slots

        async def ask(self, commands, count):
            if b"EVAL" in commands:
                with redis_client(any_redis_url) as client:
                    client.flushdb()
            return await link.ask(commands, count)

    with pytest.raises(DependencyFailed, match="found it was emptied"):
        await RedisIdentities(Emptied(), CONTRACT, lambda: nothing_written(home)).link("new", "bob")
    assert await link.ask(encode("GET", alias_key("new")), 1) == [None]


async def test_what_an_emptied_redis_took_under_an_alias_counts_once(home, any_redis_url, link):
    """A rebuild gives it to the customer; nothing is left that the same link, sent again, would give them once more."""
    live, reader = RedisLiveFeatures(link, CONTRACT), RedisCustomerReader(link, CONTRACT, lambda: False)
    history, identities = RedisContactHistory(link), RedisIdentities(link, CONTRACT, lambda: nothing_written(home))
    write_segment(home, "identities", "served", [IdentityRecord("anon", "ann", NOW - 9)], NOW)
    events = [EventRecord(f"e{n}", name, "product_viewed", "web", NOW, NOW, {}) for n, name in enumerate(("ann", "anon"))]
    write_segment(home, "events", "served", events, NOW)
    denied = ConsentRecord("anon", "marketing", given=False, at=NOW, received_at=NOW)
    write_segment(home, "consents", "served", [denied], NOW)
    # as it came in, with one decision that nobody has written down yet and one that was taken back
    await live.apply([(event.customer_id, event.event) for event in events])
    await RedisConsents(link).record([denied])
    ids = [new_decision_id("anon") for _ in range(2)]
    claims = [Claim("anon", one, (Contact(NOW, "gold", one, "hero", SERVED),), b"", ()) for one in ids]
    assert await history.claim(claims[:1], NOW, 900.0) == [True]
    await history.claim([claims[1]._replace(seen=None)], NOW, 900.0)
    await history.release(claims[1:], NOW)
    for _ in range(2):
        await asyncio.to_thread(rebuild, home, any_redis_url)
        assert await identities.link("anon", "ann") == KNOWN
        [state] = (await reader.read(["ann"], NOW + 1, Terms(purposes=(Purpose("marketing", given=True),)))).states
        assert state.values == {"views_24h": 2.0, "consent_marketing": 0.0}
        assert decode_contacts([state.contacts]).entries["type"].tolist() == [SERVED, SERVED, CANCELLED]
    left = [live_key("anon"), contacts_key(customer_key("anon")), consents_key("anon")]
    assert await link.ask(b"".join(encode("EXISTS", key) for key in left), 3) == [0, 0, 0]
