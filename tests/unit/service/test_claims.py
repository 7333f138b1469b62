"""Claims of whoever has time, and decides again where Redis fails: nothing is decided without it."""

from collections.abc import Sequence

import pytest

from service.asks import Ask, Turn
from service.catalog.policies import Cap, ContactPolicy
from service.claims import Claims
from service.decision.entities import CustomerState, PlacementRequest
from service.errors import DependencyFailed
from service.metrics import Metrics
from service.ports import NO_TERMS, Claim, Reading, Terms
from service.stores.contact_history import MemoryContactHistory
from service.stores.customer_reader import MemoryCustomerReader

ONCE = ContactPolicy(caps=(Cap("once", 1, "action", 86_400.0, "impressions"),))


class DeadReader(MemoryCustomerReader):
    """A feature store that is gone."""

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        raise DependencyFailed(f"Expected what is known of {customer_ids}, {terms} at {now}, got none")


class DoubtingReader(MemoryCustomerReader):
    """A store that was emptied."""

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        return (await super().read(customer_ids, now, terms))._replace(is_doubted=True)


class LosingHistory(MemoryContactHistory):
    """The claims are taken, and nobody hears of it."""

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool]:
        taken = await super().claim(claims, now, reservation)
        raise DependencyFailed(f"Expected an answer to {len(taken)} claims, got none")


def deciding(tiny, policy: ContactPolicy) -> Turn:
    actions = [tiny.action("gold"), tiny.action("news")]
    return Turn(tiny.engine(actions, tiny.placement(), rates={"gold": 0.2, "news": 0.1}, contact=policy), 1e9)


def two_of_one_customer(turn: Turn):
    asks = [Ask(name, "c1", {"device": "mobile"}, (PlacementRequest("hero", 1),)) for name in ("d1", "d2")]
    return turn.make(asks, Reading([CustomerState({})] * 2))


@pytest.mark.parametrize("policy", [ONCE, ContactPolicy()])
async def test_to_who_has_time_a_claim_without_an_answer_is_an_error(tiny, policy):
    """Also where no rule depends on it. What may have been taken stays, for the next try under the same id."""
    turn, history = deciding(tiny, policy), LosingHistory()
    claims = Claims(MemoryCustomerReader({}, history), history, Metrics(), is_strict=True)
    with pytest.raises(DependencyFailed, match="answer to 2 claims, got none"):
        await claims.settle(turn, two_of_one_customer(turn))
    taken = history.contacts("c1")
    await claims.close()
    assert taken
    assert history.contacts("c1") == taken


async def test_to_who_has_time_it_is_an_error_where_nothing_can_be_read_to_decide_again(tiny):
    """Of two decisions for one customer the second did not hold."""
    turn = deciding(tiny, ONCE)
    claims = Claims(DeadReader({}), MemoryContactHistory(), Metrics(), is_strict=True)
    with pytest.raises(DependencyFailed, match="Expected what is known"):
        await claims.settle(turn, two_of_one_customer(turn))


async def test_to_who_has_time_it_is_an_error_where_the_store_was_emptied_meanwhile(tiny):
    """What would be decided again is in doubt: everybody would get a fallback, for good."""
    turn, history = deciding(tiny, ONCE), MemoryContactHistory()
    claims = Claims(DoubtingReader({}, history), history, Metrics(), is_strict=True)
    with pytest.raises(DependencyFailed, match="found it was emptied: `nextbest rebuild`"):
        await claims.settle(turn, two_of_one_customer(turn))
    with pytest.raises(DependencyFailed, match="found it was emptied"):
        await claims.look(turn, ["c1"])
    assert (await Claims(DoubtingReader({}, history), history, Metrics()).look(turn, ["c1"])).is_doubted


async def test_to_who_has_time_every_decision_for_one_customer_holds_however_many_they_are(tiny):
    """Thirty at once: who asks in real time has eight tries."""
    policy = ContactPolicy(caps=(Cap("many", 100, "action", 86_400.0, "decisions"),))
    turn, history = deciding(tiny, policy), MemoryContactHistory()
    asks = [Ask(f"d{n}", "c1", {"device": "mobile"}, (PlacementRequest("hero", 1),)) for n in range(30)]
    made = turn.make(asks, Reading([CustomerState({})] * 30))
    await Claims(MemoryCustomerReader({}, history), history, Metrics(), is_strict=True).settle(turn, made)
    assert not any(placement.fallback for one in made for placement in one.record.placements)
    assert len(history.contacts("c1")) == 30 * 16
