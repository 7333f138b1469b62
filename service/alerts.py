"""Who has to know: alerts are judged when an event's features are in place, written down, then handed to the stream.

Nothing here calls anybody. Whoever acts reads the stream, or `nextbest alerts`.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.catalog.alerting import CHANNEL, EVENT, TYPE, AlertRule
from service.catalog.entities import Scalar
from service.decision.entities import CustomerState
from service.decision.records import AlertRaised, EventRecord
from service.errors import DependencyFailed, LogUnavailable
from service.ids import alert_id_of
from service.metrics import Metrics
from service.ports import AlertStore, CustomerReader, DecisionLog


class Case(NamedTuple):
    """An alert that an event may raise. `values` are the event's, as conditions read them."""

    rule: AlertRule
    record: EventRecord
    values: Mapping[str, Scalar]

    def because(self, customer: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What the condition read, by qualified name."""
        known = {f"event.{name}": value for name, value in self.values.items()}
        known |= {f"customer.{name}": value for name, value in customer.items()}
        return {name: known[name] for name in self.rule.reads if name in known}


class _Known(NamedTuple):
    """What could be read of customers, and whom the ids lead to."""

    states: Mapping[str, CustomerState] = {}
    owners: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class AlertDesk:
    """Judges events against the alerts of a home, by event type. `clock` tells seconds since 1970 UTC."""

    rules: Mapping[str, Sequence[AlertRule]]
    reader: CustomerReader
    log: DecisionLog
    store: AlertStore
    metrics: Metrics
    clock: Callable[[], float]

    async def look(self, records: Sequence[EventRecord], *, fed: bool) -> None:
        """Judge new events. `fed`: features know of them. Raises nothing: what fails is counted."""
        cases = self._cases(records)
        if not cases:
            return
        known = await self._read([case.record.customer_id for case in cases if case.rule.features or case.rule.once_per])
        told = await self._remembered([case for case in cases if self._holds(case, known, fed=fed)])
        await self._hand_over(await self._first([self._raised(case, known) for case in told]))

    def _cases(self, records: Sequence[EventRecord]) -> list[Case]:
        """Those that are not settled without the customer."""
        found = []
        for record in records:
            for rule in self.rules.get(record.type, ()):
                case = Case(rule, record, _event_values(record))
                if rule.features or rule.holds(case.values, {}):
                    found.append(case)
        return found

    async def _read(self, customers: Sequence[str]) -> _Known:
        """One round trip for all; nothing where the store does not answer."""
        names = list(dict.fromkeys(customers))
        if not names:
            return _Known()
        try:
            reading = await self.reader.read(names, self.clock())
        except DependencyFailed:
            return _Known()
        return _Known(dict(zip(names, reading.states, strict=True)), reading.owners)

    def _holds(self, case: Case, known: _Known, *, fed: bool) -> bool:
        if not case.rule.features:
            return True  # as the event said
        state = known.states.get(case.record.customer_id)
        trusted = fed and state is not None and state.contacts is not None  # an emptied store gives no contacts
        if state is None or state.is_unread or (case.rule.live and not trusted):
            self.metrics.alerts.labels("unjudged").inc()
            return False
        return case.rule.holds(case.values, state.values)

    async def _remembered(self, cases: Sequence[Case]) -> Sequence[Case]:
        """Without events from before their customer was erased, which a device may send late; all where nobody can tell."""
        if not cases:
            return cases
        try:
            until = await self.store.erased_until([case.record.customer_id for case in cases])
        except DependencyFailed:
            return cases
        return [case for case, moment in zip(cases, until, strict=True) if case.record.counts_from > moment]

    def _raised(self, case: Case, known: _Known) -> AlertRaised:
        rule, record = case.rule, case.record
        state = known.states.get(record.customer_id)
        return AlertRaised(
            alert_id_of(rule.name, record.event_id), rule.name, rule.severity, rule.route,
            known.owners.get(record.customer_id, record.customer_id), record.event_id, record.type, self.clock(),
            case.because({} if state is None else state.values), rule.once_per,
        )  # fmt: skip

    async def _first(self, alerts: Sequence[AlertRaised]) -> list[AlertRaised]:
        """Without those that a customer has raised lately; all where the store does not answer: better twice than never."""
        limited = [alert for alert in alerts if alert.once_per is not None]
        if not limited:
            return list(alerts)
        try:
            first = await self.store.first(limited)
        except DependencyFailed:
            return list(alerts)
        held = {alert.alert_id for alert, is_first in zip(limited, first, strict=True) if not is_first}
        self.metrics.alerts.labels("held").inc(len(held))
        return [alert for alert in alerts if alert.alert_id not in held]

    async def _hand_over(self, alerts: Sequence[AlertRaised]) -> None:
        """To the log first, then to the stream."""
        if not alerts:
            return
        try:
            await self.log.append_alerts(alerts)
        except LogUnavailable:
            self.metrics.alerts.labels("unwritten").inc(len(alerts))
            with contextlib.suppress(DependencyFailed):  # else the customer's next ones go the same way, for all of `once_per`
                await self.store.release([alert for alert in alerts if alert.once_per is not None])
            return
        self.metrics.alerts.labels("raised").inc(len(alerts))
        try:
            await self.store.publish(alerts)
        except DependencyFailed:
            self.metrics.alerts.labels("unsent").inc(len(alerts))


def by_type(rules: Sequence[AlertRule]) -> dict[str, list[AlertRule]]:
    """The alerts that an event of a type may raise."""
    found: defaultdict[str, list[AlertRule]] = defaultdict(list)
    for rule in rules:
        for one in dict.fromkeys(rule.on):
            found[one].append(rule)
    return dict(found)


def _event_values(record: EventRecord) -> dict[str, Scalar]:
    """As conditions read them: a truth is 1 or 0."""
    own = {name: float(value) if isinstance(value, bool) else value for name, value in record.properties.items()}
    return {**own, TYPE.removeprefix(EVENT): record.type, CHANNEL.removeprefix(EVENT): record.channel}
