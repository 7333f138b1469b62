"""Contacts with customers: in Redis, a string of 16-byte entries per customer that only ever grows at its end; or in memory.

A decision claims its contacts by appending them, where a rule depends on it only if nobody else has appended since the history
was read; else it is made again. Nothing is locked, and a process that dies leaves entries that stop counting when their
reservation ends.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from service.catalog.policies import DECISIONS, IMPRESSIONS, Budget
from service.claims import must_hold
from service.decision.contacts import (
    CANCELLED,
    IMPRESSION,
    KEPT_BYTES,
    KEPT_RESPONSES,
    SIZE,
    Contact,
    compacted,
    encode_contacts,
    type_code,
)
from service.decision.records import OutcomeRecord
from service.errors import DependencyDown, DependencyFailed, DependencyRefused
from service.ids import customer_key, key_in, without_key
from service.ports import Claim
from service.stores.aliases import alias_key_of, customers_of
from service.stores.budgets import DAY_S, budget_keys, claim_command, confirm_command, release_command
from service.stores.erasures import ask_erased, until_in
from service.stores.links import Link
from service.stores.resp import bulk, check, encode

MOST_BYTES = 512 * SIZE  # when there are more, the oldest go (`compacted`)
KEPT_S = 400 * 86_400  # a customer nobody has been in contact with for so long is forgotten here
RECORDED_AT_ONCE = 250  # outcomes: of many calls at once, each soon has an answer from Redis, and so has whoever shares the link
CLIENTS_ID_S = 31 * 86_400.0  # how long it is known whose decision an id is that a client chose: as long as its outcomes count

# KEYS: history, alias. ARGV: the length that was read, the entry that was the last one, new entries, seconds after which a
# history is forgotten to which nothing is added: that is set anew once a day, since setting it is a write, and looking is none.
# A length alone could be one that the history has come back to, after appending and compacting.
APPEND = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local length = redis.call('STRLEN', KEYS[1])
if length ~= tonumber(ARGV[1]) then return 0 end
if length > 0 and redis.call('GETRANGE', KEYS[1], -#ARGV[2], -1) ~= ARGV[2] then return 0 end
local new = redis.call('APPEND', KEYS[1], ARGV[3])
if redis.call('TTL', KEYS[1]) < ARGV[4] - 86400 then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
return new
"""
# with the words that differ left open, and their lengths: one by one they took twice as long
APPEND_WORDS = bulk("2") + 5 * b"$%d\r\n%b\r\n" + bulk(str(KEPT_S))
APPEND_COMMAND = b"*9\r\n" + bulk("EVAL") + bulk(APPEND) + APPEND_WORDS
# Redis knows a script that it has just run by its hash, and need not work that out: 32 connections are answered 3 % more often
APPEND_AGAIN = b"*9\r\n" + bulk("EVALSHA") + bulk(hashlib.sha1(APPEND.encode(), usedforsecurity=False).hexdigest()) + APPEND_WORDS
ADD = b"*3\r\n" + bulk("APPEND") + 2 * b"$%d\r\n%b\r\n"
KEEP = b"*3\r\n" + bulk("EXPIRE") + b"$%d\r\n%b\r\n" + bulk(str(KEPT_S))
# KEYS: history. ARGV: bytes to keep, how many responses of older contacts, the last type of what is none (`compacted`).
COMPACT = """
local all = redis.call('GET', KEYS[1])
local older = all and #all - tonumber(ARGV[1]) or 0
if older <= 0 then return 1 end
local kept = {string.sub(all, -tonumber(ARGV[1]))}
for at = older - 15, 1, -16 do
  if #kept > tonumber(ARGV[2]) then break end
  if string.byte(all, at + 14) + 256 * string.byte(all, at + 15) > tonumber(ARGV[3]) then
    table.insert(kept, 1, string.sub(all, at, at + 15))
  end
end
redis.call('SET', KEYS[1], table.concat(kept), 'KEEPTTL')
return 1
"""


def contacts_key(customer: str) -> str:
    """Where the contacts of a customer lie; `customer` as `customer_key` names them."""
    return f"nb:contacts:{{{customer}}}"


def decision_key(decision_id: str) -> str:
    """Where it is kept whose decision an id is that a client chose; of one that looks like ours, where it would lead to."""
    key = key_in(decision_id)
    return f"nb:decision:{decision_id}" if key is None else f"nb:decision:{{{key}}}:{without_key(decision_id)}"


class RedisContactHistory:
    """Appends where nothing has changed, and takes shares of budgets."""

    def __init__(self, link: Link, ids_kept_s: float = CLIENTS_ID_S) -> None:
        """`ids_kept_s`: how long ids are known."""
        self._link = link
        self._ids_kept_s = ids_kept_s

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool | DependencyFailed]:
        """One answer per claim. Raises DependencyFailed."""
        commands, counts, has_run = [], list[int](), False
        for claim in claims:
            asked = [] if claim.is_of_id_alone else _append(claim, APPEND_AGAIN if has_run else APPEND_COMMAND)
            has_run |= claim.seen is not None and not self._link.has_slots  # of a cluster, on one of the nodes
            key = customer_key(claim.customer_id)
            if key_in(claim.decision_id) != key:
                asked.append(encode("SET", decision_key(claim.decision_id), key, "EX", str(math.ceil(self._ids_kept_s))))
            held = claim.reservation or reservation
            asked += [claim_command(budget, claim.decision_id, now, held) for budget in claim.budgets]
            commands += asked
            counts.append(len(asked))
        replies = iter(await self._link.ask(b"".join(commands), len(commands), raw=True))
        answers = [[next(replies) for _ in range(count)] for count in counts]
        verdicts = [_verdict(claim, answer) for claim, answer in zip(claims, answers, strict=True)]
        await self._after(claims, answers, verdicts, now)
        return verdicts

    async def _after(
        self, claims: Sequence[Claim], answers: Sequence[list[Any]], held: Sequence[bool | DependencyFailed], now: float
    ) -> None:
        """Take back what did not hold; let long histories lose their oldest entries."""
        commands = []
        for claim, answer, holds in zip(claims, answers, held, strict=True):
            is_added = isinstance(answer[0], int) and answer[0] > 0
            if holds is not True and must_hold(claim):
                taken = [b for b, got in zip(claim.budgets, answer[len(answer) - len(claim.budgets) :], strict=True) if got == 1]
                commands += _release(claim if is_added else claim._replace(contacts=()), taken, now)
            if is_added and answer[0] > MOST_BYTES:
                key = contacts_key(customer_key(claim.customer_id))
                commands.append(encode("EVAL", COMPACT, "1", key, str(KEPT_BYTES), str(KEPT_RESPONSES), str(IMPRESSION)))
        await self._link.ask(b"".join(commands), len(commands))

    async def release(self, claims: Sequence[Claim], now: float) -> None:
        """Take back whole claims. Raises DependencyFailed."""
        commands = [command for claim in claims for command in _release(claim, claim.budgets, now)]
        await self._link.ask(b"".join(commands), len(commands))

    async def record(self, outcomes: Sequence[OutcomeRecord], budgets: Sequence[Budget] = ()) -> None:
        """Outcomes become contacts of the customers whose decisions they name. Raises DependencyFailed."""
        for start in range(0, len(outcomes), RECORDED_AT_ONCE):
            await self._record(outcomes[start : start + RECORDED_AT_ONCE], budgets)

    async def _record(self, outcomes: Sequence[OutcomeRecord], budgets: Sequence[Budget]) -> None:
        customers = await self._customers(outcomes)
        commands = []
        for outcome, customer in zip(outcomes, customers, strict=True):
            if customer is not None:
                commands += _added(customer, encode_contacts([as_contact(outcome)]))
            if type_code(outcome.type) == IMPRESSION:
                counted = [b for b in budgets if b.action == outcome.action_id and b.count == IMPRESSIONS]
                commands += [confirm_command(b, outcome.decision_id, outcome.at) for b in counted]
        await self._link.ask(b"".join(commands), len(commands))

    async def _customers(self, outcomes: Sequence[OutcomeRecord]) -> list[str | None]:
        """Whose decisions these are, now.

        None where an id that a client chose is not known any more, an erasure came after, or an alias leads to no end.
        """
        ids = list(dict.fromkeys(outcome.decision_id for outcome in outcomes))
        found = await self._link.ask(b"".join(encode("GET", decision_key(i)) for i in ids), len(ids))
        chosen = {i: reply.decode() for i, reply in zip(ids, found, strict=True) if reply is not None}
        keys = [chosen.get(o.decision_id) or key_in(o.decision_id) for o in outcomes]
        distinct = [key for key in dict.fromkeys(keys) if key is not None]
        commands = b"".join(encode("GET", alias_key_of(key)) for key in distinct) + ask_erased(distinct)
        replies = await self._link.ask(commands, 2 * len(distinct))
        owners, erased = replies[: len(distinct)], replies[len(distinct) :]
        led = {key: owner.decode() for key, owner in zip(distinct, owners, strict=True) if owner is not None}
        customers = await customers_of(self._link, led.values())
        moved = {key: customer_key(customers[owner]) if owner in customers else None for key, owner in led.items()}
        until = {key: until_in(reply) for key, reply in zip(distinct, erased, strict=True)}
        return [
            None if key is None or outcome.at <= until[key] else moved.get(key, key)
            for key, outcome in zip(keys, outcomes, strict=True)
        ]


def _append(claim: Claim, script: bytes) -> list[bytes]:
    """Commands; the first answers the new length, or 0 where the history is not what was read any more."""
    customer, entries = customer_key(claim.customer_id), encode_contacts(claim.contacts)
    if claim.seen is None:
        return _added(customer, entries)
    key = contacts_key(customer).encode()
    alias, length, last = alias_key_of(customer).encode(), b"%d" % len(claim.seen), claim.seen[-SIZE:]
    words = len(key), key, len(alias), alias, len(length), length, len(last), last, len(entries), entries
    return [script % words]


def _added(customer: str, entries: bytes) -> list[bytes]:
    """Two commands; the history is kept as long as a new one again."""
    key = contacts_key(customer).encode()
    return [ADD % (len(key), key, len(entries), entries), KEEP % (len(key), key)]


def _verdict(claim: Claim, answer: Sequence[Any]) -> bool | DependencyFailed:
    if claim.is_of_id_alone:
        return answer[0] if isinstance(answer[0], DependencyFailed) else True
    try:
        check(answer if claim.seen is not None else [answer[0], *answer[2:]])  # a Redis that is full still does an EXPIRE
    except DependencyRefused as error:
        return error
    except DependencyFailed as error:  # of what was done, nothing stays: only the contacts may be there, if nobody knows of them
        return answer[0] if isinstance(answer[0], DependencyFailed) else DependencyDown(str(error))
    return answer[0] > 0 and all(answer[len(answer) - len(claim.budgets) :] if claim.budgets else ())


def _release(claim: Claim, budgets: Iterable[Budget], now: float) -> list[bytes]:
    taken_back = encode_contacts([Contact(c.at, c.action_id, c.decision_id, c.placement, CANCELLED) for c in claim.contacts])
    commands = _added(customer_key(claim.customer_id), taken_back) if claim.contacts else []
    return commands + [release_command(budget, claim.decision_id, now) for budget in budgets]


def as_contact(outcome: OutcomeRecord) -> Contact:
    """What came of a decision, as a contact with its customer."""
    return Contact(outcome.at, outcome.action_id or "", outcome.decision_id, outcome.placement or "", type_code(outcome.type))


class MemoryContactHistory:
    """The twin in memory: same promises, no other process."""

    def __init__(self) -> None:
        self._contacts: dict[str, bytes] = {}
        self._owners: dict[str, str] = {}
        self._counters: defaultdict[str, int] = defaultdict(int)
        self._reserved: defaultdict[str, dict[str, float]] = defaultdict(dict)

    def contacts(self, customer_id: str) -> bytes:
        """The history of a customer, oldest contact first."""
        return self._contacts.get(customer_key(customer_id), b"")

    def exhausted(self, budgets: Sequence[Budget], now: float) -> tuple[Budget, ...]:
        """The budgets of which nothing is left."""
        return tuple(b for b in budgets if self._taken(b, now) >= b.at_most)

    def _taken(self, budget: Budget, now: float) -> int:
        counter, reserved = budget_keys(budget, now)
        return self._counters[counter] + sum(until > now for until in self._reserved[reserved].values())

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> list[bool]:
        return [self._claim(claim, now, reservation) for claim in claims]

    def _claim(self, claim: Claim, now: float, reservation: float) -> bool:
        key = customer_key(claim.customer_id)
        history = self._contacts.get(key, b"")
        if claim.seen not in (None, history) or self.exhausted(claim.budgets, now):
            return False
        self._append(key, encode_contacts(claim.contacts))
        self._owners[claim.decision_id] = key
        for budget in claim.budgets:
            counter, reserved = budget_keys(budget, now)
            if budget.count == DECISIONS:
                self._counters[counter] += 1
            else:
                self._reserved[reserved][claim.decision_id] = now + (claim.reservation or reservation)
        return True

    def _append(self, key: str, entries: bytes) -> None:
        grown = self._contacts.get(key, b"") + entries
        self._contacts[key] = compacted(grown) if len(grown) > MOST_BYTES else grown

    async def release(self, claims: Sequence[Claim], now: float) -> None:
        for claim in claims:
            taken_back = [Contact(c.at, c.action_id, c.decision_id, c.placement, CANCELLED) for c in claim.contacts]
            self._append(customer_key(claim.customer_id), encode_contacts(taken_back))
            for budget in claim.budgets:
                counter, reserved = budget_keys(budget, now)
                if budget.count == DECISIONS:
                    self._counters[counter] -= 1
                else:
                    self._reserved[reserved].pop(claim.decision_id, None)

    async def record(self, outcomes: Sequence[OutcomeRecord], budgets: Sequence[Budget] = ()) -> None:
        for outcome in outcomes:
            key = self._owners.get(outcome.decision_id) or key_in(outcome.decision_id)
            if key is not None:
                self._append(key, encode_contacts([as_contact(outcome)]))
            for budget in budgets:
                if type_code(outcome.type) == IMPRESSION and (budget.action, budget.count) == (outcome.action_id, IMPRESSIONS):
                    self._confirm(budget, outcome)

    def _confirm(self, budget: Budget, outcome: OutcomeRecord) -> None:
        (counter, reserved), before = budget_keys(budget, outcome.at), budget_keys(budget, outcome.at - DAY_S)
        if self._reserved[before[1]].get(outcome.decision_id, 0.0) > outcome.at:
            counter = before[0]
        for key in (reserved, before[1]):
            self._reserved[key].pop(outcome.decision_id, None)
        self._counters[counter] += 1
