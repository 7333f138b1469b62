"""Alerts that were raised, and what became of them: folded from the log, which is where follow-ups are written down, too."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from service.catalog.alerting import SEVERITIES
from service.decision.records import AlertFollowUp, AlertRaised, record_in
from service.errors import AlertSettled, UnknownAlert
from training.event_history import is_erased, read_erasures
from training.live_log import read_payloads, write_segment

KIND = "alerts"
State = Literal["open", "acknowledged", "closed"]

_decoder = msgspec.json.Decoder(AlertRaised | AlertFollowUp)


class Followed(msgspec.Struct, frozen=True):
    """An alert, and who acknowledged and closed it."""

    alert: AlertRaised
    acknowledged: AlertFollowUp | None = None
    closed: AlertFollowUp | None = None

    @property
    def state(self) -> State:
        """Open until somebody acknowledges or closes it."""
        if self.closed is not None:
            return "closed"
        return "open" if self.acknowledged is None else "acknowledged"


class Spread(msgspec.Struct, frozen=True):
    """How long something took, in seconds, in the middle and at the slower end."""

    median: float
    p90: float


class RouteReport(msgspec.Struct, frozen=True):
    """How a route keeps up with alerts of a severity. Times are seconds since they were raised; None where there is none."""

    route: str
    severity: str
    open: int
    acknowledged: int
    closed: int
    to_acknowledge: Spread | None
    to_close: Spread | None
    oldest_open: float | None


class Wanted(NamedTuple):
    """Which alerts are asked for; None: any. `settled`: closed ones, too."""

    route: str | None = None
    severity: str | None = None
    settled: bool = False

    def takes(self, one: Followed) -> bool:
        """Whether it is among them."""
        fits = self.route in (None, one.alert.route) and self.severity in (None, one.alert.severity)
        return fits and (self.settled or one.closed is None)


def read_alerts(home: Path, *, forgotten: bool = False) -> dict[str, Followed]:
    """Every alert by its id, in the order in which they were raised; an id that was written twice is one alert.

    `forgotten`: also those about customers who were erased since.
    """
    erased = {} if forgotten else read_erasures(home)
    records = [r for r in _records(home) if isinstance(r, AlertFollowUp) or not is_erased(erased, r.customer_id, r.at)]
    found: dict[str, Followed] = {}
    for raised in sorted((r for r in records if isinstance(r, AlertRaised)), key=lambda r: r.at):
        found.setdefault(raised.alert_id, Followed(raised))
    for step in sorted((r for r in records if isinstance(r, AlertFollowUp)), key=lambda r: r.at):
        one = found.get(step.alert_id)
        if one is not None and getattr(one, step.step) is None:  # the first counts
            found[step.alert_id] = msgspec.structs.replace(one, **{step.step: step})
    return found


def _records(home: Path) -> Iterator[AlertRaised | AlertFollowUp]:
    found = (record_in(payload, _decoder) for payload in read_payloads(home, KIND))
    return (one for one in found if one is not None)


def selected(alerts: Iterable[Followed], wanted: Wanted) -> list[Followed]:
    """The most severe first, then the oldest."""
    found = [one for one in alerts if wanted.takes(one)]
    return sorted(found, key=lambda one: (-SEVERITIES.index(one.alert.severity), one.alert.at))


def follow_up(home: Path, step: AlertFollowUp) -> Followed:
    """Write down what somebody did. Raises UnknownAlert, and AlertSettled where it was done before."""
    one = read_alerts(home).get(step.alert_id)
    if one is None:
        raise UnknownAlert(step.alert_id)
    earlier = one.closed or (one.acknowledged if step.step == "acknowledged" else None)
    if earlier is not None:
        by = f" by {earlier.by}" if earlier.by else ""
        raise AlertSettled(f"Expected an alert that nobody has {step.step}, got `{step.alert_id}`, {earlier.step}{by} before")
    write_segment(home, KIND, f"{step.step}-{step.alert_id}", [step], step.at)
    return msgspec.structs.replace(one, **{step.step: step})


def report(alerts: Iterable[Followed], now: float) -> list[RouteReport]:
    """By route, the most severe first. `now`: seconds since 1970 UTC."""
    groups: defaultdict[tuple[str, str], list[Followed]] = defaultdict(list)
    for one in alerts:
        groups[one.alert.route, one.alert.severity].append(one)
    order = sorted(groups, key=lambda group: (group[0], -SEVERITIES.index(group[1])))
    return [_report(*group, groups[group], now) for group in order]


def _report(route: str, severity: str, alerts: Sequence[Followed], now: float) -> RouteReport:
    states = [one.state for one in alerts]
    unsettled = [now - one.alert.at for one in alerts if one.closed is None]
    return RouteReport(
        route, severity, states.count("open"), states.count("acknowledged"), states.count("closed"),
        _spread([one.acknowledged.at - one.alert.at for one in alerts if one.acknowledged]),
        _spread([one.closed.at - one.alert.at for one in alerts if one.closed]),
        max(unsettled, default=None),
    )  # fmt: skip


def _spread(seconds: Sequence[float]) -> Spread | None:
    return Spread(*np.percentile(seconds, [50, 90]).tolist()) if seconds else None


def still_open(alerts: Mapping[str, Followed]) -> list[AlertRaised]:
    """Those that nobody has closed, oldest first."""
    return [one.alert for one in alerts.values() if one.closed is None]


def still_held(alerts: Mapping[str, Followed], now: float) -> list[tuple[AlertRaised, float]]:
    """Those after which their customer may not raise the same yet, and for how many seconds."""
    found = [(one.alert, one.alert.at + one.alert.once_per - now) for one in alerts.values() if one.alert.once_per is not None]
    return [(alert, left) for alert, left in found if left > 0]
