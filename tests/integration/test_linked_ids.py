"""What is linked while the service runs, what the log says of it, and what a rebuild makes of that are the same."""

import asyncio

import pytest

from features.contract import parse_contract
from features.homes import write_home_contract
from service.decision.records import IdentityRecord
from service.ports import KNOWN, LINKED
from service.stores.aliases import alias_key
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
    identities = RedisIdentities(link, CONTRACT)
    assert [await identities.owner(name) for name in "abxpqr"] == ["b", "b", "x", "r", "r", "r"]
    assert await identities.link("p", "r") == KNOWN


async def test_a_rebuild_knows_the_aliases_of_a_customer_who_becomes_one(home, any_redis_url, link):
    """They lead to the new customer at once, as if Redis had never been emptied."""
    links = [IdentityRecord("a", "b", NOW), IdentityRecord("b", "c", NOW + 1)]
    write_segment(home, "identities", "served", links, NOW)
    await asyncio.to_thread(rebuild, home, any_redis_url)
    assert await RedisIdentities(link, CONTRACT).link("c", "d") == LINKED
    assert await link.ask(b"".join(encode("GET", alias_key(name)) for name in "abc"), 3) == [b"d"] * 3
