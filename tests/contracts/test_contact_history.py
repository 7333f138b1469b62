"""What every contact history promises, in Redis or in memory, together with the reader that reads it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest

from features.contract import parse_contract
from features.layout import CustomerLayout
from features.redis_client import redis_client
from service.catalog.hashed import hash32
from service.catalog.policies import Budget
from service.decision.contacts import (
    CANCELLED,
    IMPRESSION,
    KEPT_BYTES,
    KEPT_RESPONSES,
    SERVED,
    SIZE,
    TYPES,
    Contact,
    compacted,
    decode_contacts,
)
from service.decision.records import OutcomeRecord
from service.errors import DependencyFailed
from service.ids import customer_key, new_decision_id
from service.ports import Claim, ContactHistory, CustomerReader, Terms
from service.stores.contact_history import KEPT_S, MOST_BYTES, MemoryContactHistory, RedisContactHistory, contacts_key
from service.stores.customer_reader import MemoryCustomerReader, RedisCustomerReader
from service.stores.links import open_link
from service.stores.resp import encode

NOW = 1_790_000_000.0
DAY = 86_400.0
CONTRACT = parse_contract("features: [{name: age, type: number, origin: profile, max_age: 1d}]")
LAYOUT = CustomerLayout(CONTRACT)
SEEN = Budget("seen", "gold", 2, per_day=False, count="impressions")
MADE = Budget("made", "gold", 2, per_day=True, count="decisions")


class Stores(NamedTuple):
    reader: CustomerReader
    history: ContactHistory


@pytest.fixture(params=["memory", "redis_url", "cluster_url"])
async def new_process(request) -> AsyncIterator[Callable[[], Stores]]:
    """Stores as one process has them; all processes share what is kept."""
    made: list[Stores] = []
    memory = MemoryContactHistory()

    def build() -> Stores:
        if request.param == "memory":
            made.append(Stores(MemoryCustomerReader({}, memory), memory))
        else:
            link = open_link(request.getfixturevalue(request.param), timeout_ms=5000)
            made.append(Stores(RedisCustomerReader(link, CONTRACT, lambda: True), RedisContactHistory(link)))
        return made[-1]

    yield build
    for stores in made:
        await stores.reader.close()


@pytest.fixture
def stores(new_process) -> Stores:
    return new_process()


async def history_of(stores: Stores, customer: str = "c1") -> bytes:
    return (await stores.reader.read([customer], NOW)).states[0].contacts or b""


def claim(customer: str = "c1", seen: bytes | None = b"", decision: str | None = None, budgets=(), actions=("gold",)) -> Claim:
    name = decision or new_decision_id(customer)
    contacts = tuple(Contact(NOW, action, name, "hero", SERVED) for action in actions)
    return Claim(customer, name, contacts, seen, tuple(budgets))


def outcome(decision: str, kind: str = "impression", action: str | None = "gold", at: float = NOW + 5) -> OutcomeRecord:
    return OutcomeRecord(f"o-{decision}-{kind}", decision, kind, at, at, "hero", action)


async def test_a_claim_is_in_the_history_that_every_process_reads(new_process):
    """Two items of one decision, in their order."""
    here, there = new_process(), new_process()
    assert await here.history.claim([claim(actions=("gold", "silver"))], NOW, 900.0) == [True]
    entries = decode_contacts([await history_of(there)]).entries
    assert entries["action"].tolist() == [hash32("gold"), hash32("silver")]
    assert entries["type"].tolist() == [SERVED, SERVED]
    assert await history_of(there, "somebody else") == b""


async def test_of_two_claims_from_the_same_history_one_holds(new_process):
    """Whoever comes second learns it, and leaves nothing behind."""
    here, there = new_process(), new_process()
    first, second = claim(), claim()
    answers = await asyncio.gather(here.history.claim([first], NOW, 900.0), there.history.claim([second], NOW, 900.0))
    assert sorted(answers) == [[False], [True]]
    entries = decode_contacts([await history_of(here)]).entries
    assert entries["type"].tolist() == [SERVED]


async def test_many_that_came_too_late_do_not_push_out_what_counts(stores):
    """A thousand claims made from an old history: the one that held is all there is."""
    await stores.history.claim([claim()], NOW, 900.0)
    assert await stores.history.claim([claim(seen=b"") for _ in range(1000)], NOW, 900.0) == [False] * 1000
    assert len(await history_of(stores)) == SIZE


async def test_a_history_that_has_come_back_to_the_same_length_is_another(stores):
    """Appending and compacting can end where it began: the last entry tells the two apart."""
    old = claim()
    await stores.history.claim([claim("c2", decision=new_decision_id("c2"))], NOW, 900.0)
    await stores.history.claim([old], NOW, 900.0)
    assert await stores.history.claim([claim(seen=await history_of(stores, "c2"))], NOW, 900.0) == [False]


async def test_claims_of_one_call_are_judged_one_after_the_other(stores):
    """Two for the same customer: the second was made from a history that the first has changed."""
    assert await stores.history.claim([claim(), claim(), claim("c2")], NOW, 900.0) == [True, False, True]


async def test_a_claim_made_from_the_history_as_it_is_now_holds(stores):
    """Read again, and claimed again."""
    await stores.history.claim([claim()], NOW, 900.0)
    seen = await history_of(stores)
    assert await stores.history.claim([claim(seen=seen)], NOW, 900.0) == [True]


async def test_a_claim_that_no_rule_depends_on_always_holds(stores):
    """It does not say what it has seen."""
    await stores.history.claim([claim()], NOW, 900.0)
    assert await stores.history.claim([claim(seen=None), claim(seen=None)], NOW, 900.0) == [True, True]


async def test_a_released_claim_counts_no_more(stores):
    """An entry says that it was taken back."""
    taken = claim()
    await stores.history.claim([taken], NOW, 900.0)
    await stores.history.release([taken], NOW)
    entries = decode_contacts([await history_of(stores)]).entries
    assert entries["type"].tolist() == [SERVED, CANCELLED]
    assert len(set(entries["decision"])) == 1


@pytest.mark.parametrize("decision", [None, "chosen-by-the-client", "36d161ca10f2ab4f0c3d9e8b7a6f5e4d3c2b"])
async def test_an_outcome_finds_the_customer_by_the_decisions_id(stores, decision):
    """Whether the service made up the id or the client did, also one that looks like the service's."""
    taken = claim(decision=decision)
    await stores.history.claim([taken], NOW, 900.0)
    await stores.history.record([outcome(taken.decision_id)])
    entries = decode_contacts([await history_of(stores)]).entries
    assert entries["type"].tolist() == [SERVED, IMPRESSION]
    assert len(set(entries["decision"])) == 1


async def test_a_claim_of_nothing_but_an_id_that_a_client_chose_holds(stores):
    """A fallback: no contact, and an outcome that names it finds its customer."""
    assert await stores.history.claim([Claim("c1", "chosen", (), None), claim("c2")], NOW, 900.0) == [True, True]
    assert await history_of(stores) == b""
    await stores.history.record([outcome("chosen", "dismiss")])
    assert decode_contacts([await history_of(stores)]).entries["type"].tolist() == [TYPES["dismiss"]]


@pytest.mark.parametrize("decision", [None, "chosen"])
async def test_what_is_sent_again_takes_no_contact_twice_and_still_its_share(stores, decision):
    """Its contacts are there; whether it holds is for the budget to say, and without one it does."""
    first = claim(seen=None, decision=decision)
    again = first._replace(contacts=())
    assert await stores.history.claim([first, again], NOW, 900.0) == [True, True]
    assert await stores.history.claim([claim("c2", seen=None, budgets=[SEEN]) for _ in range(2)], NOW, 900.0) == [True, True]
    assert await stores.history.claim([again._replace(budgets=(SEEN,))], NOW, 900.0) == [False]
    assert len(await history_of(stores)) == SIZE


async def test_an_outcome_of_a_decision_nobody_knows_belongs_to_nobody(stores):
    """It is in the log; here it changes nothing."""
    await stores.history.record([outcome("never-made"), outcome(new_decision_id("c9"), "click")])
    assert await history_of(stores) == b""
    assert len(await history_of(stores, "c9")) == SIZE


async def test_a_history_stays_bounded_and_keeps_its_newest(stores):
    """A thousand contacts: never more than a bound, and the last one is there."""
    for number in range(100):
        decisions = [new_decision_id("c1") for _ in range(10)]
        await stores.history.record([outcome(d, "click", action=f"a{number}") for d in decisions])
        seen = await history_of(stores)
        await stores.history.claim([claim(seen=seen)], NOW, 900.0)
        assert len(await history_of(stores)) <= MOST_BYTES + 11 * SIZE
    entries = decode_contacts([await history_of(stores)]).entries
    assert len(entries) >= KEPT_BYTES // SIZE
    assert entries["action"][-1] == hash32("gold")


async def test_what_a_customer_answered_outlives_what_they_were_shown(stores):
    """A dismissal is silent for months, and a page of 50 slots comes back every minute; of old answers the newest stay."""
    said = [outcome(new_decision_id("c1"), "dismiss", at=NOW + n) for n in range(KEPT_RESPONSES + 5)]
    await stores.history.record([*said, outcome(new_decision_id("c1"))])
    told = b""
    for _ in range(40):
        seen = await history_of(stores)
        assert await stores.history.claim([claim(seen=seen, actions=("news",) * 50)], NOW, 900.0) == [True]
        told = await history_of(stores)
        assert len(told) <= MOST_BYTES
    entries = decode_contacts([compacted(told)]).entries
    assert entries["at"][entries["type"] == TYPES["dismiss"]].tolist() == [NOW + n for n in range(5, KEPT_RESPONSES + 5)]
    assert len(entries) == KEPT_BYTES // SIZE + KEPT_RESPONSES
    assert set(entries["type"].tolist()) == {SERVED, TYPES["dismiss"]}


@pytest.mark.parametrize("budget", [SEEN, MADE], ids=["impressions", "decisions"])
async def test_a_budget_is_shared_by_all_customers_and_never_overdrawn(new_process, budget):
    """Two of two are taken, whoever asks third gets nothing, and every process reads that it is used up."""
    here, there = new_process(), new_process()
    claims = [claim(f"c{i}", budgets=[budget]) for i in range(3)]
    assert await here.history.claim(claims[:2], NOW, 900.0) == [True, True]
    assert await there.history.claim(claims[2:], NOW, 900.0) == [False]
    assert (await there.reader.read(["c9"], NOW, Terms((budget,)))).exhausted == (budget,)


async def test_a_reserved_impression_that_does_not_come_is_given_back(stores):
    """After its time-out the share is free again; one that came stays taken for good."""
    claims = [claim(f"c{i}", budgets=[SEEN]) for i in range(2)]
    await stores.history.claim(claims, NOW, 900.0)
    await stores.history.record([outcome(claims[0].decision_id)], [SEEN])
    assert (await stores.reader.read(["c1"], NOW + 899.0, Terms((SEEN,)))).exhausted == (SEEN,)
    assert (await stores.reader.read(["c1"], NOW + 901.0, Terms((SEEN,)))).exhausted == ()
    again = [claim(f"d{i}", budgets=[SEEN]) for i in range(2)]
    assert await stores.history.claim(again, NOW + 901.0, 900.0) == [True, False]


async def test_a_claim_may_hold_what_it_reserves_for_a_time_of_its_own(stores):
    """As the arm of its customer says, beside claims of others."""
    claims = [claim("c1", budgets=[SEEN])._replace(reservation=60.0), claim("c2", budgets=[SEEN])]
    assert await stores.history.claim(claims, NOW, 900.0) == [True, True]
    assert (await stores.reader.read(["c1"], NOW + 59.0, Terms((SEEN,)))).exhausted == (SEEN,)
    assert (await stores.reader.read(["c1"], NOW + 61.0, Terms((SEEN,)))).exhausted == ()


async def test_a_released_budget_is_free_again(stores):
    """Whoever did not answer in time does not use it up."""
    claims = [claim(f"c{i}", budgets=[SEEN, MADE]) for i in range(2)]
    await stores.history.claim(claims, NOW, 900.0)
    await stores.history.release(claims, NOW)
    assert (await stores.reader.read(["c1"], NOW, Terms((SEEN, MADE)))).exhausted == ()


async def test_a_daily_budget_begins_anew_with_the_day(stores):
    """Used up today, there tomorrow."""
    await stores.history.claim([claim(f"c{i}", budgets=[MADE]) for i in range(2)], NOW, 900.0)
    assert (await stores.reader.read(["c1"], NOW, Terms((MADE,)))).exhausted == (MADE,)
    assert (await stores.reader.read(["c1"], NOW + DAY, Terms((MADE,)))).exhausted == ()


async def test_an_impression_after_midnight_counts_on_the_day_that_reserved_it(stores):
    """Else one day's share and the next day's would both be seen on the next. What ran out before counts when it was seen."""
    daily, midnight = Budget("daily", "gold", 2, per_day=True, count="impressions"), DAY * (NOW // DAY + 1)
    before = [claim(f"c{i}", budgets=[daily]) for i in range(2)]
    await stores.history.claim(before, midnight - 5, 900.0)
    seen = [outcome(one.decision_id, at=midnight + 5) for one in before]
    await stores.history.record(seen, [daily])
    assert await stores.history.claim([claim("c3", budgets=[daily])], midnight + 10, 900.0) == [True]
    assert (await stores.reader.read(["c1"], midnight + 10, Terms((daily,)))).exhausted == ()
    assert (await stores.reader.read(["c1"], midnight - 1, Terms((daily,)))).exhausted == (daily,)
    late = claim("c4", budgets=[daily])
    await stores.history.claim([late], midnight + DAY - 5, 5.0)
    await stores.history.record([outcome(late.decision_id, at=midnight + DAY + n) for n in (1, 2)], [daily])
    assert (await stores.reader.read(["c1"], midnight + DAY + 9, Terms((daily,)))).exhausted == (daily,)


async def test_a_claim_that_does_not_hold_takes_nothing_from_a_budget(stores):
    """Its history had changed: its share of the budget is given back."""
    await stores.history.claim([claim()], NOW, 900.0)
    assert await stores.history.claim([claim(seen=b"", budgets=[MADE])], NOW, 900.0) == [False]
    assert await stores.history.claim([claim(f"c{i}", budgets=[MADE]) for i in (2, 3)], NOW, 900.0) == [True, True]


async def test_nothing_to_do_is_no_error(stores):
    """Empty calls are answered as such."""
    assert await stores.history.claim([], NOW, 900.0) == []
    await stores.history.release([], NOW)
    await stores.history.record([])
    assert (await stores.reader.read([], NOW)).states == []


async def test_a_reader_reads_features_and_contacts_in_one_go(any_redis_url):
    """Values from Feast's layout, contacts from the history, the same customer twice in one batch."""
    with redis_client(any_redis_url) as client:
        client.hset(LAYOUT.key("c1"), mapping=LAYOUT.encode("profile", {"age": 40.0}, int(NOW * 1e6)))
        client.hset(LAYOUT.key("old"), mapping=LAYOUT.encode("profile", {"age": 40.0}, int((NOW - 2 * DAY) * 1e6)))
    link = open_link(any_redis_url, timeout_ms=5000)
    reader, history = RedisCustomerReader(link, CONTRACT, lambda: True), RedisContactHistory(link)
    await history.claim([claim()], NOW, 900.0)
    first, old, again, nobody = (await reader.read(["c1", "old", "c1", "nobody"], NOW)).states
    assert (first.values, len(first.contacts), first == again) == ({"age": 40.0}, SIZE, True)
    assert (old.values, old.stale) == ({}, ("age",))
    assert (nobody.values, nobody.contacts) == ({}, b"")
    await reader.close()


async def test_a_contract_without_customer_features_still_reads_contacts(any_redis_url):
    """Nothing to ask Feast's hashes for."""
    link = open_link(any_redis_url, timeout_ms=5000)
    reader, history = RedisCustomerReader(link, parse_contract("features: []"), lambda: True), RedisContactHistory(link)
    await history.claim([claim()], NOW, 900.0)
    [state] = (await reader.read(["c1"], NOW)).states
    assert (state.values, len(state.contacts)) == ({}, SIZE)
    await reader.close()


async def test_a_value_that_feast_did_not_write_is_a_failed_read_that_names_it(any_redis_url):
    """Damage in Redis costs this read, and says where."""
    with redis_client(any_redis_url) as client:
        client.hset(LAYOUT.key("c1"), LAYOUT.fields[0], b"\xff\xff")
    reader = RedisCustomerReader(open_link(any_redis_url, timeout_ms=5000), CONTRACT, lambda: True)
    with pytest.raises(DependencyFailed, match=r"at `profile:age` - of customer `c1`"):
        await reader.read(["c1"], NOW)
    await reader.close()


async def test_a_history_is_forgotten_long_after_its_last_contact_and_not_after_its_first(any_redis_url):
    """Whatever adds to it: claims that rules depend on or not, outcomes, and what is taken back."""
    link = open_link(any_redis_url, timeout_ms=5000)
    history, key = RedisContactHistory(link), contacts_key(customer_key("c1"))

    async def kept_for() -> float:
        """As many seconds as before, since something was added; then it is old."""
        left, _ = await link.ask(encode("TTL", key) + encode("EXPIRE", key, "100"), 2)
        return left

    async def seen() -> bytes:
        return (await link.ask(encode("GET", key), 1))[0]

    await history.record([outcome(new_decision_id("c1"))])
    kept = [await kept_for()]
    for taken in (claim(seen=await seen()), claim(seen=None)):
        await history.claim([taken], NOW, 900.0)
        kept.append(await kept_for())
    await history.record([outcome(new_decision_id("c1"))])
    kept.append(await kept_for())
    await history.release([claim()], NOW)
    kept.append(await kept_for())
    assert kept == pytest.approx([KEPT_S] * 5, abs=60)
    await link.close()


async def test_several_claims_need_nothing_that_redis_remembers(any_redis_url):
    """The first of a call brings the script, the others name it; a Redis that has forgotten all scripts knows it again."""
    link = open_link(any_redis_url, timeout_ms=5000)
    history, names = RedisContactHistory(link), ("c1", "c2", "c3")
    with redis_client(any_redis_url) as client:
        for seen in (None, b""):
            client.flushall()
            client.script_flush()
            claims = [claim(names[0], seen), *(claim(name) for name in names[1:])]
            assert await history.claim(claims, NOW, 900.0) == [True] * 3
            assert await history.claim([claim(name) for name in names], NOW, 900.0) == [False] * 3
    await link.close()
