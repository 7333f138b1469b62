"""Explanations, replays and what-ifs as tables for a terminal."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

from rich.console import Console

from service.decision.explain import ActionExplained, Explanation, PlacementExplained
from training.contributions import BASE, Contribution
from training.experiments import MISMATCH, Difference, ExperimentReport
from training.judging import Gain
from training.replay import ReplayReport
from training.summary import plain_table
from training.whatif import Compared, WhatIfReport

MOST_INPUTS = 8  # of an action; `--json` has all
MOST_LINES = 20  # of a table of shares; `--json` has all
CALLED = {"rate": "rate", "value": "expected value", "uplift": "uplift"}
SCALES = {"rate": ("", "logit"), "amount": (", of how large a value is", "logarithm"), "uplift": ("", "uplift")}
BAR = 24  # characters of a whole share
INTERVAL = 11  # characters of the picture of an interval; with 24 a table took 129, and its figures were cut


def explanation_table(found: Explanation, inputs: Mapping[str, Sequence[Contribution]], console: Console) -> None:
    """The decision in a line, every action of each placement, and what its model saw in those that were served."""
    record = found.decision
    console.print(f"{record.decision_id}  customer {record.customer_id}  {_moment(record.at)}")
    arm = f"  {record.experiment.id}: {record.experiment.arm}" if record.experiment else ""
    console.print(f"catalog {record.versions.catalog}  bundle {record.versions.bundle or 'none'}{arm}")
    if record.degraded:
        console.print(f"degraded: {', '.join(record.degraded)}")
    for placement in found.placements:
        _placement_table(placement, console)
    for action, contributed in inputs.items():
        for part, (of, scale) in SCALES.items():
            if own := [one for one in contributed if one.part == part]:
                _inputs_table(f"{action}{of}", own, scale, console)


def _placement_table(placement: PlacementExplained, console: Console) -> None:
    dropped = ", ".join(f"{stage} {count}" for stage, count in placement.dropped_by_stage.items()) or "nothing"
    console.print(f"\n{placement.id}: dropped by stage: {dropped}", style="bold")
    told = next((CALLED[one.factors.predicts] for one in placement.actions if one.factors), "rate")
    table = plain_table(f"rank,action,stage,{told},context,value,lever,utility,why", f"rank,{told},context,value,lever,utility")
    table.columns[-1].no_wrap = False
    for one in placement.actions:
        table.add_row(str(one.rank or ""), one.action_id, one.stage, *_factors(one), "\n".join(_why(one)))
    console.print(table)


def _factors(one: ActionExplained) -> tuple[str, ...]:
    f = one.factors
    if f is None:
        return ("",) * 5
    predicted = (f"{f.rate:.2f}", "") if f.predicts == "value" else (f"{f.rate:.4f}", f"{f.value:.4g}")
    return predicted[0], f"{f.context:g}", predicted[1], f"{f.lever:g}", f"{f.utility:.4g}"


def _why(one: ActionExplained) -> Iterator[str]:
    if one.reason:
        yield one.reason
    yield from one.details
    if one.factors is not None:
        yield from (f"{name} x {factor:g}" for name, factor in one.factors.weights.items())
    for change in one.changes or ():
        yield f"would be shown with: {change.text}"


def _inputs_table(action: str, contributed: Sequence[Contribution], scale: str, console: Console) -> None:
    table = plain_table(f"input,value,adds to the {scale}", f"adds to the {scale}", f"what the model saw in {action}")
    shown = [one for one in contributed if one.name != BASE][:MOST_INPUTS]
    rest = sum(one.margin for one in contributed if one.name != BASE) - sum(one.margin for one in shown)
    for one in shown:
        table.add_row(one.name, "missing" if one.value is None else str(one.value), f"{one.margin:+.4f}")
    if rest:
        table.add_row("all others", "", f"{rest:+.4f}")
    table.add_row("on average", "", f"{sum(one.margin for one in contributed if one.name == BASE):+.4f}")
    console.print(table)


def replay_table(report: ReplayReport, console: Console) -> None:
    """What was found, and the first decisions that differ."""
    console.print(f"{report.decisions:,} decisions: {report.identical:,} identical, {report.different:,} different")
    if report.impossible:
        console.print(f"{report.impossible:,} cannot be made again: {'; '.join(report.reasons)}")
    if not report.mismatches:
        return
    table = plain_table("decision,field,logged,replayed")
    for name in (2, 3):
        table.columns[name].no_wrap = False
    for one in report.mismatches:
        table.add_row(one.decision_id, one.field, one.logged, one.replayed)
    console.print(table)


def whatif_table(report: WhatIfReport, console: Console) -> None:
    """Value, shares before and after, who gets nothing, and which rules drop how many."""
    console.print(f"{report.decisions:,} logged decisions", style="bold")
    if report.held_out:
        console.print(f"{report.held_out:,} decisions for the holdout are left out: fallbacks, whatever a catalog says")
    if report.unknown_placements:
        console.print(f"{report.unknown_placements:,} answers for placements that the draft does not have are left out")
    console.print(f"{report.objective} a first item, as logged  {_value(report.value_logged)}  ({report.rows:,} with an outcome)")
    worth = f"{report.effective_rows:,.0f} effective rows"
    console.print(f"{report.objective} a first item, the draft  {_value(report.value_drafted)}  ({worth})")
    for doubt in report.doubts:
        console.print(f"not to be relied on: {doubt}")
    _shares("action", report.actions, console)
    _shares("group", report.groups, console)
    _shares("channel", report.channels, console)
    _shares("placement that shows its fallback", report.nothing, console)
    table = plain_table("reason,candidates dropped", "candidates dropped")
    for reason, count in list(report.dropped.items())[:MOST_LINES]:
        table.add_row(reason, f"{count:,}")
    console.print(table)


def _shares(what: str, shares: Compared, console: Console) -> None:
    table = plain_table(f"{what},logged,draft,change, ", "logged,draft,change")
    names = sorted(
        {*shares.logged, *shares.drafted}, key=lambda name: -max(shares.logged.get(name, 0), shares.drafted.get(name, 0))
    )
    for name in names[:MOST_LINES]:
        before, after = shares.logged.get(name, 0.0), shares.drafted.get(name, 0.0)
        table.add_row(name, f"{before:.1%}", f"{after:.1%}", f"{after - before:+.1%}", "█" * round(after * BAR))
    if len(names) > MOST_LINES:
        table.add_row(f"and {len(names) - MOST_LINES} more")
    console.print(table)


def experiments_table(reports: Sequence[ExperimentReport], console: Console) -> None:
    """Arms and differences; a picture of each interval around zero."""
    for report in reports:
        columns = "arm,customers,decisions,value,gain,95 % at any time, ,"
        title = f"{report.id}: {report.objective} per decision, and the gain over the first arm"
        table = plain_table(columns, "customers,decisions,value,gain", title)
        differences = {one.arm: one for one in report.differences}
        # while nothing came of any arm, every end is 0
        widest = max((abs(end) for d in report.differences for end in d.gain.ci if isfinite(end)), default=0.0) or 1.0
        for arm in report.arms:
            found = differences.get(arm.arm)
            cells = ("", "", "", "") if found is None else _difference(found, widest)
            table.add_row(arm.arm, f"{arm.customers:,}", f"{arm.decisions:,}", f"{arm.value:.4f}", *cells)
        console.print(table)
        if report.mismatch is not None and report.mismatch < MISMATCH:
            console.print(
                f"the arms' customers are not shared out as planned (p = {report.mismatch:.1e}): do not trust the above"
            )
        if report.left_out:
            console.print(f"{report.left_out:,} decisions are left out, of when its arms were planned otherwise")


def _difference(found: Difference, widest: float) -> tuple[str, ...]:
    low, high = found.gain.ci
    return f"{found.gain.value:+.4f}", f"{low:+.4f} to {high:+.4f}", _drawn(low, high, widest), found.verdict


def _drawn(low: float, high: float, widest: float) -> str:
    """An interval as a line; the bar in the middle is zero."""
    left, right = (round((min(max(end / widest, -1.0), 1.0) + 1.0) / 2 * (INTERVAL - 1)) for end in (low, high))
    line = [("─" if left <= place <= right else " ") for place in range(INTERVAL)]
    line[INTERVAL // 2] = "│" if line[INTERVAL // 2] == " " else "┼"
    return "".join(line)


def _value(gain: Gain | None) -> str:
    return "unknown" if gain is None else f"{gain.value:.4f}  [{gain.ci[0]:.4f}, {gain.ci[1]:.4f}]"


def _moment(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
