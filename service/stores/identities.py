"""Which ids are the same customer: an alias leads to the customer, and what was known of the alias becomes the customer's."""

from collections.abc import Sequence

from features.contract import Contract
from features.layout import CustomerLayout
from features.live import LiveFeatures
from service.decision.contacts import SIZE
from service.errors import DependencyFailed
from service.ids import customer_key
from service.ports import KNOWN, LINKED, TAKEN
from service.stores.aliases import MOST_HOPS, alias_key
from service.stores.consents import NEWER, consents_key
from service.stores.contact_history import KEPT_BYTES, contacts_key
from service.stores.live_features import KEPT_S, MARK, feast_fields, live_key, new_state, state_in
from service.stores.redis_link import RedisLink
from service.stores.resp import encode

ATTEMPTS = 20

# KEYS: alias, states of the alias and the customer, their contacts, Feast's hash and the alias of the customer, the consents of
# both. ARGV: what was read (two marks, two histories), the customer, the merged state and history ('' for none), seconds to keep,
# then fields and values for Feast.
LINK = (
    NEWER
    + """
if redis.call('EXISTS', KEYS[1], KEYS[7]) > 0 then return 0 end
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


class RedisIdentities:
    """Links aliases, each in one step: nobody sees half of it, and what comes in meanwhile makes it start again."""

    def __init__(self, link: RedisLink, contract: Contract) -> None:
        self._link = link
        self._live = LiveFeatures(contract)
        self._layout = CustomerLayout(contract)

    async def link(self, alias: str, customer: str) -> str:
        """`linked`, `known` where it was before, `taken` where the alias is another customer. Raises DependencyFailed."""
        for _ in range(ATTEMPTS):
            owner, target = await self._owner(alias), await self._owner(customer)
            if owner == target:
                return KNOWN
            if owner != alias:
                return TAKEN
            if await self._try(alias, target):
                return LINKED
        raise DependencyFailed(f"Expected to be the only one who changes `{alias}`, found others at every attempt")

    async def _owner(self, name: str) -> str:
        """The customer that an id leads to."""
        for _ in range(MOST_HOPS):
            [found] = await self._link.ask(encode("GET", alias_key(name)), 1)
            if found is None:
                return name
            name = found.decode()
        return name

    async def _try(self, alias: str, customer: str) -> bool:
        lives = [live_key(alias), live_key(customer)]
        contacts = [contacts_key(customer_key(alias)), contacts_key(customer_key(customer))]
        found = await self._link.ask(b"".join(encode("GET", key) for key in (*lives, *contacts)), 4)
        states: list[bytes | None] = list(found[:2])
        histories: list[bytes] = [history or b"" for history in found[2:]]
        merged, pairs = self._merged(states)
        together = _joined(histories) if histories[0] else b""
        keys: list[str | bytes] = [alias_key(alias), *lives, *contacts, self._layout.key(customer), alias_key(customer)]
        keys += [consents_key(alias), consents_key(customer)]
        seen: list[bytes] = [*((state or b"")[:MARK] for state in states), *histories]
        command = encode("EVAL", LINK, str(len(keys)), *keys, *seen, customer, merged, together, str(KEPT_S), *pairs)
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
    return b"".join(entries)[-KEPT_BYTES:]


class MemoryIdentities:
    """The twin in memory: remembers links, and has nothing to merge."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}

    async def link(self, alias: str, customer: str) -> str:
        target = self.aliases.get(customer, customer)
        owner = self.aliases.get(alias, alias)
        if owner == target:
            return KNOWN
        if owner != alias:
            return TAKEN
        self.aliases[alias] = target
        return LINKED
