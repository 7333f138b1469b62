"""What customers consent to: for each purpose what they said last, in Redis or in memory. It is never forgotten."""

from collections.abc import Mapping, Sequence

from service.catalog.policies import Purpose
from service.catalog.rulebook import CONSENT_FEATURE
from service.decision.records import ConsentRecord
from service.errors import DependencyFailed
from service.ids import customer_key
from service.ports import Consent
from service.stores.aliases import ENDLESS, MOST_HOPS, alias_key
from service.stores.erasures import erased_key_of
from service.stores.links import Link
from service.stores.resp import bulk, encode

MICROSECONDS = 1e6

# One field a purpose: `<moment in microseconds> <1 or 0>`. `newer(a, b)` is whether a takes b's place: it is later, or a denial
# at the same moment.
NEWER = """
local function newer(a, b)
  if not b then return true end
  local at, held = tonumber(string.sub(a, 1, -3)), tonumber(string.sub(b, 1, -3))
  return at > held or (at == held and string.sub(a, -1) == '0')
end
"""
# KEYS: consents, alias, and where it was said under this very id, until when that is erased. ARGV: purposes and what was said, in
# turn. Answers whose alias it is, having changed nothing.
RECORD = (
    NEWER
    + """
local erased = KEYS[3] and redis.call('GET', KEYS[3])
if erased and tonumber(string.sub(ARGV[2], 1, -3)) <= math.floor(tonumber(erased) * 1e6 + 0.5) then return '' end
local owner = redis.call('GET', KEYS[2])
if owner then return owner end
for n = 1, #ARGV, 2 do
  if newer(ARGV[n + 1], redis.call('HGET', KEYS[1], ARGV[n])) then redis.call('HSET', KEYS[1], ARGV[n], ARGV[n + 1]) end
end
return ''
"""
)


def consents_key(customer_id: str) -> str:
    """Where it is kept what a customer consents to."""
    return f"nb:consent:{{{customer_key(customer_id)}}}"


def consents_command(customer_id: str, purposes: Sequence[Purpose]) -> bytes:
    """One command that asks for what a customer said of some purposes."""
    names = b"".join(bulk(purpose.name) for purpose in purposes)
    return b"*%d\r\n%b%b%b" % (2 + len(purposes), bulk("HMGET"), bulk(consents_key(customer_id)), names)


def consent_values(purposes: Sequence[Purpose], reply: Sequence[bytes | None]) -> dict[str, float]:
    """The answer as values of a customer: 1 where they consent, 0 where they do not."""
    said = zip(purposes, reply, strict=True)
    return {CONSENT_FEATURE + p.name: float(p.given if text is None else text.endswith(b"1")) for p, text in said}


def denied(purposes: Sequence[Purpose]) -> dict[str, float]:
    """The same where it is not known what they said."""
    return {CONSENT_FEATURE + purpose.name: 0.0 for purpose in purposes}


class RedisConsents:
    """Writes what is newer than what is there, in one step."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def record(self, consents: Sequence[ConsentRecord]) -> None:
        """The latest holds. Raises DependencyFailed."""
        waiting = [(one, one.customer_id) for one in consents]
        for _ in range(MOST_HOPS + 1):
            owners = await self._link.ask(b"".join(record_command(*one) for one in waiting), len(waiting))
            waiting = [(one, owner.decode()) for (one, _), owner in zip(waiting, owners, strict=True) if owner]
            if not waiting:
                return
        raise DependencyFailed(f"{ENDLESS} - of `{waiting[0][0].customer_id}`")

    async def known(self, customer_id: str) -> Mapping[str, Consent]:
        """What a customer said, by purpose, under whichever id. Raises DependencyFailed."""
        for _ in range(MOST_HOPS + 1):
            command = encode("GET", alias_key(customer_id)) + encode("HGETALL", consents_key(customer_id))
            owner, pairs = await self._link.ask(command, 2)
            if owner is None:
                return {name.decode(): _said(text) for name, text in zip(pairs[::2], pairs[1::2], strict=True)}
            customer_id = owner.decode()
        raise DependencyFailed(f"{ENDLESS} - of `{customer_id}`")


def record_command(consent: ConsentRecord, customer_id: str) -> bytes:
    """One command that writes a consent where it is the newest; it answers whose alias the customer is, if so.

    What was said until the id it was said with was erased is passed over.
    """
    keys = [consents_key(customer_id), alias_key(customer_id)]
    if customer_id == consent.customer_id:
        keys.append(erased_key_of(customer_key(customer_id)))
    return encode("EVAL", RECORD, str(len(keys)), *keys, consent.purpose, consent_text(consent))


def consent_text(consent: ConsentRecord) -> str:
    """As it is stored."""
    return f"{round(consent.at * MICROSECONDS)} {consent.given:d}"


def said_at(text: bytes) -> float:
    """When what is stored was said, seconds since 1970 UTC."""
    return int(text.partition(b" ")[0]) / MICROSECONDS


def _said(text: bytes) -> Consent:
    return Consent(text.endswith(b"1"), said_at(text))


class MemoryConsents:
    """The twin in memory."""

    def __init__(self) -> None:
        self._said: dict[str, dict[str, Consent]] = {}

    async def record(self, consents: Sequence[ConsentRecord]) -> None:
        for one in consents:
            held = self._said.setdefault(one.customer_id, {})
            before = held.get(one.purpose)
            if before is None or (one.at, not one.given) > (before.at, not before.given):
                held[one.purpose] = Consent(one.given, one.at)

    async def known(self, customer_id: str) -> Mapping[str, Consent]:
        return dict(self._said.get(customer_id, {}))

    def values(self, customer_id: str, purposes: Sequence[Purpose]) -> dict[str, float]:
        """As values of a customer."""
        held = self._said.get(customer_id, {})
        return {CONSENT_FEATURE + p.name: float(held[p.name].given if p.name in held else p.given) for p in purposes}
