"""`nextbest alerts sweep`: alerts that no event raises, judged for every customer: a batch prediction, a value that grew old."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from features.contract import Contract
from features.event_types import home_event_types
from features.homes import home_contract
from features.offline import read_view, used_views
from service.catalog.alerting import CUSTOMER, AlertRule, home_alerts
from service.decision.entities import CustomerState
from service.decision.records import AlertRaised
from service.errors import NotReady
from service.ids import alert_id_of
from service.stores.alert_stream import RedisAlerts
from service.stores.completeness import nothing_written
from service.stores.customer_reader import RedisCustomerReader
from service.stores.links import open_link
from training.alerts import KIND, read_alerts
from training.event_history import read_aliases, read_events
from training.live_log import write_segment

AT_ONCE = 1000  # customers in a round trip
TIMEOUT_MS = 60_000.0


class SweepReport(NamedTuple):
    """How many customers were looked at, and of the alerts that hold for them, how many are new."""

    alerts: int
    customers: int
    raised: int
    held: int


def sweep(home: Path, redis_url: str, now: float) -> SweepReport:
    """Judge all customers that offline tables or events know. `now`: seconds since 1970 UTC.

    Raises AlertsInvalid, DependencyFailed, and NotReady where Redis has lost what a condition reads.
    """
    contract = home_contract(home)
    rules = [rule for rule in home_alerts(home, contract, home_event_types(home, contract)) if not rule.on]
    customers = everybody(home, contract) if rules else []
    return asyncio.run(_Sweep(home, rules, now).run(redis_url, contract, customers))


def everybody(home: Path, contract: Contract) -> list[str]:
    """All customers that anything is known of, each by the id that the others lead to."""
    aliases = read_aliases(home)
    batch = (str(name) for view in used_views(contract.batch) for name in read_view(home, view)["customer_id"].to_pylist())
    known = {*batch, *(record.customer_id for record in read_events(home))}
    return sorted({aliases.get(name, name) for name in known})


class _Sweep:
    def __init__(self, home: Path, rules: Sequence[AlertRule], now: float) -> None:
        self._home, self._rules, self._now = home, rules, now
        self._known = read_alerts(home).keys()

    async def run(self, redis_url: str, contract: Contract, customers: Sequence[str]) -> SweepReport:
        link, found, raised = open_link(redis_url, timeout_ms=TIMEOUT_MS), 0, 0
        reader, store = RedisCustomerReader(link, contract, lambda: nothing_written(self._home)), RedisAlerts(link)
        try:
            for start in range(0, len(customers), AT_ONCE):
                some = customers[start : start + AT_ONCE]
                states = (await reader.read(some, self._now)).states
                holding = [alert for customer, state in zip(some, states, strict=True) for alert in self._judged(customer, state)]
                first = await store.first(holding)
                new = [a for a, is_first in zip(holding, first, strict=True) if is_first and a.alert_id not in self._known]
                await self._hand_over(new, store, f"sweep-{start:010d}")
                found, raised = found + len(holding), raised + len(new)
        finally:
            await link.close()
        return SweepReport(len(self._rules), len(customers), raised, found - raised)

    async def _hand_over(self, alerts: Sequence[AlertRaised], store: RedisAlerts, writer: str) -> None:
        """To the log first, then to the stream."""
        if alerts:
            write_segment(self._home, KIND, writer, alerts, self._now)
            await store.publish(alerts)

    def _judged(self, customer: str, state: CustomerState) -> Iterator[AlertRaised]:
        """The alerts that hold for a customer. Tried again within `once_per`, one has the same id."""
        for rule in self._rules:
            if rule.live and state.contacts is None:
                raise NotReady("Expected a Redis that holds what events have fed, found one that was emptied: `nextbest rebuild`")
            if rule.once_per is not None and rule.holds({}, state.values):
                name = alert_id_of(rule.name, f"{customer} {self._now // rule.once_per:.0f}")
                because = {f"{CUSTOMER}{one}": state.values[one] for one in rule.features if one in state.values}
                yield AlertRaised(name, rule.name, rule.severity, rule.route, customer, "", "", self._now, because, rule.once_per)
