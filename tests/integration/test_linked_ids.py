"""What is linked while the service runs, what the log says of it, and what a rebuild makes of that are the same."""

import asyncio

import pytest

from features.contract import parse_contract
from features.homes import write_home_contract
from features.redis_client import redis_client
from service.decision.records import IdentityRecord
from service.errors import DependencyFailed
from service.ports import KNOWN, LINKED, TAKEN
from service.stores.aliases import alias_key
from service.stores.completeness import nothing_written
from service.stores.identities import RedisIdentities
from service.stores.links import open_link
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
