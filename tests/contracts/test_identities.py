"""Two ids are one customer: for features, contacts, events and decisions, once, whatever comes in meanwhile."""

import asyncio
import contextlib

import pytest

from features.contract import parse_contract
from features.layout import CustomerLayout
from features.live import CHANNEL, Event
from features.redis_client import redis_client
from service.decision.contacts import IMPRESSION, SERVED, SIZE, Contact, decode_contacts, type_code
from service.decision.entities import UNKNOWN_CUSTOMER
from service.decision.records import OutcomeRecord
from service.errors import DependencyFailed
from service.ids import new_decision_id
from service.ports import Claim
from service.stores.aliases import MOST_HOPS, alias_key, aliases_key
from service.stores.contact_history import RedisContactHistory
from service.stores.customer_reader import RedisCustomerReader
from service.stores.identities import MemoryIdentities, RedisIdentities
from service.stores.links import open_link
from service.stores.live_features import RedisLiveFeatures
from service.stores.resp import encode

CONTRACT = parse_contract("""
features:
  - {name: age, type: number, origin: profile, max_age: 1d}
  - {name: views_24h, type: number, origin: activity, events: {aggregate: count, type: viewed, window: 24h}}
""")
NOW = 1_790_000_000.0


class Shop:
    """Everything that one process has."""

    def __init__(self, url: str) -> None:
        self.link = open_link(url, timeout_ms=5000)
        self.reader, self.live = RedisCustomerReader(self.link, CONTRACT, lambda: True), RedisLiveFeatures(self.link, CONTRACT)
        self.contacts, self.identities = RedisContactHistory(self.link), RedisIdentities(self.link, CONTRACT, lambda: True)

    async def viewed(self, customer: str, *names: str) -> None:
        await self.live.apply([(customer, Event(name, "viewed", NOW, {CHANNEL: "web"})) for name in names])

    async def show(self, customer: str, seen: bytes | None = None) -> str:
        name = new_decision_id(customer)
        await self.contacts.claim([Claim(customer, name, (Contact(NOW, "gold", name, "hero", SERVED),), seen)], NOW, 900.0)
        return name

    async def known(self, customer: str):
        reading = await self.reader.read([customer], NOW)
        return reading.states[0], reading.owners.get(customer, customer)


@pytest.fixture
async def shop(any_redis_url):
    made = Shop(any_redis_url)
    yield made
    await made.link.close()


async def test_what_was_known_of_the_alias_is_the_customers(shop, any_redis_url):
    """Counts add up, histories join in order of time, batch features stay the customer's; by either id one sees the same."""
    with redis_client(any_redis_url) as client:
        client.hset(
            CustomerLayout(CONTRACT).key("c42"), mapping=CustomerLayout(CONTRACT).encode("profile", {"age": 40.0}, int(NOW * 1e6))
        )
    await shop.viewed("a-1", "e1", "e2")
    await shop.viewed("c42", "e3")
    await shop.show("a-1")
    await shop.show("c42")
    assert await shop.identities.link("a-1", "c42") == "linked"
    by_alias, owner = await shop.known("a-1")
    by_name, _ = await shop.known("c42")
    assert owner == "c42"
    assert by_alias == by_name
    assert by_name.values == {"age": 40.0, "views_24h": 3.0}
    assert len(by_name.contacts) == 2 * SIZE


async def test_linking_again_changes_nothing_and_an_alias_has_one_customer(shop):
    """Known, and taken; also by way of another alias, and to itself."""
    await shop.viewed("a-1", "e1")
    assert await shop.identities.link("a-1", "c42") == "linked"
    assert await shop.identities.link("a-1", "c42") == "known"
    assert await shop.identities.link("c42", "c42") == "known"
    assert await shop.identities.link("a-1", "c43") == "taken"
    assert await shop.identities.link("a-2", "a-1") == "linked"
    assert (await shop.known("a-2"))[1] == "c42"
    assert (await shop.known("c42"))[0].values["views_24h"] == 1.0


async def test_events_and_outcomes_of_the_alias_go_to_the_customer_afterwards(shop):
    """Also the impression of what was shown to the alias before."""
    before = await shop.show("a-1")
    await shop.identities.link("a-1", "c42")
    await shop.viewed("a-1", "e1")
    await shop.contacts.record([OutcomeRecord("o1", before, "impression", NOW + 1, NOW + 1, "hero", "gold")])
    state, _ = await shop.known("c42")
    assert state.values["views_24h"] == 1.0
    assert decode_contacts([state.contacts]).entries["type"].tolist() == [SERVED, IMPRESSION]


async def test_a_claim_in_the_name_of_an_alias_does_not_hold(shop):
    """It was made from what is no more: the decision is made again, for the customer."""
    await shop.identities.link("a-1", "c42")
    name = new_decision_id("a-1")
    claim = Claim("a-1", name, (Contact(NOW, "gold", name, "hero", SERVED),), b"")
    assert await shop.contacts.claim([claim], NOW, 900.0) == [False]
    assert (await shop.known("c42"))[0].contacts == b""


async def test_whatever_comes_in_while_ids_are_linked_is_counted_once(any_redis_url):
    """A hundred events and the link, from three processes at once, ten times over."""
    shops = [Shop(any_redis_url) for _ in range(3)]
    for n in range(10):
        calls = [shops[i % 2].viewed(f"a{n}" if i % 3 else f"c{n}", f"e{n}-{i}") for i in range(100)]
        calls.insert(50, shops[2].identities.link(f"a{n}", f"c{n}"))
        await asyncio.gather(*calls)
        assert (await shops[0].known(f"c{n}"))[0].values["views_24h"] == 100.0
    for shop in shops:
        await shop.link.close()


async def test_customers_who_become_aliases_while_they_get_some_lose_nothing(any_redis_url):
    """A to b, b to c and c to d at once, with events for all of them, twenty times: whoever is the last has everything."""
    shops = [Shop(any_redis_url) for _ in range(3)]
    for n in range(20):
        names = [f"{letter}{n}" for letter in "abcd"]
        links = [shops[i].identities.link(names[i], names[i + 1]) for i in range(3)]
        events = [shops[i % 3].viewed(names[i % 4], f"e{n}-{i}") for i in range(40)]
        await asyncio.gather(*events[:20], *links, *events[20:])
        state, owner = await shops[0].known(names[0])
        assert (owner, state.values["views_24h"]) == (names[3], 40.0)
        assert await leads_to(shops[0], *names) == [names[3]] * 3 + [None]  # at once
    for shop in shops:
        await shop.link.close()


async def test_a_customer_who_becomes_an_alias_in_the_last_moment_takes_the_new_one_along(shop, any_redis_url):
    """Between reading and writing, and of whom nothing is known that would show it: the link starts again."""
    await shop.viewed("a-1", "e1")
    other = Shop(any_redis_url)

    class Meddling:
        has_slots = shop.link.has_slots

        async def ask(self, commands, count):
            if b"EVAL" in commands:
                await other.identities.link("c42", "c99")
            return await shop.link.ask(commands, count)

    assert await RedisIdentities(Meddling(), CONTRACT, lambda: True).link("a-1", "c42") == "linked"
    state, owner = await shop.known("a-1")
    assert (owner, state.values["views_24h"]) == ("c99", 1.0)
    await other.link.close()


async def test_two_links_that_cross_leave_one_customer_who_has_everything(any_redis_url):
    """Each the other's alias, at the same moment, thirty times: one of the two links holds."""
    shops = [Shop(any_redis_url) for _ in range(2)]
    for n in range(30):
        a, b = f"a{n}", f"b{n}"
        await shops[0].viewed(a, f"e{n}-1")
        await shops[1].viewed(b, f"e{n}-2")
        answers = await asyncio.gather(shops[0].identities.link(a, b), shops[1].identities.link(b, a))
        assert sorted(answers) == ["known", "linked"]
        by_a, by_b = await shops[0].known(a), await shops[0].known(b)
        assert by_a == by_b
        assert by_a[0].values["views_24h"] == 2.0
    for shop in shops:
        await shop.link.close()


@pytest.mark.parametrize("is_done", [False, True], ids=["not asked", "asked in vain"])
async def test_a_link_that_was_interrupted_is_finished_by_the_next(shop, is_done):
    """After any number of calls; whether or not Redis did what it was asked for last, everything counts once."""

    class Interrupted:
        has_slots = shop.link.has_slots

        def __init__(self, after: int) -> None:
            self.left = after

        async def ask(self, commands, count):
            self.left -= 1
            if self.left < 0 and not is_done:
                raise DependencyFailed("Expected Redis to answer, it did not")
            replies = await shop.link.ask(commands, count)
            if self.left < 0:
                raise DependencyFailed("Expected Redis to answer in time, it did not")
            return replies

    for after in range(20):
        alias, customer = f"a{after}", f"c{after}"
        await shop.viewed(alias, f"e{after}-1", f"e{after}-2")
        await shop.viewed(customer, f"e{after}-3")
        await shop.show(alias)
        await shop.show(customer)
        link = Interrupted(after)
        with contextlib.suppress(DependencyFailed):
            await RedisIdentities(link, CONTRACT, lambda: True).link(alias, customer)
        assert await shop.identities.link(alias, customer) in ("linked", "known")
        (by_alias, owner), (by_name, _) = await shop.known(alias), await shop.known(customer)
        assert (owner, by_alias) == (customer, by_name)
        assert (by_name.values["views_24h"], len(by_name.contacts)) == (3.0, 2 * SIZE)
    assert link.left > 0  # the last one was not interrupted any more


async def leads_to(shop, *names):
    """Whom ids lead to in one step."""
    found = await shop.link.ask(b"".join(encode("GET", alias_key(name)) for name in names), len(names))
    return [owner and owner.decode() for owner in found]


async def lead(shop, *pairs):
    """As a Redis may have been left."""
    await shop.link.ask(b"".join(encode("SET", alias_key(alias), owner) for alias, owner in pairs), len(pairs))


@pytest.mark.parametrize("circle", ["a", "ab", "abc"])
async def test_ids_that_lead_round_in_a_circle_are_unknown_and_hold_up_nobody(shop, circle, caplog):
    """Each is decided for under its own name, as of nobody; whoever was asked for together with them is known."""
    await shop.viewed("c42", "e1")
    await lead(shop, *zip(circle, circle[1:] + circle[0], strict=True), ("x", circle[0]), ("y", "c42"))
    reader = RedisCustomerReader(shop.link, CONTRACT, lambda: True, in_parts=True)
    reading = await reader.read([*circle, "x", "y", "c42"], NOW)
    assert reading.states[:-2] == [UNKNOWN_CUSTOMER] * (len(circle) + 1)
    assert reading.owners == {"y": "c42"}
    assert [state.values["views_24h"] for state in reading.states[-2:]] == [1.0, 1.0]
    assert "`nextbest rebuild`" in caplog.text
    with pytest.raises(DependencyFailed, match="found no end: `nextbest rebuild`"):
        await shop.known("x")
    with pytest.raises(DependencyFailed, match="found no end: `nextbest rebuild`"):
        await shop.identities.link("new", "x")


async def test_an_alias_is_followed_over_many_steps_and_no_further(shop):
    """Links of before may have left such chains; one that is longer is as a circle."""
    await shop.viewed("h0", "e1")
    await lead(shop, *((f"h{n + 1}", f"h{n}") for n in range(MOST_HOPS + 1)))
    state, owner = await shop.known(f"h{MOST_HOPS}")
    assert (owner, state.values["views_24h"]) == ("h0", 1.0)
    assert await shop.identities.owner(f"h{MOST_HOPS}") == "h0"
    with pytest.raises(DependencyFailed, match=f"within {MOST_HOPS} steps"):
        await shop.known(f"h{MOST_HOPS + 1}")


async def test_a_customer_who_becomes_an_alias_takes_all_their_aliases_along(shop):
    """Each leads to the last one at once, however many customers there were between; one that leads elsewhere by now stays."""
    await shop.identities.link("dev", "h0")
    await shop.identities.link("gone", "h0")
    await lead(shop, ("gone", "other"))
    for n in range(2 * MOST_HOPS):
        assert await shop.identities.link(f"h{n}", f"h{n + 1}") == "linked"
    last = f"h{2 * MOST_HOPS}"
    assert await leads_to(shop, "dev", "h0", "h7", "gone", last) == [last, last, last, "other", None]
    assert await shop.identities.link("dev", "h3") == "known"
    assert await shop.link.ask(encode("SCARD", aliases_key("h7")), 1) == [0]


async def test_an_outcome_goes_to_whoever_the_customer_is_by_now(shop):
    """What was shown to an alias of an alias, also where that is several steps; of a circle it is left to a rebuild."""
    first = await shop.show("a")
    await shop.identities.link("a", "b")
    await shop.identities.link("b", "c")
    second, lost = await shop.show("h2"), await shop.show("x")
    await lead(shop, ("h2", "h1"), ("h1", "c"), ("x", "y"), ("y", "x"))
    names = {"o1": first, "o2": second, "o3": lost}
    await shop.contacts.record([OutcomeRecord(o, name, "dismiss", NOW + 1, NOW + 1, "hero", "gold") for o, name in names.items()])
    state, _ = await shop.known("c")
    assert decode_contacts([state.contacts]).entries["type"].tolist() == [SERVED, type_code("dismiss"), type_code("dismiss")]


async def test_the_twin_in_memory_keeps_the_same_promises():
    """Linked, known, taken; an alias of an alias leads to the customer at once."""
    twin = MemoryIdentities()
    answers = [await twin.link(*pair) for pair in (("a", "c"), ("a", "c"), ("a", "d"), ("b", "a"), ("c", "c"))]
    assert answers == ["linked", "known", "taken", "linked", "known"]
    assert await twin.link("c", "z") == "linked"
    assert [await twin.owner(name) for name in "abcz"] == ["z"] * 4
    assert [await twin.link(*pair) for pair in (("a", "z"), ("a", "d"), ("z", "b"))] == ["known", "taken", "known"]
