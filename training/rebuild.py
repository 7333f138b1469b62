"""`nextbest rebuild`: everything in Redis again, from the log, the lake and the offline tables; while the service goes on.

It waits for a history of events that is taken in beside it.
"""

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from features.contract import Contract
from features.homes import home_contract
from features.materialize import materialize
from service.catalog.policies import DECISIONS, RESERVATION_S, Budget, counted_as, counted_once
from service.catalog.validate import load_catalog
from service.decision.contacts import (
    IMPRESSION,
    SERVED,
    Contact,
    Served,
    compacted,
    encode_contacts,
    entry_moment,
    is_outcome,
    is_served,
    split_entries,
    type_code,
)
from service.decision.records import ConsentRecord, DecisionRecord, IdentityRecord, OutcomeRecord
from service.errors import DependencyFailed, NotReady
from service.ids import customer_key, key_in
from service.registry import Registry
from service.stores.alert_stream import RedisAlerts, hold_commands
from service.stores.aliases import alias_key, aliases_key
from service.stores.budgets import DAY_S, budget_keys, day_of
from service.stores.completeness import mark_of, set_complete
from service.stores.consents import consent_text, consents_key, record_command, said_at
from service.stores.contact_history import CLIENTS_ID_S, as_contact, contacts_key, decision_key
from service.stores.erasures import erased_command
from service.stores.identities import UNBIND, joined_key
from service.stores.links import Link, open_link
from service.stores.live_features import KEPT_S, live_key
from service.stores.resp import encode
from training.alerts import read_alerts, still_held, still_open
from training.decision_log import each_once, read_decisions
from training.erasing import forget_features
from training.event_history import is_erased, read_aliases, read_erasures, read_links
from training.feeding import only_feeder, put_back
from training.in_force import InForce
from training.live_log import read_log, write_segment

AT_ONCE = 1000  # customers in a round trip
ROUNDS = 20
TIMEOUT_MS = 60_000.0
STEPS = 4

Part = TypeVar("Part")
Progress = Callable[[int, int], None]
Build = Callable[[Sequence[str]], Awaitable[list[bytes]]]  # a command for each of some customers

# KEYS: contacts. ARGV: what was there, what shall be, seconds to keep.
REPLACE_CONTACTS = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
"""
# KEYS: consents. ARGV: a purpose, what was said of it.
TAKE_BACK = "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end return 1"


class RebuildReport(NamedTuple):
    """What Redis holds again: customers with features, with events, with contacts; budgets; alerts that nobody has closed."""

    features: int
    events: int
    customers_of_events: int
    contacts: int
    budgets: int
    seconds: float
    alerts: int = 0


class Owner(NamedTuple):
    """Whose decision an id is that a client chose, and since when."""

    key: str
    at: float


class LoggedContacts(NamedTuple):
    """Histories by the customer's key, oldest contact first; owners by the decision's id."""

    histories: dict[str, bytes]
    owners: dict[str, Owner]


def rebuild(
    home: Path, redis_url: str, progress: Progress = lambda _done, _of: None, *, ids_kept_s: float = CLIENTS_ID_S
) -> RebuildReport:
    """Put everything back. `ids_kept_s`: how long the service knows ids. Raises DependencyFailed where Redis does not answer."""
    started = time.perf_counter()
    offline = (home / "features" / "offline").exists()
    features = max(materialize(home, redis_url).values(), default=0) if offline else 0
    forget_features(home, redis_url)
    progress(1, STEPS)
    with only_feeder(home):
        events, customers, contacts, budgets = asyncio.run(_Rebuilding(home, redis_url, ids_kept_s).run(progress))
    alerts = asyncio.run(_restore_alerts(home, redis_url, time.time()))
    return RebuildReport(features, events, customers, contacts, budgets, time.perf_counter() - started, alerts)


async def _restore_alerts(home: Path, redis_url: str, now: float) -> int:
    """How many alerts that nobody has closed are in the stream again; and who may not raise the same yet."""
    alerts = read_alerts(home)
    opened, held = still_open(alerts), still_held(alerts, now)
    link = open_link(redis_url, timeout_ms=TIMEOUT_MS)
    try:
        for some in _slices(opened):
            await RedisAlerts(link).publish(some)
        await link.ask(b"".join(hold_commands(alert, left) for alert, left in held), 2 * len(held))
    finally:
        await link.close()
    return len(opened)


def unlink(
    home: Path,
    redis_url: str,
    alias: str,
    now: float,
    progress: Progress = lambda _done, _of: None,
    *,
    ids_kept_s: float = CLIENTS_ID_S,
) -> str:
    """Take a link back: write it down, forget both in Redis, and rebuild. Returns the customer. Raises NotReady.

    While it runs, caps count as reached, consents as denied, live features are missing, and no ids are linked, for everybody.
    """
    customer = read_aliases(home).get(alias)
    if customer is None:
        raise NotReady(f"Expected an alias that is linked, got `{alias}`")
    write_segment(home, "identities", "unlink", [IdentityRecord(alias, customer, now, linked=False)], now)
    asyncio.run(_forget(redis_url, alias, customer))
    rebuild(home, redis_url, progress, ids_kept_s=ids_kept_s)
    return customer


async def _forget(redis_url: str, alias: str, customer: str) -> None:
    link = open_link(redis_url, timeout_ms=TIMEOUT_MS)
    names = [key for name in (alias, customer) for key in (live_key(name), contacts_key(customer_key(name)), consents_key(name))]
    marks = {mark_of(link, name) for name in names}
    commands = [encode("DEL", name) for name in (*marks, alias_key(alias), joined_key(alias, customer), *names)]
    commands.append(encode("SREM", aliases_key(customer), customer_key(alias)))
    try:
        await link.ask(b"".join(commands), len(commands))
    finally:
        await link.close()


class _Rebuilding:
    def __init__(self, home: Path, redis_url: str, ids_kept_s: float) -> None:
        self._home = home
        self._ids_kept_s = ids_kept_s
        self._contract: Contract = home_contract(home)
        self._link = open_link(redis_url, timeout_ms=TIMEOUT_MS)

    async def run(self, progress: Progress) -> tuple[int, int, int, int]:
        try:
            await self._erasures()
            await self._aliases()
            await self._consents()
            await self._leftovers()
            events, customers = await put_back(self._home, self._link)
            progress(2, STEPS)
            contacts = await self._contacts()
            progress(3, STEPS)
            budgets = await self._budgets()
            await set_complete(self._link)
            progress(4, STEPS)
        finally:
            await self._link.close()
        return events, customers, contacts, budgets

    async def _erasures(self) -> None:
        """Until when ids are erased, and what came in of them since from before that, while Redis did not know."""
        erased, told = read_erasures(self._home), set(self._consents_by_owner())
        for some in _slices([*erased.items()]):
            await self._link.ask(b"".join(erased_command(*one) for one in some), len(some))
            found = await self._link.ask(b"".join(encode("HGETALL", consents_key(name)) for name, _ in some), len(some))
            stale = [
                encode("EVAL", TAKE_BACK, "1", consents_key(name), purpose, text)
                for (name, until), pairs in zip(some, found, strict=True)
                for purpose, text in zip(pairs[::2], pairs[1::2], strict=True)
                if said_at(text) <= until and (name, purpose.decode(), text.decode()) not in told
            ]
            await self._link.ask(b"".join(stale), len(stale))

    async def _aliases(self) -> None:
        aliases, circles = read_links(self._home)
        for some in _slices([*aliases.items()]):
            commands = [
                encode("SET", alias_key(alias), customer) + encode("SADD", aliases_key(customer), customer_key(alias))
                for alias, customer in some
            ]
            await self._link.ask(b"".join(commands), 2 * len(commands))
        names = [name for name in circles if name not in aliases]
        found = await self._link.ask(b"".join(encode("GET", alias_key(name)) for name in names), len(names))
        owners = {name: owner.decode() for name, owner in zip(names, found, strict=True) if owner is not None}
        wrong = [  # as an earlier version left them
            encode("EVAL", UNBIND, "1", alias_key(name), owner)
            for name, owner in owners.items() if aliases.get(owner, owner) == name
        ]  # fmt: skip
        await self._link.ask(b"".join(wrong), len(wrong))

    async def _consents(self) -> None:
        """Each is written where it is the newest, so that what comes in meanwhile holds, and the order does not matter."""
        aliases = read_aliases(self._home)
        for some in _slices([*latest_consents(self._home)]):
            commands = [record_command(one, aliases.get(one.customer_id, one.customer_id)) for one in some]
            await self._link.ask(b"".join(commands), len(commands))

    async def _leftovers(self) -> None:
        """What came in of an alias while Redis did not know that it is one: the next link of the two would give it again.

        What was said is put back from the log, and so are events, of which `put_back` takes care. Contacts are the customer's
        from now on: some may be of decisions that are not written down yet.
        """
        aliases, erased = read_aliases(self._home), read_erasures(self._home)
        for some in _slices([*aliases.items()]):
            await self._link.ask(b"".join(encode("DEL", consents_key(alias)) for alias, _ in some), len(some))
            keys = [customer_key(alias) for alias, _ in some]
            found = await self._link.ask(b"".join(encode("GET", contacts_key(key)) for key in keys), len(keys))
            for (alias, customer), key, left in zip(some, keys, found, strict=True):
                if left:
                    await self._give(customer_key(customer), since(left, erased.get(alias)))
                    await self._link.ask(_replacing(key, left, b""), 1)

    async def _give(self, key: str, left: bytes) -> None:
        """Contacts that lay elsewhere. An entry that is there already is the same: somebody was interrupted after this."""
        for _ in range(ROUNDS):
            [before] = await self._link.ask(encode("GET", contacts_key(key)), 1)
            both = Counter(split_entries(before or b"")) | Counter(split_entries(left))
            entries = sorted(both.elements(), key=entry_moment)
            if await self._link.ask(_replacing(key, before or b"", compacted(b"".join(entries))), 1) == [1]:
                return
        raise DependencyFailed("Expected a history to stay as it is for a moment, found one that never did")

    def _consents_by_owner(self) -> Iterator[tuple[str, str, str]]:
        """Customer, purpose, and what `_consents` may leave there."""
        aliases = read_aliases(self._home)
        for one in latest_consents(self._home):
            yield aliases.get(one.customer_id, one.customer_id), one.purpose, consent_text(one)

    async def _write(self, names: Sequence[str], build: Build) -> set[str]:
        """Those whose command did not hold, since they moved meanwhile."""
        lost: set[str] = set()
        for some in _slices(names):
            commands = await build(some)
            done = await self._link.ask(b"".join(commands), len(commands))
            lost |= {name for name, held in zip(some, done, strict=True) if not held}
        return lost

    async def _contacts(self) -> int:
        """Everything that the log says happened between customers and actions, joined with what has been added since."""
        rebuilt, chosen = logged_contacts(self._home)
        erased = {customer_key(name): at for name, at in read_erasures(self._home).items()}
        await self._owners(chosen)
        waiting, everybody = {*rebuilt, *erased}, len(rebuilt)
        for _ in range(ROUNDS):

            async def build(keys: Sequence[str], rebuilt: Mapping[str, bytes] = rebuilt) -> list[bytes]:
                there = await self._link.ask(b"".join(encode("GET", contacts_key(key)) for key in keys), len(keys))
                return [
                    _replacing(key, before or b"", joined(rebuilt.get(key, b""), since(before or b"", erased.get(key))))
                    for key, before in zip(keys, there, strict=True)
                ]

            waiting = await self._write(sorted(waiting), build)
            if not waiting:
                return everybody
            rebuilt = contacts_in(self._home)
        raise DependencyFailed(f"Expected histories to stay as they are for a moment, found {len(waiting)} that never did")

    async def _owners(self, chosen: Mapping[str, Owner]) -> None:
        """Whose decisions ids are that clients chose: outcomes name nothing else. The service may have told it meanwhile."""
        now = time.time()
        left = [(name, owner.key, math.ceil(owner.at + self._ids_kept_s - now)) for name, owner in chosen.items()]
        for some in _slices([one for one in left if one[2] > 0]):
            commands = [encode("SET", decision_key(name), key, "EX", str(seconds), "NX") for name, key, seconds in some]
            await self._link.ask(b"".join(commands), len(commands))

    async def _budgets(self) -> int:
        """Counters from the log; what was reserved and not confirmed is free again.

        The service may go on counting while the log is read: what is counted after the look at Redis is left as it is.
        """
        registry = Registry(self._home / "registry")
        revision = registry.current().catalog
        if revision is None:
            return 0
        catalog = load_catalog(registry.catalog(revision).document, self._contract)
        budgets = catalog.budgets
        now = time.time()
        before = await read_counters(self._link, budgets, now)
        held = InForce(registry, self._contract)
        counts = budget_counts(self._home, budgets, now, catalog.contact.reservation, in_force=held)
        commands = counters_put_right(before, counts)
        await self._link.ask(b"".join(commands), len(commands))
        return len(counted_once(budgets))


def _slices(names: Sequence[Part]) -> Iterator[Sequence[Part]]:
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))


def _replacing(key: str, before: bytes, wanted: bytes) -> bytes:
    """One command that puts a history in the place of what is there."""
    return encode("EVAL", REPLACE_CONTACTS, "1", contacts_key(key), before, wanted, str(KEPT_S))


def latest_consents(home: Path) -> Iterable[ConsentRecord]:
    """What each id said last of each purpose; of a consent and a denial at one moment, the denial."""
    latest: dict[tuple[str, str], ConsentRecord] = {}
    erased = read_erasures(home)
    for record in read_log(home, "consents", ConsentRecord):
        if is_erased(erased, record.customer_id, record.at):
            continue
        before = latest.get((record.customer_id, record.purpose))
        if before is None or (record.at, not record.given) >= (before.at, not before.given):
            latest[record.customer_id, record.purpose] = record
    return latest.values()


def contacts_in(home: Path) -> dict[str, bytes]:
    """Contact histories by the customer's key, oldest first, as the log has them."""
    return logged_contacts(home).histories


def logged_contacts(home: Path) -> LoggedContacts:
    """What the log says happened between customers and actions."""
    owners: dict[str, Owner] = {}
    moved = {customer_key(alias): customer_key(customer) for alias, customer in read_aliases(home).items()}
    erased = {customer_key(name): at for name, at in read_erasures(home).items()}
    found: defaultdict[str, list[Contact]] = defaultdict(list)
    for logged in each_once(read_decisions(home, forgotten=True)):
        record = logged.record
        key = customer_key(record.customer_id)
        if key_in(record.decision_id) != key:
            owners[record.decision_id] = Owner(key, record.at)
        if is_erased(erased, key, record.at):
            continue
        found[moved.get(key, key)] += [
            Contact(record.at, item.action_id, record.decision_id, placement.id, SERVED)
            for placement in record.placements if not placement.fallback
            for item in placement.items
        ]  # fmt: skip
    for outcome in timely_outcomes(home):
        known = owners.get(outcome.decision_id)
        owner = known.key if known else key_in(outcome.decision_id)
        if owner is not None and not is_erased(erased, owner, outcome.at):
            found[moved.get(owner, owner)].append(as_contact(outcome))
    histories = {key: compacted(encode_contacts(sorted(c, key=lambda one: one.at))) for key, c in found.items() if c}
    return LoggedContacts(histories, owners)


def timely_outcomes(home: Path) -> Iterator[OutcomeRecord]:
    """What contacts and budgets know: every outcome that was not late, once."""
    known: set[str] = set()
    for outcome in read_log(home, "outcomes", OutcomeRecord):
        if not outcome.late and outcome.outcome_id not in known:
            known.add(outcome.outcome_id)
            yield outcome


def since(history: bytes, moment: float | None) -> bytes:
    """What was added of after a moment; all where there is none."""
    if moment is None:
        return history
    last = math.ceil(moment)  # as moments of contacts are kept
    return b"".join(entry for entry in split_entries(history) if entry_moment(entry) > last)


def joined(rebuilt: bytes, added: bytes) -> bytes:
    """Two histories of one customer, by moment. What was served stands once, as it was added, not as it was logged.

    Of outcomes that look alike, as two of one second do, there are as many as in the history that has more of them.
    """
    served, entries = Served(added), split_entries(added)
    known = Counter(entries)
    entries = [*dict.fromkeys(entries), *(entry for entry in (known - Counter({*known})).elements() if is_outcome(entry))]
    entries += (Counter(filter(is_outcome, split_entries(rebuilt))) - known).elements()
    new = (served.with_new(entry) for entry in split_entries(rebuilt) if is_served(entry))
    entries += dict.fromkeys(entry for entry in new if entry is not None and entry not in known)
    by_moment = sorted(entries, key=entry_moment)
    return compacted(b"".join(by_moment))


async def read_counters(link: Link, budgets: Iterable[Budget], now: float) -> dict[str, int]:
    """What Redis counts of each budget at this moment, by the key of the counter. Raises DependencyFailed."""
    keys = [*dict.fromkeys(budget_keys(budget, now)[0] for budget in budgets)]
    replies = await link.ask(b"".join(encode("GET", key) for key in keys), len(keys))
    return {key: int(found or 0) for key, found in zip(keys, replies, strict=True)}


def counters_put_right(before: Mapping[str, int], counts: Mapping[str, int]) -> list[bytes]:
    """Commands for the counters of the log. `before`: those that somebody may still add to, as they were when `counts` end."""
    moved = [encode("INCRBY", key, str(counts.get(key, 0) - count)) for key, count in before.items()]
    kept = [encode("EXPIRE", key, str(KEPT_S)) for key in before]
    rest = [encode("SET", key, str(count), "EX", str(KEPT_S)) for key, count in counts.items() if key not in before]
    return [*moved, *kept, *rest]


def budget_counts(
    home: Path, budgets: Iterable[Budget], until: float = math.inf, reservation: float = RESERVATION_S,
    *, in_force: InForce | None = None,
) -> dict[str, int]:  # fmt: skip
    """What is certainly used, by the key of the counter, of what was decided or taken in until then (seconds since 1970 UTC).

    `in_force`: which of them held when; all of them always where it is None. An impression whose decision had reserved it before
    midnight, for `reservation` seconds, counts on the day of the decision.
    """
    by_action: defaultdict[str, list[Budget]] = defaultdict(list)
    counts: Counter[str] = Counter()
    reserved: dict[tuple[str, str], float] = {}  # over midnight, by decision and action
    for budget in counted_once(budgets):
        by_action[budget.action].append(budget)
    for logged in each_once(read_decisions(home, forgotten=True)) if by_action else ():
        held = in_force.for_decision(logged.record) if in_force else None
        for action in _served_in(logged.record) if logged.record.at <= until else ():
            for budget in by_action.get(action, ()):
                if held is not None and counted_as(budget) not in held:
                    continue
                if budget.count == DECISIONS:
                    counts[budget_keys(budget, logged.record.at)[0]] += 1
                elif budget.per_day and day_of(logged.record.at) != day_of(logged.record.at + reservation):
                    reserved[logged.record.decision_id, action] = logged.record.at
    for outcome in timely_outcomes(home) if by_action else ():
        if outcome.received_at <= until and type_code(outcome.type) == IMPRESSION:
            decided = reserved.pop((outcome.decision_id, outcome.action_id or ""), -math.inf)
            is_of_before = outcome.at < decided + reservation and day_of(decided) == day_of(outcome.at - DAY_S)
            held = in_force.for_impression(outcome.received_at) if in_force else None
            seen = [
                budget for budget in by_action.get(outcome.action_id or "", ())
                if budget.count != DECISIONS and (held is None or counted_as(budget) in held)
            ]  # fmt: skip
            counts.update(budget_keys(budget, decided if is_of_before else outcome.at)[0] for budget in seen)
    return counts


def _served_in(record: DecisionRecord) -> set[str]:
    """The actions of a decision, each once, in however many placements it stands: of a budget it is one decision."""
    return {item.action_id for placement in record.placements if not placement.fallback for item in placement.items}
