"""Journeys as tables for a terminal."""

import datetime as dt
from collections.abc import Sequence

from rich.console import Console

from training.journeys import Flow, JourneyReport, StageFigures, Visit
from training.summary import plain_table

MOST_NEXT = 3  # stages that a line names; `--json` has all
MOST_LOOPS = 5
MOST_DROP_OFFS = 3
LARGEST = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def journey_tables(report: JourneyReport, console: Console) -> None:
    """Stages, circles, and where most are lost."""
    console.print(headline(report))
    numbers = "customers,visits,median time,moved on,dropped off,here now"
    table = plain_table("stage,customers,visits,median time,moved on,dropped off,here now,next", numbers)
    table.columns[-1].no_wrap = False
    for one in report.stages:
        figures = (f"{one.customers:,}", f"{one.visits:,}", lasting(one.median_s))
        parts = (of(one.moved_on, one.visits), of(one.timed_out, one.visits), of(one.here, one.visits))
        table.add_row(one.stage, *figures, *parts, ", ".join(next_stages(report, one.stage)))
    console.print(table)
    for line in friction(report):
        console.print(line)


def headline(report: JourneyReport) -> str:
    """Whose journeys, and of which time."""
    since = f"from {moment(report.since)} " if report.since is not None else ""
    return (
        f"{report.customers:,} customers, {sum(one.visits for one in report.stages):,} visits {since}until {moment(report.until)}"
    )


def next_stages(report: JourneyReport, stage: str) -> list[str]:
    """Where visits to a stage led most often."""
    flows = [flow for flow in report.flows if flow.origin == stage][:MOST_NEXT]
    return [f"{flow.target} {flow.share:.0%}{' (time-out)' * flow.timed_out}" for flow in flows]


def friction(report: JourneyReport) -> list[str]:
    """Circles and drop-offs in words, the worst first."""
    lines = [
        f"loop      {one.stage} → {one.by_way_of} → {one.stage}: {one.count:,} times by {one.customers:,} customers"
        + (f", {one.after_time_out:,} of them after a time-out" if one.after_time_out else "")
        for one in report.loops[:MOST_LOOPS]
    ]
    lines += [
        f"drop-off  {one.stage} → {_towards(report, one)}: a time-out ended {of(one.timed_out, one.visits)} of its visits"
        for one in worst_drop_offs(report)
    ]
    return lines or ["no friction: nobody turned back, and no time-out passed"]


def worst_drop_offs(report: JourneyReport) -> Sequence[StageFigures]:
    """Where most visits were lost."""
    lost = [one for one in report.stages if one.timed_out]
    return sorted(lost, key=lambda one: -one.timed_out)[:MOST_DROP_OFFS]


def _towards(report: JourneyReport, one: StageFigures) -> str:
    return next((flow.target for flow in report.flows if flow.origin == one.stage and flow.timed_out), "")


def path_table(customer: str, path: Sequence[Visit], until: float, console: Console) -> None:
    """One customer's way, oldest first."""
    table = plain_table("stage,since,for,because of", "for", f"journey of {customer}")
    for visit in path:
        first = visit is path[0]
        length = "" if first else lasting((visit.left or until) - visit.began)
        cause = "the start" if first else visit.cause or "time-out"
        table.add_row(visit.stage, "" if first else moment(visit.began), length, cause)
    console.print(table)


def moment(at: float) -> str:
    """UTC, to the second."""
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M:%S}"


def lasting(span: float | None) -> str:
    """Seconds as people say them."""
    if span is None:
        return ""
    size, unit = next(((size, unit) for size, unit in LARGEST if span >= size), (1.0, "s"))
    return f"{f'{span / size:.1f}'.removesuffix('.0')} {unit}"


def of(part: int, whole: int) -> str:
    """A count and its share."""
    return f"{part:,} ({part / whole:.0%})"


def flow_label(flow: Flow) -> str:
    """A flow's count, and its share of the visits it comes from."""
    return f"{flow.count:,} ({flow.share:.0%})"
