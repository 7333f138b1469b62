"""What is known of customers: from Redis in one round trip, or from memory."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, cast

from features.contract import Contract, ContractError
from features.layout import CustomerLayout
from features.live import LiveFeatures
from service.catalog.entities import Scalar
from service.catalog.policies import Budget, Purpose
from service.decision.entities import UNKNOWN_CUSTOMER, CustomerState
from service.errors import DependencyFailed
from service.ids import customer_key
from service.logs import logger
from service.ports import EMPTIED, NO_TERMS, Reading, Terms
from service.stores.aliases import ENDLESS, MOST_HOPS, alias_key_of, end_of
from service.stores.budgets import budget_keys, is_exhausted, read_commands
from service.stores.completeness import COMPLETE, is_complete, mark_of, set_complete
from service.stores.consents import MemoryConsents, consent_values, consents_command, denied
from service.stores.contact_history import MemoryContactHistory, contacts_key
from service.stores.links import Link
from service.stores.live_features import live_key, state_in
from service.stores.resp import bulk, encode, get

NOTHING_KNOWN = CustomerState({})


class RedisCustomerReader:
    """Reads features in Feast's layout, what events have fed, contacts, and budgets, in one round trip for a whole batch.

    What events feed is worked out from the customer's state as of now: in Feast's layout it is as of the last event.
    """

    def __init__(self, link: Link, contract: Contract, nothing_written: Callable[[], bool], *, in_parts: bool = False) -> None:
        """`nothing_written` is asked where Redis has lost its mark: whether that does not matter.

        `in_parts`: where some nodes of a cluster do not answer, or something of a customer is malformed, that is unknown, and the
        rest is read all the same.
        """
        self._link = link
        self._is_strict = not in_parts
        self._has_warned = False  # of what is malformed
        self._in_parts = in_parts and link.has_slots
        self._has_lost = False  # as the last read found it
        self._nothing_written = nothing_written
        self._layout = layout = CustomerLayout(contract.batch)
        self._live = LiveFeatures(contract)
        self._command = b"*%d\r\n%b" % (2 + len(layout.fields), bulk("HMGET"))
        self._fields = b"".join(map(bulk, layout.fields))

    async def begin(self) -> bool:
        """Mark an empty Redis as complete while nothing was written; whether it is complete. Raises DependencyFailed."""
        return await is_complete(self._link) or await self._is_new()

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        """One state per id, in order. Raises DependencyFailed."""
        reading = await self._read(customer_ids, now, terms)
        if reading.owners:
            reading = await self._of_owners(customer_ids, reading, now, terms.purposes)
        self._has_lost = reading.is_doubted
        return reading

    async def _read(self, customer_ids: Sequence[str], now: float, terms: Terms) -> Reading:
        """What is kept of each id itself; `owners` say whom it leads to at once."""
        budgets, purposes = terms
        distinct = list(dict.fromkeys(customer_ids))
        marks = self._marks(distinct, budgets, now)
        commands = [
            *(self._commands(c, purposes) for c in distinct),
            *(read_commands(budget, now) for budget in budgets),
            *(encode("GET", mark) for mark in marks),
        ]
        width = 3 + bool(self._live) + bool(purposes)
        count = width * len(distinct) + 2 * len(budgets) + len(marks)
        asked = b"".join(commands)
        replies = iter(await (self._ask_in_parts(asked, count) if self._in_parts else self._link.ask(asked, count)))
        found = {customer: [*islice(replies, width)] for customer in distinct}
        used_up = {budget for budget in budgets if self._is_used_up(budget, *islice(replies, 2))}
        states = {customer: self._state(customer, known, now, purposes) for customer, known in found.items()}
        there = list(replies)
        has_lost = None in there and not await self._is_new()
        if has_lost:
            for (customers, doubtful), mark in zip(marks.values(), there, strict=True):
                if mark is None:
                    states |= {customer: self._doubted(states[customer], purposes) for customer in customers}
                    used_up |= set(doubtful)
        exhausted = tuple(budget for budget in budgets if budget in used_up)
        aliases = {customer: known[0] for customer, known in found.items() if states[customer] is not UNKNOWN_CUSTOMER}
        owners = {customer: owner.decode() for customer, owner in aliases.items() if owner is not None}
        return Reading([states[c] for c in customer_ids], exhausted, owners, has_lost)

    def _marks(self, customers: list[str], budgets: Sequence[Budget], now: float) -> Mapping[str, tuple[list[str], list[Budget]]]:
        """The marks that must be there, with the customers and budgets that are in doubt without each."""
        if not self._link.has_slots:
            return {COMPLETE: (customers, [*budgets])}
        marks: defaultdict[str, tuple[list[str], list[Budget]]] = defaultdict(lambda: ([], []))
        for customer in customers:
            marks[mark_of(self._link, contacts_key(customer_key(customer)))][0].append(customer)
        for budget in budgets:
            marks[mark_of(self._link, budget_keys(budget, now)[0])][1].append(budget)
        return marks

    def _commands(self, customer: str, purposes: Sequence[Purpose]) -> bytes:
        """Whom it is an alias of, its features, its contacts, what events have fed where they feed anything, its consents."""
        key = customer_key(customer)
        known = get(alias_key_of(key)) + self._features(customer) + get(contacts_key(key))
        live = get(live_key(customer)) if self._live else b""
        return known + live + (consents_command(customer, purposes) if purposes else b"")

    async def _ask_in_parts(self, commands: bytes, count: int) -> Sequence[Any]:
        """Replies, with failures among them. Raises DependencyFailed where there is nothing else."""
        replies = await self._link.ask(commands, count, raw=True)
        failures = [reply for reply in replies if isinstance(reply, DependencyFailed)]
        if len(failures) == count:
            raise failures[0]
        return replies

    def _is_used_up(self, budget: Budget, *replies: Any) -> bool:  # noqa: ANN401  # whatever Redis says
        return (self._in_parts and _has_failed(replies)) or is_exhausted(budget, *replies)

    async def _of_owners(self, customer_ids: Sequence[str], first: Reading, now: float, purposes: tuple[Purpose, ...]) -> Reading:
        """The same, with what is known of the customers that some ids are aliases of.

        Of an alias that leads to no end nothing is known: what it was told may lie under any of the ids that it leads to.
        """
        steps, known, is_doubted = dict(first.owners), dict[str, CustomerState](), first.is_doubted
        for _ in range(MOST_HOPS):
            whom = [name for name in dict.fromkeys(steps.values()) if name not in known]
            if not whom:
                break
            further = await self._of_some(whom, now, purposes)
            known |= zip(whom, further.states, strict=True)
            steps |= further.owners
            is_doubted = is_doubted or further.is_doubted
        ends = {alias: end for alias in first.owners if (end := end_of(alias, steps)) in known}
        owned = {alias: known[end] for alias, end in ends.items()}
        owned |= {alias: self._unknown(f"{ENDLESS} - of `{alias}`") for alias in first.owners if alias not in ends}
        states = [owned.get(c, state) for c, state in zip(customer_ids, first.states, strict=True)]
        return Reading(states, first.exhausted, ends, is_doubted)

    async def _of_some(self, customer_ids: Sequence[str], now: float, purposes: tuple[Purpose, ...]) -> Reading:
        try:
            return await self._read(customer_ids, now, Terms(purposes=purposes))
        except DependencyFailed:
            if not self._in_parts:
                raise
            return Reading([UNKNOWN_CUSTOMER] * len(customer_ids))

    async def _is_new(self) -> bool:
        if not self._nothing_written():
            return False
        await set_complete(self._link)
        return True

    def _doubted(self, state: CustomerState, purposes: Sequence[Purpose]) -> CustomerState:
        """Without what Redis may have lost; features of a view may have been put back since."""
        if state is UNKNOWN_CUSTOMER:
            return state
        names, told = self._live.names, denied(purposes)
        known = {name: value for name, value in state.values.items() if name not in names}
        is_unread = bool(self._layout.fields) and known.keys() <= told.keys()
        return CustomerState({**known, **told}, (*state.stale, *names), None, is_unread)

    def _features(self, customer_id: str) -> bytes:
        if not self._layout.fields:
            return encode("PING")  # nothing to ask for, but a reply to count on
        return self._command + bulk(self._layout.key(customer_id)) + self._fields

    def _state(self, customer_id: str, replies: Sequence[Any], now: float, purposes: Sequence[Purpose]) -> CustomerState:
        if self._in_parts and _has_failed(replies):
            return UNKNOWN_CUSTOMER
        _, features, contacts, *further = replies
        try:
            values, stale = self._layout.decode(features, now) if self._layout.fields else ({}, ())
            if self._live:
                values |= self._live.values(state_in(further[0]), now)
        except (ContractError, DependencyFailed) as error:
            return self._unknown(f"{error} - of customer `{customer_id}`", error)
        if purposes:
            values |= consent_values(purposes, further[-1])
        return CustomerState(cast("dict[str, Scalar]", values), stale, contacts or b"")

    def _unknown(self, problem: str, error: Exception | None = None) -> CustomerState:
        """Instead of a customer of whom something is malformed. Raises DependencyFailed where all is wanted or nothing."""
        if self._is_strict:
            raise DependencyFailed(problem) from error
        if not self._has_warned:  # once: it comes again with each request
            self._has_warned = True
            logger.warning("answered without what is known of a customer: %s", problem)
        return UNKNOWN_CUSTOMER

    def status(self) -> Mapping[str, Any]:
        """Whether Redis answers, and what is wrong with it: also where it answers, and was emptied."""
        return {"answers": self._link.problem is None, "problem": self._link.problem or (EMPTIED if self._has_lost else None)}

    async def close(self) -> None:
        """Release the connection."""
        await self._link.close()


def _has_failed(replies: Sequence[Any]) -> bool:
    return any(isinstance(reply, Exception) for reply in replies)


class MemoryCustomerReader:
    """The twin in memory: states by customer id, contacts and budgets from a history in memory."""

    def __init__(
        self,
        states: Mapping[str, CustomerState],
        history: MemoryContactHistory | None = None,
        consents: MemoryConsents | None = None,
    ) -> None:
        self._states = states
        self._consents = consents or MemoryConsents()
        self._history = history or MemoryContactHistory()

    async def begin(self) -> bool:
        """Nothing can be missing."""
        return True

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        known = [self._states.get(c, NOTHING_KNOWN) for c in customer_ids]
        states = [
            CustomerState({**s.values, **self._consents.values(c, terms.purposes)}, s.stale, self._history.contacts(c))
            for s, c in zip(known, customer_ids, strict=True)
        ]
        return Reading(states, self._history.exhausted(terms.budgets, now))

    def status(self) -> Mapping[str, Any]:
        return {"answers": True, "problem": None}

    async def close(self) -> None:
        """Nothing is open."""
