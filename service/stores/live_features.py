"""What features need to know of customers' events, in Redis or in memory.

A state is a value under a key of its own, which begins with a random mark; an update writes only where the mark is still the one
that was read, together with the values in Feast's layout, and is made again where somebody else was faster. In a cluster Feast's
key lies in another slot: its values are written after the state, until they are those of the state that is there.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from features.contract import LIVE_VIEW, Contract
from features.layout import CustomerLayout
from features.live import LAST, Event, LiveFeatures, State, decode_state, encode_state
from service.errors import DependencyFailed
from service.ids import customer_key
from service.logs import logger
from service.stores.aliases import ENDLESS, alias_key, end_of
from service.stores.erasures import ask_erased, until_in
from service.stores.links import Link
from service.stores.resp import encode

MARK = 8  # bytes
AT_ONCE = 500  # customers in a round trip: their states are held meanwhile
ATTEMPTS = 20  # by as many writers at once can one be overtaken
KEPT_S = 400 * 86_400  # a customer of whom nothing was heard for so long is forgotten here

# KEYS: state, alias, and Feast's hash if it is written, too. ARGV: the mark that was read, the new state, seconds to keep, then
# fields and values for Feast.
UPDATE = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local mark = redis.call('GETRANGE', KEYS[1], 0, 7)
if mark ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
if KEYS[3] then redis.call('HSET', KEYS[3], unpack(ARGV, 4)) end
return 1
"""

# KEYS: state. ARGV: the mark that was read.
REMOVE = "if redis.call('GETRANGE', KEYS[1], 0, 7) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end"


def live_key(customer_id: str) -> str:
    """Where the state of a customer lies."""
    return f"nb:live:{{{customer_key(customer_id)}}}"


def state_in(stored: bytes | None) -> State:
    """The state in a stored value. Raises DependencyFailed where it is none."""
    try:
        return decode_state(stored[MARK:] if stored else None)
    except msgspec.DecodeError as error:
        raise DependencyFailed(f"Expected a state that events have fed, got: {error}") from error


def new_state(state: State) -> bytes:
    """A state as it is stored, under a new mark."""
    return secrets.token_bytes(MARK) + encode_state(state)


class LiveUpdates:
    """Writes states that nobody has moved meanwhile, and the same in Feast's layout."""

    def __init__(self, link: Link, contract: Contract) -> None:
        self._link = link
        self._live = LiveFeatures(contract)
        self._layout = CustomerLayout(contract)
        self._fields = list(self._layout.encode(LIVE_VIEW, dict.fromkeys(self._live.names), 0))

    async def write(self, states: Mapping[str, tuple[bytes, State]]) -> list[str]:
        """States by customer, each with the mark that it replaces; those for whom that held. Raises DependencyFailed."""
        commands = [self._command(customer, mark, state) for customer, (mark, state) in states.items()]
        done = await self._link.ask(b"".join(commands), len(commands))
        held = [customer for customer, ok in zip(states, done, strict=True) if ok]
        if self._link.has_slots:
            await self.tell_feast(held)
        return held

    async def remove(self, marks: Mapping[str, bytes]) -> list[str]:
        """Take away states that are still those with these marks, by customer; whose were taken. Raises DependencyFailed."""
        commands = [encode("EVAL", REMOVE, "1", live_key(customer), mark) for customer, mark in marks.items()]
        done = await self._link.ask(b"".join(commands), len(commands))
        gone = [customer for customer, ok in zip(marks, done, strict=True) if ok]
        await self._link.ask(b"".join(encode("HDEL", self._layout.key(c), *self._fields) for c in gone), len(gone))
        await self.tell_feast(gone)  # of whom something came in meanwhile
        return gone

    def _command(self, customer: str, mark: bytes, state: State) -> bytes:
        """It answers 0 where the mark is not this one any more."""
        keys: tuple[str | bytes, ...] = (live_key(customer), alias_key(customer))
        pairs: list[bytes] = []
        if not self._link.has_slots:
            keys, pairs = (*keys, self._layout.key(customer)), feast_fields(self._live, self._layout, state)
        return encode("EVAL", UPDATE, str(len(keys)), *keys, mark, new_state(state), str(KEPT_S), *pairs)

    async def tell_feast(self, customers: Sequence[str]) -> None:
        """Write what states say in Feast's layout, and again for those that have moved meanwhile. Raises DependencyFailed."""
        told: dict[str, bytes] = {}
        for _ in range(ATTEMPTS):
            found = await self._link.ask(b"".join(encode("GET", live_key(c)) for c in customers), len(customers))
            moved = {c: s for c, s in zip(customers, found, strict=True) if s is not None and told.get(c) != s[:MARK]}
            if not moved:
                return
            told |= {customer: stored[:MARK] for customer, stored in moved.items()}
            customers = list(moved)
            pairs = [feast_fields(self._live, self._layout, state_in(stored)) for stored in moved.values()]
            commands = [encode("HSET", self._layout.key(c), *some) for c, some in zip(moved, pairs, strict=True)]
            await self._link.ask(b"".join(commands), len(commands))


def feast_fields(live: LiveFeatures, layout: CustomerLayout, state: State) -> list[bytes]:
    """Fields and values, in turn, that say in Feast's layout what a state says as of its last event."""
    values = live.values(state, state[LAST])
    known = {name: values.get(name) for name in live.names}
    written = layout.encode(LIVE_VIEW, known, round(state[LAST] * 1e6))
    return [part for pair in written.items() for part in pair]


_Told = tuple[str, Event]  # an event, after the id under which it came


class _Round:
    """Events that go to Redis together, and who waits for them."""

    def __init__(self) -> None:
        self.events: defaultdict[str, list[_Told]] = defaultdict(list)
        self.done: asyncio.Future[frozenset[str]] = asyncio.get_running_loop().create_future()


class _Try(NamedTuple):
    """What became of customers: added to, or nothing to add; aliases of somebody; malformed. Else the state moved meanwhile."""

    held: Sequence[str]
    owners: Mapping[str, str]
    malformed: Mapping[str, str]


class RedisLiveFeatures:
    """Reads states, applies events, and writes what has not changed meanwhile. Calls of one process go together, in rounds."""

    def __init__(self, link: Link, contract: Contract) -> None:
        self._link = link
        self._live = LiveFeatures(contract)
        self._updates = LiveUpdates(link, contract)
        self._next: _Round | None = None
        self._rounds: asyncio.Task[None] | None = None
        self._has_warned = False  # of what is malformed

    async def apply(self, events: Sequence[tuple[str, Event]]) -> frozenset[str]:
        """Add events; returns the ids to which none could be: what is kept of them is malformed. Raises DependencyFailed."""
        if not events or not self._live:
            return frozenset()
        ours = self._next = self._next or _Round()
        for told in events:
            ours.events[told[0]].append(told)
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._run())
        malformed = await asyncio.shield(ours.done)
        return malformed and malformed.intersection(customer for customer, _ in events)

    async def close(self) -> None:
        """Wait for what is under way, then release the connection."""
        if self._rounds is not None:
            await asyncio.wait([self._rounds])
        await self._link.close()

    async def _run(self) -> None:
        """One round after the other, as long as somebody waits for one."""
        while self._next is not None:
            now, self._next = self._next, None
            try:
                now.done.set_result(await self._settle(now.events))
            except BaseException as error:
                now.done.set_exception(error)
                now.done.exception()  # whoever waited may have left
                if not isinstance(error, Exception):
                    raise

    async def _settle(self, waiting: dict[str, list[_Told]]) -> frozenset[str]:
        """The ids of which what is kept is malformed, or that lead to no end."""
        ids, malformed, steps = {customer: {customer} for customer in waiting}, set[str](), dict[str, str]()
        for _ in range(ATTEMPTS):
            tries = await self._attempt(waiting)
            for one in tries:
                for customer in (*one.held, *one.malformed):
                    del waiting[customer]
                malformed.update(*(ids[customer] for customer in one.malformed))
                self._warn(one.malformed)
            for one in tries:  # after what was written is gone, lest an owner's new events go with it
                steps |= one.owners
                for customer, owner in one.owners.items():
                    moved = waiting.pop(customer)  # first: an id may lead to itself
                    waiting.setdefault(owner, []).extend(moved)
                    ids.setdefault(owner, {owner}).update(ids[customer])
            if not waiting:
                return frozenset(malformed)
        endless = {customer: ENDLESS for customer in waiting if end_of(customer, steps) is None}
        self._warn(endless)
        if left := len(waiting) - len(endless):
            raise DependencyFailed(f"Expected to be the only one who adds to {left} customers, found others at every attempt")
        return frozenset(malformed.union(*(ids[customer] for customer in endless)))

    async def _attempt(self, waiting: dict[str, list[_Told]]) -> list[_Try]:
        """One try for each customer."""
        everybody = list(waiting)
        return [await self._try(everybody[start : start + AT_ONCE], waiting) for start in range(0, len(everybody), AT_ONCE)]

    async def _try(self, customers: Sequence[str], waiting: dict[str, list[_Told]]) -> _Try:
        commands = [encode("GET", live_key(c)) + encode("GET", alias_key(c)) + ask_erased([customer_key(c)]) for c in customers]
        replies = await self._link.ask(b"".join(commands), 3 * len(customers))
        owners = {c: alias.decode() for c, alias in zip(customers, replies[1::3], strict=True) if alias is not None}
        states: dict[str, tuple[bytes, State]] = {}
        malformed: dict[str, str] = {}
        for customer, stored, erased in zip(customers, replies[::3], replies[2::3], strict=True):
            if erased is not None:
                until = until_in(erased)
                waiting[customer] = [(c, event) for c, event in waiting[customer] if c != customer or event.at > until]
            if customer not in owners and waiting[customer]:
                try:
                    events = (event for _, event in waiting[customer])
                    states[customer] = (stored or b"")[:MARK], self._live.apply(state_in(stored), events)
                except DependencyFailed as error:
                    malformed[customer] = str(error)
        forgotten = [customer for customer in customers if customer not in owners and not waiting[customer]]
        return _Try([*await self._updates.write(states), *forgotten], owners, malformed)

    def _warn(self, malformed: Mapping[str, str]) -> None:
        """Once: it comes again with each of their events."""
        if malformed and not self._has_warned:
            self._has_warned = True
            customer, problem = next(iter(malformed.items()))
            logger.warning(
                "features do not know of a customer's events until `nextbest rebuild`: %s - of `%s`", problem, customer
            )


class MemoryLiveFeatures:
    """The twin in memory."""

    def __init__(self, contract: Contract) -> None:
        self.live = LiveFeatures(contract)
        self.states: dict[str, State] = {}

    async def apply(self, events: Sequence[tuple[str, Event]]) -> frozenset[str]:
        for customer, event in events:
            self.states[customer] = self.live.apply(self.states.get(customer, {}), [event])
        return frozenset()

    async def close(self) -> None:
        """Nothing is open."""

    def values(self, customer: str, now: float) -> Mapping[str, float | str]:
        """What the features say."""
        return self.live.values(self.states.get(customer, {}), now)
