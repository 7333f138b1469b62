"""`nextbest rebuild`: everything in Redis again, from the log, the lake and the offline tables; while the service goes on.

The log knows an event before Redis does. So the marks of states are read first, then the log, and a state is written only where
its mark is still the same: what came in between has moved it, and that customer is taken once more.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from features.contract import LIVE_VIEW, Contract
from features.homes import home_contract
from features.layout import CustomerLayout
from features.live import LAST, Event, LiveFeatures
from features.materialize import materialize
from service.catalog.policies import DECISIONS, Budget
from service.catalog.validate import load_catalog
from service.decision.contacts import IMPRESSION, SERVED, SIZE, Contact, encode_contacts, type_code
from service.decision.records import IdentityRecord, OutcomeRecord, decode_lines, encode_line
from service.errors import NotReady
from service.ids import customer_key, key_in
from service.registry import Registry
from service.stores.aliases import alias_key
from service.stores.budgets import budget_keys
from service.stores.completeness import COMPLETE, set_complete
from service.stores.contact_history import KEPT_BYTES, as_contact, contacts_key
from service.stores.live_features import KEPT_S, MARK, live_key, new_state
from service.stores.redis_link import RedisLink
from service.stores.resp import encode
from training.decision_log import read_decisions
from training.event_history import fed, read_aliases, read_events

AT_ONCE = 1000  # customers in a round trip
ROUNDS = 20
TIMEOUT_MS = 60_000.0
STEPS = 4

Progress = Callable[[int, int], None]

# KEYS: state, Feast's hash. ARGV: the mark that was read, the new state, seconds to keep, then fields and values.
REPLACE = """
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
return 1
"""
# KEYS: contacts. ARGV: what was there, what shall be, seconds to keep.
REPLACE_CONTACTS = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


class RebuildReport(NamedTuple):
    """What Redis holds again: customers with features, with events, with contacts; budgets."""

    features: int
    events: int
    customers_of_events: int
    contacts: int
    budgets: int
    seconds: float


def rebuild(home: Path, redis_url: str, progress: Progress = lambda _done, _of: None) -> RebuildReport:
    """Put everything back. Raises DependencyFailed where Redis does not answer."""
    started = time.perf_counter()
    offline = (home / "features" / "offline").exists()
    features = max(materialize(home, redis_url).values(), default=0) if offline else 0
    progress(1, STEPS)
    events, customers, contacts, budgets = asyncio.run(_Rebuilding(home, redis_url).run(progress))
    return RebuildReport(features, events, customers, contacts, budgets, time.perf_counter() - started)


def unlink(home: Path, redis_url: str, alias: str, now: float, progress: Progress = lambda _done, _of: None) -> str:
    """Take a link back: write it down, forget both in Redis, and rebuild. Returns the customer. Raises NotReady.

    While it runs, caps count as reached and live features are missing for everybody.
    """
    customer = read_aliases(home).get(alias)
    if customer is None:
        raise NotReady(f"Expected an alias that is linked, got `{alias}`")
    folder = home / "log" / "identities"
    line = encode_line(msgspec.json.encode(IdentityRecord(alias, customer, now, linked=False)))
    write_segment(folder, f"{int(now * 1000):013d}-unlink-1.log", line)
    asyncio.run(_forget(redis_url, alias, customer))
    rebuild(home, redis_url, progress)
    return customer


async def _forget(redis_url: str, alias: str, customer: str) -> None:
    link = RedisLink(redis_url, timeout_ms=TIMEOUT_MS)
    names = [key for name in (alias, customer) for key in (live_key(name), contacts_key(customer_key(name)))]
    try:
        await link.ask(encode("DEL", COMPLETE, alias_key(alias), *names), 1)
    finally:
        await link.close()


def write_segment(folder: Path, name: str, data: bytes) -> None:
    """A finished segment of the log."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{name}"
    unfinished.write_bytes(data)
    unfinished.replace(folder / name)


class _Rebuilding:
    def __init__(self, home: Path, redis_url: str) -> None:
        self._home = home
        self._contract: Contract = home_contract(home)
        self._link = RedisLink(redis_url, timeout_ms=TIMEOUT_MS)

    async def run(self, progress: Progress) -> tuple[int, int, int, int]:
        try:
            await self._aliases()
            events, customers = await self._events()
            progress(2, STEPS)
            contacts = await self._contacts()
            progress(3, STEPS)
            budgets = await self._budgets()
            await set_complete(self._link)
            progress(4, STEPS)
        finally:
            await self._link.close()
        return events, customers, contacts, budgets

    async def _aliases(self) -> None:
        commands = [encode("SET", alias_key(alias), customer) for alias, customer in read_aliases(self._home).items()]
        await self._link.ask(b"".join(commands), len(commands))

    async def _events(self) -> tuple[int, int]:
        live, layout = LiveFeatures(self._contract), CustomerLayout(self._contract)
        if not live:
            return 0, 0
        marks: dict[str, bytes] = {}
        waiting: set[str] | None = None  # None: everybody
        for _ in range(ROUNDS):
            if waiting is None:
                marks = {}
            else:
                marks = await self._marks(sorted(waiting))
            by_customer: defaultdict[str, list[Event]] = defaultdict(list)
            for customer, event in fed(read_events(self._home), read_aliases(self._home)):
                if waiting is None or customer in waiting:
                    by_customer[customer].append(event)
            if waiting is None:
                everybody, count = list(by_customer), sum(map(len, by_customer.values()))
                # whoever has a state already has moved since it was lost: taken in the next round, with a mark
                held = {c for c, mark in (await self._marks(everybody)).items() if mark}
                waiting = held | await self._write(live, layout, {c: by_customer[c] for c in everybody if c not in held}, marks)
            else:
                waiting = await self._write(live, layout, by_customer, marks)
            if not waiting:
                break
        return count, len(everybody)

    async def _marks(self, customers: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for some in _slices(customers):
            commands = b"".join(encode("GETRANGE", live_key(c), "0", str(MARK - 1)) for c in some)
            found |= dict(zip(some, await self._link.ask(commands, len(some)), strict=True))
        return found

    async def _write(
        self, live: LiveFeatures, layout: CustomerLayout, events: dict[str, list[Event]], marks: dict[str, bytes]
    ) -> set[str]:
        """Those who moved meanwhile."""
        lost: set[str] = set()
        for some in _slices(list(events)):
            commands = []
            for customer in some:
                state = live.apply({}, events[customer])
                values = live.values(state, state[LAST])
                written = layout.encode(
                    LIVE_VIEW, {one.name: values.get(one.name) for one in live.features}, round(state[LAST] * 1e6)
                )
                pairs = [part for pair in written.items() for part in pair]
                key, mark = live_key(customer), marks.get(customer, b"")
                commands.append(
                    encode("EVAL", REPLACE, "2", key, layout.key(customer), mark, new_state(state), str(KEPT_S), *pairs)
                )
            done = await self._link.ask(b"".join(commands), len(commands))
            lost |= {customer for customer, held in zip(some, done, strict=True) if not held}
        return lost

    async def _contacts(self) -> int:
        """Everything that the log says happened between customers and actions, joined with what has been added since."""
        waiting = None
        everybody = 0
        for _ in range(ROUNDS):
            rebuilt = contacts_in(self._home)
            everybody = len(rebuilt) if waiting is None else everybody
            waiting = await self._write_contacts({key: rebuilt[key] for key in (rebuilt if waiting is None else waiting)})
            if not waiting:
                break
        return everybody

    async def _write_contacts(self, rebuilt: dict[str, bytes]) -> set[str]:
        lost: set[str] = set()
        for some in _slices(list(rebuilt)):
            there = await self._link.ask(b"".join(encode("GET", contacts_key(key)) for key in some), len(some))
            commands = [
                encode(
                    "EVAL",
                    REPLACE_CONTACTS,
                    "1",
                    contacts_key(key),
                    before or b"",
                    joined(rebuilt[key], before or b""),
                    str(KEPT_S),
                )
                for key, before in zip(some, there, strict=True)
            ]
            done = await self._link.ask(b"".join(commands), len(commands))
            lost |= {key for key, held in zip(some, done, strict=True) if not held}
        return lost

    async def _budgets(self) -> int:
        """Counters from the log; what was reserved and not confirmed is free again."""
        registry = Registry(self._home / "registry")
        revision = registry.current().catalog
        if revision is None:
            return 0
        budgets = load_catalog(registry.catalog(revision).document, self._contract).contact.budgets
        commands = [
            encode("SET", counter, str(count), "EX", str(KEPT_S)) for counter, count in budget_counts(self._home, budgets).items()
        ]
        await self._link.ask(b"".join(commands), len(commands))
        return len(budgets)


def _slices(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))


def contacts_in(home: Path) -> dict[str, bytes]:
    """Contact histories by the customer's key, oldest first, as the log has them."""
    owners: dict[str, str] = {}
    moved = {customer_key(alias): customer_key(customer) for alias, customer in read_aliases(home).items()}
    found: defaultdict[str, list[Contact]] = defaultdict(list)
    for logged in read_decisions(home):
        record = logged.record
        key = customer_key(record.customer_id)
        key = moved.get(key, key)
        if key_in(record.decision_id) is None:
            owners[record.decision_id] = key
        found[key] += [
            Contact(record.at, item.action_id, record.decision_id, placement.id, SERVED)
            for placement in record.placements if not placement.fallback
            for item in placement.items
        ]  # fmt: skip
    for outcome in read_outcomes(home):
        owner = key_in(outcome.decision_id) or owners.get(outcome.decision_id)
        if owner is not None:
            found[moved.get(owner, owner)].append(as_contact(outcome))
    return {key: encode_contacts(sorted(c, key=lambda one: one.at))[-KEPT_BYTES:] for key, c in found.items() if c}


def joined(rebuilt: bytes, added: bytes) -> bytes:
    """Two histories of one customer, each entry once, by moment."""
    both = np.frombuffer(rebuilt + added[: len(added) // SIZE * SIZE], f"V{SIZE}")
    entries = list(dict.fromkeys(both.tolist()))
    entries.sort(key=lambda entry: int.from_bytes(entry[:4], "little"))
    return b"".join(entries)[-KEPT_BYTES:]


def read_outcomes(home: Path) -> Iterator[OutcomeRecord]:
    """Live outcomes, oldest segment first."""
    decoder = msgspec.json.Decoder(OutcomeRecord)
    for path in sorted((home / "log" / "outcomes").rglob("*.log"), key=lambda one: one.name):
        for line in decode_lines(path.read_bytes()):
            if line.payload is not None:
                yield decoder.decode(line.payload)


def budget_counts(home: Path, budgets: Iterable[Budget]) -> dict[str, int]:
    """What is certainly used, by the key of the counter."""
    by_action: defaultdict[str, list[Budget]] = defaultdict(list)
    counts: defaultdict[str, int] = defaultdict(int)
    for budget in budgets:
        by_action[budget.action].append(budget)
    for logged in read_decisions(home) if by_action else ():
        for placement in logged.record.placements:
            for item in placement.items if not placement.fallback else ():
                for budget in by_action.get(item.action_id, ()):
                    if budget.count == DECISIONS:
                        counts[budget_keys(budget, logged.record.at)[0]] += 1
    for outcome in read_outcomes(home) if by_action else ():
        for budget in by_action.get(outcome.action_id or "", ()):
            if budget.count != DECISIONS and type_code(outcome.type) == IMPRESSION:
                counts[budget_keys(budget, outcome.at)[0]] += 1
    return counts
