"""Which ids are the same customer: an alias leads to the customer, and what was known of the alias becomes the customer's.

One script does it where it may name any keys. In a cluster the two lie in different slots, and it takes three steps: nothing is
written for the alias any more; what was known of it is the customer's, once; it is removed where it was. Then whoever led to the
alias leads to the customer at once: each step on the way is a round trip for all who follow. Whoever links the two again goes on
where somebody was interrupted.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from features.contract import Contract
from features.layout import CustomerLayout
from features.live import LiveFeatures
from service.decision.contacts import SIZE, compacted
from service.errors import DependencyFailed
from service.ids import customer_key
from service.ports import EMPTIED, KNOWN, LINKED, TAKEN
from service.stores.aliases import ENDLESS, MOST_HOPS, alias_key, alias_key_of, aliases_key
from service.stores.completeness import mark_of, set_complete
from service.stores.consents import NEWER, consents_key
from service.stores.contact_history import contacts_key
from service.stores.links import Link
from service.stores.live_features import KEPT_S, MARK, LiveUpdates, feast_fields, live_key, new_state, state_in
from service.stores.resp import encode

ATTEMPTS = 20
CROSSED_S = 0.01

# KEYS: alias, states of the alias and the customer, their contacts, Feast's hash and the alias of the customer, the consents of
# both, and that nothing was lost. ARGV: what was read (two marks, two histories), the customer, the merged state and history
# ('' for none), seconds to keep, then fields and values for Feast.
LINK = (
    NEWER
    + """
if redis.call('EXISTS', KEYS[1], KEYS[7]) > 0 or redis.call('EXISTS', KEYS[10]) == 0 then return 0 end
for n = 1, 2 do
  if redis.call('GETRANGE', KEYS[n + 1], 0, 7) ~= ARGV[n] then return 0 end
  if (redis.call('GET', KEYS[n + 3]) or '') ~= ARGV[n + 2] then return 0 end
end
redis.call('SET', KEYS[1], ARGV[5])
if ARGV[6] ~= '' then redis.call('SET', KEYS[3], ARGV[6], 'EX', ARGV[8]) end
if ARGV[7] ~= '' then redis.call('SET', KEYS[5], ARGV[7], 'EX', ARGV[8]) end
local said = redis.call('HGETALL', KEYS[8])
for n = 1, #said, 2 do
  if newer(said[n + 1], redis.call('HGET', KEYS[9], said[n])) then redis.call('HSET', KEYS[9], said[n], said[n + 1]) end
end
redis.call('DEL', KEYS[2], KEYS[4], KEYS[8])
if #ARGV > 8 then redis.call('HSET', KEYS[6], unpack(ARGV, 9)) end
return 1
"""
)


# KEYS: alias, and that nothing was lost beside it. ARGV: the customer. The first step in a cluster; answers 0 where somebody was
# faster.
BIND = "if redis.call('EXISTS', KEYS[2]) == 1 and redis.call('SET', KEYS[1], ARGV[1], 'NX') then return 1 else return 0 end"
# KEYS: alias. ARGV: the customer. Takes it back.
UNBIND = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end"
# KEYS: the alias of an id. ARGV: whom it led to, and whom it shall lead to.
REBIND = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end return 1"
# The second step. KEYS, of the customer: state, contacts, consents, alias, and that it has the alias's. ARGV: what was read (a
# mark, a history), the merged state and history ('' for none), seconds to keep, then the alias's consents.
JOIN = (
    NEWER
    + """
if redis.call('EXISTS', KEYS[5]) == 1 then return 1 end
if redis.call('EXISTS', KEYS[4]) == 1 then return 0 end
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] or (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] ~= '' then redis.call('SET', KEYS[1], ARGV[3], 'EX', ARGV[5]) end
if ARGV[4] ~= '' then redis.call('SET', KEYS[2], ARGV[4], 'EX', ARGV[5]) end
for n = 6, #ARGV, 2 do
  if newer(ARGV[n + 1], redis.call('HGET', KEYS[3], ARGV[n])) then redis.call('HSET', KEYS[3], ARGV[n], ARGV[n + 1]) end
end
redis.call('SET', KEYS[5], '1', 'EX', ARGV[5])
return 1
"""
)


def joined_key(alias: str, customer: str) -> str:
    """Says, in a cluster, that a customer has what was known of an alias, until that is removed where it was."""
    return f"nb:joined:{{{customer_key(customer)}}}:{customer_key(alias)}"


class _Leftovers(NamedTuple):
    """What is stored of an alias: its state, its contacts, and its consents, field by field."""

    state: bytes | None
    contacts: bytes | None
    consents: list[bytes]


class RedisIdentities:
    """Links aliases: what comes in meanwhile makes it start again. On a single Redis nobody sees half of it.

    A Redis that was emptied does not know whose an alias was: nothing is linked until it does.
    """

    def __init__(self, link: Link, contract: Contract, nothing_written: Callable[[], bool]) -> None:
        """`nothing_written` is asked where Redis has lost its mark: whether that does not matter."""
        self._link = link
        self._nothing_written = nothing_written
        self._updates = LiveUpdates(link, contract)
        self._live = LiveFeatures(contract)
        self._layout = CustomerLayout(contract)

    async def link(self, alias: str, customer: str) -> str:
        """`linked`, `known` where it was before, `taken` where the alias is another customer. Raises DependencyFailed."""
        for _ in range(ATTEMPTS):
            owner, target = await self.owner(alias), await self.owner(customer)
            if owner == target:
                if alias != target:
                    await self._finish(alias, target)
                return KNOWN
            if owner != alias:
                return TAKEN
            if await (self._bind(alias, target) if self._link.has_slots else self._try(alias, target)):
                await self._finish(alias, target)
                return LINKED
        raise DependencyFailed(f"Expected to be the only one who changes `{alias}`, found others at every attempt")

    async def owner(self, name: str) -> str:
        """The customer that an id leads to. Raises DependencyFailed."""
        for _ in range(MOST_HOPS + 1):
            key = alias_key(name)
            found, mark = await self._link.ask(encode("GET", key) + encode("GET", mark_of(self._link, key)), 2)
            if mark is None:
                await self._begin()
            if found is None:
                return name
            name = found.decode()
        raise DependencyFailed(f"{ENDLESS} - of `{name}`")

    async def _begin(self) -> None:
        """Mark an empty Redis as complete while nothing was written. Raises DependencyFailed where something was."""
        if not self._nothing_written():
            raise DependencyFailed(EMPTIED)
        await set_complete(self._link)

    async def _try(self, alias: str, customer: str) -> bool:
        lives = [live_key(alias), live_key(customer)]
        contacts = [contacts_key(customer_key(alias)), contacts_key(customer_key(customer))]
        found = await self._link.ask(b"".join(encode("GET", key) for key in (*lives, *contacts)), 4)
        states: list[bytes | None] = list(found[:2])
        histories: list[bytes] = [history or b"" for history in found[2:]]
        merged, pairs = self._merged(states)
        together = _joined(histories) if histories[0] else b""
        keys: list[str | bytes] = [alias_key(alias), *lives, *contacts, self._layout.key(customer), alias_key(customer)]
        keys += [consents_key(alias), consents_key(customer), mark_of(self._link, alias_key(alias))]
        seen: list[bytes] = [*((state or b"")[:MARK] for state in states), *histories]
        command = encode("EVAL", LINK, str(len(keys)), *keys, *seen, customer, merged, together, str(KEPT_S), *pairs)
        [done] = await self._link.ask(command, 1)
        return bool(done)

    async def _bind(self, alias: str, customer: str) -> bool:
        """The first step of the same in a cluster."""
        keys = alias_key(alias), mark_of(self._link, alias_key(alias))
        [bound] = await self._link.ask(encode("EVAL", BIND, "2", *keys, customer), 1)
        if not bound:
            return False
        if await self._leads_to(customer, alias):  # it was linked the other way round at the same moment
            await self._link.ask(encode("EVAL", UNBIND, "1", alias_key(alias), customer), 1)
            await asyncio.sleep(random.uniform(0, CROSSED_S))  # noqa: S311  # so that the two do not meet again
            return False
        return True

    async def _finish(self, alias: str, customer: str) -> None:
        """What comes after an alias was bound, or what is left of that."""
        if self._link.has_slots:
            await self._join(alias, customer)
        await self._lead_on(alias, customer)

    async def _lead_on(self, alias: str, customer: str) -> None:
        """Whoever led to the alias leads to the customer at once.

        Also where that one becomes an alias meanwhile: whoever links it finds these ids, or it is seen here.
        """
        own, before = customer_key(alias), alias
        asked = encode("SMEMBERS", aliases_key(alias)) + encode("SISMEMBER", aliases_key(customer), own)
        led, is_there = await self._link.ask(asked, 2)
        if is_there and not led:
            return
        keys = [own, *(key.decode() for key in led)]
        for _ in range(ATTEMPTS):
            bound = [encode("EVAL", REBIND, "1", alias_key_of(key), before, customer) for key in keys]
            await self._link.ask(b"".join([encode("SADD", aliases_key(customer), *keys), *bound]), 1 + len(bound))
            before, customer = customer, await self.owner(customer)
            if before == customer:
                break
        if led:
            await self._link.ask(encode("SREM", aliases_key(alias), *led), 1)

    async def _leads_to(self, name: str, wanted: str) -> bool:
        for _ in range(MOST_HOPS):
            [found] = await self._link.ask(encode("GET", alias_key(name)), 1)
            if found is None:
                return False
            name = found.decode()
            if name == wanted:
                return True
        return False

    async def _join(self, alias: str, customer: str) -> None:
        """What is left of an alias becomes the customer's."""
        keys = [live_key(alias), contacts_key(customer_key(alias)), consents_key(alias)]
        found = await self._link.ask(encode("GET", keys[0]) + encode("GET", keys[1]) + encode("HGETALL", keys[2]), 3)
        left = _Leftovers(*found)
        if not any(left):
            return
        for _ in range(ATTEMPTS):
            customer = await self.owner(customer)
            if await self._give(left, alias, customer):
                break
        else:
            raise DependencyFailed(f"Expected to be the only one who changes `{customer}`, found others at every attempt")
        await self._link.ask(encode("DEL", *keys), 1)
        await self._link.ask(encode("DEL", joined_key(alias, customer)), 1)
        await self._updates.tell_feast([customer])

    async def _give(self, left: _Leftovers, alias: str, customer: str) -> bool:
        live, contacts = live_key(customer), contacts_key(customer_key(customer))
        state, history = await self._link.ask(encode("GET", live) + encode("GET", contacts), 2)
        merged, _ = self._merged([left.state, state])
        together = _joined([left.contacts, history or b""]) if left.contacts else b""
        keys = [live, contacts, consents_key(customer), alias_key(customer), joined_key(alias, customer)]
        seen = [(state or b"")[:MARK], history or b""]
        command = encode("EVAL", JOIN, str(len(keys)), *keys, *seen, merged, together, str(KEPT_S), *left.consents)
        [done] = await self._link.ask(command, 1)
        return bool(done)

    def _merged(self, stored: Sequence[bytes | None]) -> tuple[bytes, list[bytes]]:
        """The state of both, as it is stored, and its values for Feast; nothing where the alias has none."""
        if not stored[0] or not self._live:
            return b"", []
        state = self._live.merge(state_in(stored[1]), state_in(stored[0]))
        return new_state(state), feast_fields(self._live, self._layout, state)


def _joined(histories: Sequence[bytes]) -> bytes:
    """Two histories as one, by moment; entries of a moment stay in their order."""
    whole = [history[: len(history) // SIZE * SIZE] for history in histories]
    entries = [history[start : start + SIZE] for history in whole for start in range(0, len(history), SIZE)]
    entries.sort(key=lambda entry: int.from_bytes(entry[:4], "little"))
    return compacted(b"".join(entries))


class MemoryIdentities:
    """The twin in memory: remembers links, and has nothing to merge."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}

    async def owner(self, name: str) -> str:
        return self.aliases.get(name, name)

    async def link(self, alias: str, customer: str) -> str:
        target = self.aliases.get(customer, customer)
        owner = self.aliases.get(alias, alias)
        if owner == target:
            return KNOWN
        if owner != alias:
            return TAKEN
        self.aliases |= {name: target for name, leads_to in self.aliases.items() if leads_to == alias} | {alias: target}
        return LINKED
