"""A report as one page that needs nothing else: each section says its claim in words, then in a picture, then as a table."""

import datetime as dt
import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from service.decision.experiments import HOLDOUT
from training.experiments import MISMATCH
from training.journey_page import STYLE
from training.report_counts import DAY, Periods, Served
from training.report_drift import Drifted
from training.report_figures import LOGGED, Claim, Figures, Lift
from training.report_loop import share_interval
from training.report_pictures import Point, Series, calibration, dots, lines, number, stacked

MORE_STYLE = (
    "h1{margin-bottom:.2rem}h2{margin-top:2.6rem;border-top:2px solid #d5d9de;padding-top:1rem}.warn{border-left:4px solid "
    "#d55e00;padding:.3rem .8rem;background:#fdf1ea}.doubt{color:#6b4a00}nav a{margin-right:1rem}details{margin:.6rem 0}"
    "summary{cursor:pointer;color:#0072b2}.scroll{overflow-x:auto}"
)
MOST_ACTIONS = 7  # of a picture of shares; the rest are together
MOST_TOLD = 40  # rows of a table of groups

Section = tuple[str, str]  # heading, body


def write_page(found: Figures, path: Path) -> Path:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(found), encoding="utf-8")
    return path


def page(found: Figures) -> str:
    """The whole page: the same figures give the same text."""
    parts: list[tuple[str, Callable[[Figures], str]]] = [
        ("Value", _value), ("Lift over the holdout", _lift), ("Experiments", _experiments), ("Who and where", _groups),
        ("Calibration in production", _calibration), ("Mix of actions", _mix), ("Fallbacks and degraded answers", _degraded),
        ("Feedback loop", _loop), ("Drift since training", _drift),
    ]  # fmt: skip
    body = "".join(f'<section id="s{n}"><h2>{name}</h2>{make(found)}</section>' for n, (name, make) in enumerate(parts))
    nav = "".join(f'<a href="#s{n}">{name}</a>' for n, (name, _) in enumerate(parts))
    end = found.times.starts[-1] + found.times.length
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>How it goes</title><style>{STYLE}{MORE_STYLE}</style><h1>How it goes</h1>"
        f"<p><code>{escape(found.objective)}</code>, {_day(found.times.starts[0])} to {_day(end)}, "
        f"champion <code>{escape(found.bundle or 'none')}</code>. Intervals are 95 %, over customers; filled marks carry their "
        f"claim, hollow ones rest on too little to tell.</p><nav>{nav}</nav>{body}</html>"
    )


def _value(found: Figures) -> str:
    overall = [policy.overall for policy in found.policies]
    labels = _labels(found.times)
    series = [Series(p.overall.name, [_point(label, c) for label, c in zip(labels, p.over_time, strict=True)])
              for p in found.policies]  # fmt: skip
    told = "".join(f"<p>{_said(one, found.objective)}</p>" for one in overall)
    note = (
        f"<p>{LOGGED} is what was shown; champion and uniform (any allowed action, all alike) are estimated, doubly robust, from "
        "the rows that the champion did not learn from.</p>"
    )
    note += "".join(_gained(one, found.objective) for one in found.gains)
    weights = "".join(_weight(one) for one in found.mean_weights)
    return (
        told + note + _figure(lines(f"{found.objective} per decision over time, by policy", series), "Value over time.")
        + _table(("policy", "value", "95 %", "rows", "doubt"), [_cells(one) for one in overall]) + weights
        + _details("Figures by period", _periods(found))
    )  # fmt: skip


def _periods(found: Figures) -> str:
    rows = [
        (label, *_cells(claim)) for policy in found.policies
        for label, claim in zip(_labels(found.times), policy.over_time, strict=True)
    ]  # fmt: skip
    return _table(("from", "policy", "value", "95 %", "rows", "doubt"), rows)


def _gained(one: Claim, objective: str) -> str:
    told = f"{one.name}, on the same {one.rows:,} rows: {number(one.interval.value)} {objective} per decision, "
    told += f"[{_ends(one.interval)}]"
    if one.doubt:
        return f'<p class="doubt">{escape(told)}. The rows cannot carry it: {escape(one.doubt)}.</p>'
    proven = "" if one.interval.low > 0 or one.interval.high < 0 else ": no difference shown"
    return f"<p>{escape(told + proven)}.</p>"


def _weight(one: Claim) -> str:
    """Weights average 1 where the logged probabilities are right: a check of the randomisation itself."""
    low, high = one.interval.low, one.interval.high
    told = f"Weights of {one.name} average {number(one.interval.value)} [{number(low)}, {number(high)}]; "
    if not low <= 1.0 <= high:
        return _warn(told + "they would average 1 if choices were made as likely as was logged: its value is doubtful.")
    return f"<p>{told}1 is right.</p>"


NO_HOLDOUT = "Nobody is in a holdout: what all of this brings against doing nothing cannot be told. Declare `holdout`."


def _lift(found: Figures) -> str:
    told = ""
    if not math.isnan(found.nobody):
        alarm = _mismatched("the holdout", found.nobody) if found.nobody < MISMATCH else ""
        told = f"<p>Nobody is in the holdout that the catalog declares.</p>{alarm}"
    if not found.lifts:
        return told or f"<p>{NO_HOLDOUT}</p>"
    left_out = (
        int(np.isin(found.counted.answers.arm, ["", HOLDOUT]).sum()) - found.lifts[0].holdout.rows - found.lifts[0].others.rows
    )
    if left_out > 0:
        told += f"<p>{left_out:,} decisions are left out, of when the holdout was planned otherwise.</p>"
    told += "".join(_lift_said(one) for one in found.lifts)
    if len(found.lifts) == 1:
        told += "<p>No outcome carries a value: the lift cannot be told in money.</p>"
    rows = [
        (one.kind, number(one.holdout.interval.value), number(one.others.interval.value), number(one.each.value),
         _ends(one.each), number(one.total.value), _ends(one.total)) for one in found.lifts
    ]  # fmt: skip
    head = ("outcome", "holdout", "everybody else", "lift a decision", "95 % at any time", "lift in all", "95 % at any time")
    return told + _table(head, rows)


def _lift_said(one: Lift) -> str:
    what = "more successes" if one.kind == "successes" else f"more value of <code>{escape(one.kind)}</code>"
    if one.doubt:
        return f'<p class="doubt">{escape(one.kind)}: {one.doubt}.</p>'
    told = f"{number(one.total.value)} {what} than if everybody were in the holdout [{_ends(one.total)}]"
    unsure = "" if one.each.low > 0 or one.each.high < 0 else ": no difference shown"
    alarm = _mismatched("the holdout", one.planned) if one.planned < MISMATCH else ""
    return f"<p>{told}{unsure}.</p>{alarm}"


def _mismatched(what: str, p: float) -> str:
    return _warn(f"Customers of {what} are not shared out as planned (p = {p:.1e}): do not trust its figures.")


def _experiments(found: Figures) -> str:
    if not found.experiments:
        return "<p>No experiment is in the log.</p>"
    told = []
    for report in found.experiments:
        told.append(f"<h3>{escape(report.id)}</h3>")
        if report.mismatch is None:
            told.append("<p>Nobody knows the planned shares any more: whether customers were shared out so cannot be told.</p>")
        elif report.mismatch < MISMATCH:
            told.append(_mismatched(report.id, report.mismatch))
        else:
            told.append(f"<p>Customers are shared out as planned (p = {report.mismatch:.2g}).</p>")
        if report.left_out:
            told.append(f"<p>{report.left_out:,} decisions are left out, of when its arms were planned otherwise.</p>")
        differences = {one.arm: one for one in report.differences}
        points = [
            Point(d.arm, d.gain.value, *d.gain.ci, carries=d.is_told) for d in report.differences
        ]  # fmt: skip
        first = report.arms[0].arm
        drawing = dots(f"{report.id}: differences from {first}", [Series("difference", points)], with_zero=True)
        told.append(_figure(drawing, f"Against {first}; intervals may be looked at any time."))
        rows = []
        for arm in report.arms:
            d = differences.get(arm.arm)
            gain = (number(d.gain.value), f"{number(d.gain.ci[0])} to {number(d.gain.ci[1])}", d.verdict) if d else ("", "", "")
            rows.append((arm.arm, f"{arm.customers:,}", f"{arm.decisions:,}", number(arm.value), *gain))
        head = ("arm", "customers", "decisions", "value", "against the first", "95 % at any time", "verdict")
        told.append(_table(head, rows))
    return "".join(told)


def _groups(found: Figures) -> str:
    kinds = list(dict.fromkeys(kind for policy in found.policies for kind, _ in policy.groups))
    told = []
    for kind in kinds:
        series = [(p.overall.name, dict(p.groups)[kind]) for p in found.policies if kind in dict(p.groups)]
        shown = [Series(name, [_point(c.name, c) for c in claims[:MOST_TOLD]]) for name, claims in series]
        rows = [(claim.name, name, *_cells(claim)[1:]) for name, claims in series for claim in claims]
        head = (kind, "policy", "value", "95 %", "rows", "doubt")
        told.append(f"<h3>By {escape(kind)}</h3>" + _figure(dots(f"{found.objective} by {kind}", shown), "")
                    + _details("Figures", _table(head, rows)))  # fmt: skip
    return "".join(told)


def _calibration(found: Figures) -> str:
    if not found.deciles:
        return "<p>No item that the champion served has an outcome yet: whether its rates hold cannot be told.</p>"
    off = [d for d in found.deciles if not d.observed.doubt and not _holds(d.predicted, d.observed)]
    sure = [d for d in found.deciles if not d.observed.doubt]
    told = f"{len(sure) - len(off)} of the {len(sure)} tenths that can be judged hold their predicted rate in the interval."
    if len(sure) < len(found.deciles):
        told += f" {len(found.deciles) - len(sure)} rest on too little to tell."
    points = [(d.predicted, _point(f"tenth {d.observed.name}", d.observed)) for d in found.deciles]
    rows = [(d.observed.name, number(d.predicted), *_cells(d.observed)[1:]) for d in found.deciles]
    picture = _figure(calibration("Observed over predicted rates", points), "Tenths of served items; dashed: as predicted.")
    return f"<p>{told}</p>" + picture + _table(("tenth", "predicted", "observed", "95 %", "rows", "doubt"), rows)


def _holds(predicted: float, observed: Claim) -> bool:
    return observed.interval.low <= predicted <= observed.interval.high


def _mix(found: Figures) -> str:
    served = found.counted.served
    if not len(served.at):
        return "<p>No decision was served in this time.</p>"
    names, shares = mix(served, found.times)
    labels = _labels(found.times)
    rows = [(label, *(f"{share:.1%}" for share in shares[:, n].tolist())) for n, label in enumerate(labels)]
    return (
        _figure(stacked("Share of each action in first slots", names, labels, shares), "First slots that are no fallbacks.")
        + _details("Figures", _table(("from", *names), rows))
    )  # fmt: skip


def mix(served: Served, times: Periods) -> tuple[list[str], np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """The most frequent actions and all others, and their shares by period: (names, periods)."""
    actions, counts = np.unique(served.action, return_counts=True)
    names = actions[np.argsort(-counts, kind="stable")][:MOST_ACTIONS].tolist()
    place, size = times.of(served.at), len(times.starts)
    table = np.array([np.bincount(place[served.action == name], minlength=size) for name in names], np.float64)
    total = np.bincount(place, minlength=size).astype(np.float64)
    if len(actions) > len(names):
        names, table = [*names, "all others"], np.vstack([table, total - table.sum(axis=0)])
    return names, table / np.maximum(total, 1.0)


def _degraded(found: Figures) -> str:
    answers = found.counted.answers
    asked = answers.arm == ""  # the holdout gets fallbacks by plan
    if not asked.any():
        return "<p>No decision was served in this time.</p>"
    place, labels = found.times.of(answers.at), _labels(found.times)
    kinds = sorted({rung for rungs in answers.degraded for rung in rungs})
    masks = {"fallback": answers.fallback, "any degraded": np.array([bool(rungs) for rungs in answers.degraded], np.float64)}
    masks |= {kind: np.array([kind in rungs for rungs in answers.degraded], np.float64) for kind in kinds}
    series, rows = [], []
    for name, values in masks.items():
        points = []
        for n, label in enumerate(labels):
            here = asked & (place == n)
            points.append(Point(label, *share_interval(float(values[here].sum()), int(here.sum())), carries=bool(here.sum())))
        series.append(Series(name, points))
        overall = share_interval(float(values[asked].sum()), int(asked.sum()))
        rows.append((name, f"{overall.value:.2%}", f"{overall.low:.2%} to {overall.high:.2%}", f"{int(asked.sum()):,}"))
    picture = _figure(lines("Share of fallbacks and degraded answers", series[:2], from_zero=True), "The holdout is left out.")
    return picture + _table(("what", "share", "95 %", "decisions"), rows)


def _loop(found: Figures) -> str:
    told = "".join(_warn(one.told) for one in found.loop.starved)
    if not told:
        told = "<p>No action was shown less than exploration promises, in the newest quarter of this time.</p>"
    labels = _labels(found.times)
    explored = [
        Point(label, *one.share, carries=one.decisions > 0) for label, one in zip(labels, found.loop.explored, strict=True)
    ]
    varied = [
        Point(label, one.actions if one.decisions else float("nan"), one.actions, one.actions)
        for label, one in zip(labels, found.loop.explored, strict=True)
    ]
    told += _figure(
        lines("Share of first slots that were explored", [Series("explored", explored)], from_zero=True), "Exploration."
    )
    told += _figure(
        lines("Effective number of actions", [Series("actions", varied)], from_zero=True),
        "Effective number of actions: as varied as so many that are shown alike. It is counted, not estimated: no interval.",
    )
    if found.loop.coverage:
        covered = [
            Series(one.placement, [Point(label, share, share, share) for label, share in zip(labels, one.shown, strict=True)])
            for one in found.loop.coverage
        ]
        told += _figure(
            lines("Coverage of eligible actions by placement", covered, from_zero=True),
            "Of the actions that could have been shown, those that were, by placement. Counted: no interval.",
        )
    return told


def _drift(found: Figures) -> str:
    if not isinstance(found.drift, Drifted):
        return f"<p>{escape(found.drift)}</p>"
    drift, (then, now) = found.drift, found.drift.rows
    told = "".join(_warn(reason) for reason in drift.reasons) or "<p>Nothing has drifted.</p>"
    told += (
        f"<p>{now:,} rows of now against {then:,} that the champion learned from. The mix of actions moves when another bundle "
    )
    told += "serves: that is drift of what is shown, not of customers.</p>"
    if not drift.inputs.columns:
        told += "<p>There are no inputs to compare: the home has no features.</p>"
    rows = [
        (one.column, f"{one.index:.3f}", f"{one.by_chance:.3f}", "moved" if one.is_shifted else "")
        for one in (*drift.inputs.columns, *([drift.predictions] if drift.predictions else []), drift.mix)
    ]
    table = _table(("column", "stability index", "by chance up to", ""), rows)
    rates = [
        (r.action, number(r.then.value), number(r.now.value), _ends(r.now), f"{r.p:.2g}", "moved" if r.is_shifted else "")
        for r in drift.rates
    ]
    if not rates:
        return told + table + "<p>No action has enough rows on both sides to compare its rate.</p>"
    sides = {"then": [r.then for r in drift.rates], "now": [r.now for r in drift.rates]}
    series = [
        Series(name, [Point(r.action, *side) for r, side in zip(drift.rates, intervals, strict=True)])
        for name, intervals in sides.items()
    ]
    picture = _figure(dots(f"{found.objective} by action, then and now", series), "Rates then and now.")
    return told + table + picture + _table(("action", "then", "now", "95 %", "p", ""), rates)


def _said(claim: Claim, objective: str) -> str:
    told = f"<strong>{escape(claim.name)}</strong>: {number(claim.interval.value)} {escape(objective)} per decision, "
    told += f"[{_ends(claim.interval)}], from {claim.rows:,} rows"
    return f'{told}. <span class="doubt">The rows cannot carry it: {escape(claim.doubt)}.</span>' if claim.doubt else f"{told}."


def _cells(claim: Claim) -> tuple[str, ...]:
    return claim.name, number(claim.interval.value), _ends(claim.interval), f"{claim.rows:,}", claim.doubt


def _point(label: str, claim: Claim) -> Point:
    return Point(label, *claim.interval, carries=not claim.doubt)


def _ends(interval: tuple[float, float, float]) -> str:
    return f"{number(interval[1])} to {number(interval[2])}"


def _labels(times: Periods) -> list[str]:
    shape = "%d %b" if times.length >= DAY else "%d %b %H:%M"
    return [dt.datetime.fromtimestamp(start, dt.UTC).strftime(shape) for start in times.starts.tolist()]


def _day(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d")


def _warn(text: str) -> str:
    return f'<p class="warn">{escape(text)}</p>'


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _details(what: str, body: str) -> str:
    return f"<details><summary>{what}</summary>{body}</details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'
