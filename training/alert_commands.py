"""`nextbest alerts`: the follow-up queue: who has to be looked after, who took it on, how long it took."""

import argparse
import getpass
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from features.event_types import home_event_types
from features.homes import home_contract
from features.redis_server import resolve_redis
from service.catalog.alerting import DOCUMENT, SEVERITIES, home_alerts
from service.catalog.alerting import read_alerts as read_rules
from service.decision.records import AlertFollowUp
from service.verbs import Verbs
from training.alert_sweep import sweep
from training.alerts import Followed, RouteReport, Spread, Wanted, follow_up, read_alerts, report, selected
from training.summary import plain_table, terminal

VERBS = ("list", "acknowledge", "close", "report", "check", "sweep")
UNITS = (("d", 86_400.0), ("h", 3600.0), ("min", 60.0))
SHOWN = 160  # characters of what a condition read


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """Exit code: 0 done. Errors are raised for the command line to tell."""
    named = len(argv) > 1 and argv[1] in (*VERBS, "-h", "--help")
    return _verbs().run(argv[1:] if named else ["list", *argv[1:]], home, redis_url=redis_url)


def _list(options: argparse.Namespace, home: Path) -> int:
    found = selected(read_alerts(home).values(), Wanted(options.route, options.severity, options.all))
    if options.json:
        _print_json([{"state": one.state, **msgspec.to_builtins(one)} for one in found])
    elif found:
        _list_table(found, time.time(), terminal())
    else:
        print("no alerts" if options.all else "no open alerts")
    return 0


def _list_table(found: Sequence[Followed], now: float, console: Console) -> None:
    table = plain_table("id,alert,severity,route,customer,raised,state,because", "raised")
    table.columns[-1].no_wrap = False
    for one in found:
        alert, last = one.alert, one.closed or one.acknowledged
        state = one.state + (f" by {last.by}" if last and last.by else "")
        because = ", ".join(f"{name} = {value}" for name, value in alert.because.items())[:SHOWN]
        raised = f"{duration(now - alert.at)} ago"
        table.add_row(alert.alert_id, alert.name, alert.severity, alert.route, alert.customer_id, raised, state, because)
    console.print(table)


def _acknowledge(options: argparse.Namespace, home: Path) -> int:
    one = follow_up(home, AlertFollowUp(options.id, "acknowledged", time.time(), _by(options), options.note))
    print(f"`{one.alert.name}` of customer {one.alert.customer_id}: acknowledged after {_since_raised(one.acknowledged, one)}")
    return 0


def _close(options: argparse.Namespace, home: Path) -> int:
    one = follow_up(home, AlertFollowUp(options.id, "closed", time.time(), _by(options), options.note))
    print(f"`{one.alert.name}` of customer {one.alert.customer_id}: closed after {_since_raised(one.closed, one)}")
    return 0


def _since_raised(step: AlertFollowUp | None, one: Followed) -> str:
    return duration((step.at if step else one.alert.at) - one.alert.at)


def _report(options: argparse.Namespace, home: Path) -> int:
    found = report(read_alerts(home).values(), time.time())
    if options.json:
        _print_json(found)
    elif found:
        _report_table(found, terminal())
    else:
        print("no alerts")
    return 0


def _report_table(found: Sequence[RouteReport], console: Console) -> None:
    numbers = "open,acknowledged,closed,to acknowledge (p90),to close (p90),oldest open"
    table = plain_table(f"route,severity,{numbers}", numbers)
    for one in found:
        oldest = "" if one.oldest_open is None else duration(one.oldest_open)
        counts = (str(one.open), str(one.acknowledged), str(one.closed))
        table.add_row(one.route, one.severity, *counts, _spread(one.to_acknowledge), _spread(one.to_close), oldest)
    console.print(table)


def _spread(found: Spread | None) -> str:
    return "" if found is None else f"{duration(found.median)} ({duration(found.p90)})"


def _check(options: argparse.Namespace, home: Path) -> int:
    contract = home_contract(home)
    types = home_event_types(home, contract)
    where = options.file or home / DOCUMENT
    rules = home_alerts(home, contract, types) if options.file is None else read_rules(options.file, contract, types)
    for rule in rules:
        print(f"{rule.name}: {rule.severity}, to {rule.route}, on {', '.join(rule.on) or 'a sweep'}")
    print(f"{len(rules)} alerts - at `{where}`")
    return 0


def _sweep(options: argparse.Namespace, home: Path) -> int:
    with resolve_redis(options.redis_url, home) as url:
        found = sweep(home, url, time.time())
    print(f"{found.alerts} alerts, {found.customers:,} customers: {found.raised:,} raised, {found.held:,} raised before")
    return 0


def duration(seconds: float) -> str:
    """In the largest unit that it fills: `2.5 h`."""
    for unit, length in UNITS:
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _by(options: argparse.Namespace) -> str:
    if options.by:
        return str(options.by)
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return ""


def _print_json(found: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())


def _verbs() -> Verbs:
    verbs = Verbs("nextbest alerts", "Who has to be looked after; `list` where nothing is said.")

    listing = verbs.add("list", _list, "the most severe first, then the oldest")
    listing.add_argument("--route", help="only those that go there")
    listing.add_argument("--severity", choices=SEVERITIES)
    which = listing.add_mutually_exclusive_group()
    which.add_argument("--open", action="store_true", help="those that nobody has closed (the default)")
    which.add_argument("--all", action="store_true", help="closed ones, too")
    for name, run, purpose in (("acknowledge", _acknowledge, "it is mine now"), ("close", _close, "nothing is left to do")):
        stepping = verbs.add(name, run, purpose)
        stepping.add_argument("id", metavar="ID")
        stepping.add_argument("--by", metavar="NAME", help="who (default: the login name)")
        stepping.add_argument("--note", default="", help="what was found, or done")
    reporting = verbs.add("report", _report, "by route and severity: how many, how long they took, how old the oldest is")
    for printing in (listing, reporting):
        printing.add_argument("--json", action="store_true", help="for machines")
    verbs.add("sweep", _sweep, "judge every customer against the alerts that no event raises (`on: []`)")
    checking = verbs.add("check", _check, "whether the alerts of the home, or of a draft, can be used")
    checking.add_argument("file", type=Path, nargs="?", metavar="FILE", help="a draft (default: the home's)")
    return verbs
