"""Evaluations and bundles as tables for a terminal."""

from collections.abc import Sequence

from msgspec import UNSET
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from service.bundles.manifest import Manifest
from service.registry import Pointer
from training.judging import Gain, PolicyValue, Report
from training.policies import ALWAYS
from training.slate_values import PlacementSlates, SlatePolicy

MOST_STATICS = 5  # the best ones; `--json` has all
MOST_ACTIONS = 10  # of the overlap
NARROWEST = 120  # characters; a pipe says 80, which would cut figures


def terminal() -> Console:
    """Where tables go; never so narrow that figures are cut. What is called `:new:` or `[vip]` is told as it is."""
    return Console(width=max(NARROWEST, Console().width), highlight=False, emoji=False, markup=False)


def plain_table(columns: str, numbers: str = "", title: str | None = None) -> Table:
    """A table whose columns are named by words; those in `numbers` are aligned at the right."""
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    right = numbers.split(",")
    for name in columns.split(","):
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    return table


def evaluation_table(report: Report, console: Console) -> None:
    """Values with intervals, gains, verdict."""
    title = f"{report.objective} per decision, on {report.rows:,} rows that no model saw"
    numbers = "value,effective rows,largest weight"
    table = plain_table("policy,value,95 % interval,estimator,effective rows,largest weight", numbers, title)
    for name in _shown(report):
        table.add_row(name, *_cells(report.policies[name]))
    console.print(table)
    _overlap_table(report, console)
    for one in () if report.slates is UNSET else report.slates:
        _slates_table(one, console)
    console.print(f"gain over logged       {_told(report.gain_over_logged)}")
    if report.best_static and report.gain_over_best_static:
        proven = "beats it" if report.beats_best_static else "not proven to beat it"
        console.print(f"gain over best static  {_told(report.gain_over_best_static)}  ({report.best_static}: {proven})")
    if report.checks:
        checks = Table("check", "holds", "found", box=SIMPLE_HEAD, pad_edge=False)
        for check in report.checks:
            checks.add_row(check.name, "yes" if check.holds else "NO", check.told)
        console.print(checks)
    console.print(f"verdict                {report.verdict}: {'; '.join(report.reasons)}")


def _overlap_table(report: Report, console: Console) -> None:
    """The actions that the bundle's policy would show most, and what the log knows of each."""
    if not report.overlap:
        return
    columns = "action,policy,logged,rows,effective rows,largest weight,least probability,covered"
    table = plain_table(columns, columns.partition(",")[2], "what the bundle's choices and the log have in common")
    for one in report.overlap[:MOST_ACTIONS]:
        weight = "" if one.max_weight is None else f"{one.max_weight:.1f}"
        least = "" if one.least_probability is None else f"{one.least_probability:.3g}"
        covered = "" if one.covered is None else f"{one.covered:.0%}"
        shares = f"{one.policy:.1%}", f"{one.logged:.1%}"
        table.add_row(one.action, *shares, f"{one.rows:,}", f"{one.ess:,.0f}", weight, least, covered)
    console.print(table)
    if len(report.overlap) > MOST_ACTIONS:
        console.print(f"... and {len(report.overlap) - MOST_ACTIONS} more actions: `--json` has all")
    for one in report.overlap:
        if one.doubt is not None:
            console.print(f"{one.action}: {one.doubt}")


def _slates_table(found: PlacementSlates, console: Console) -> None:
    """Values per slate and slot by slot, and why the log cannot carry one of them."""
    slots = [f"slot {number}" for number in range(1, len(found.shown) + 1)]
    columns = ["policy", "per slate", "95 % interval", "estimator", *slots, "effective slates", "largest weight"]
    title = f"per slate of `{found.placement}`, on {found.slates:,} slates (a slot's reward may depend on those before it)"
    table = plain_table(",".join(columns), ",".join(["per slate", *slots, *columns[-2:]]), title)
    for name, value in found.policies.items():
        table.add_row(name, *_slate_cells(value))
    console.print(table)
    for name, value in found.policies.items():
        for doubt in value.doubts:
            console.print(f"{name}: the log cannot carry its value: {doubt}")


def _slate_cells(value: SlatePolicy) -> tuple[str, ...]:
    slots = ["" if slot is None else f"{slot.value:.4f}" for slot in value.slots]
    ess = " ".join(f"{one:,.0f}" for one in value.ess or ())
    weights = " ".join(f"{one:.1f}" for one in value.max_weight or ())
    return f"{value.value:.4f}", f"{value.ci[0]:.4f} to {value.ci[1]:.4f}", value.estimator, *slots, ess, weights


def _cells(value: PolicyValue) -> tuple[str, ...]:
    ess = f"{value.ess:,.0f}" if value.ess is not None else ""
    weight = f"{value.max_weight:.1f}" if value.max_weight is not None else ""
    return f"{value.value:.4f}", f"{value.ci[0]:.4f} to {value.ci[1]:.4f}", value.estimator, ess, weight


def _shown(report: Report) -> list[str]:
    statics = sorted((p for p in report.policies if p.startswith(ALWAYS)), key=lambda p: -report.policies[p].value)
    hidden = set(statics[MOST_STATICS:])
    return [p for p in report.policies if p not in hidden]


def _told(gain: Gain) -> str:
    return f"{gain.value:+.4f}  [{gain.ci[0]:+.4f}, {gain.ci[1]:+.4f}]"


def models_table(manifests: Sequence[Manifest], pointer: Pointer, console: Console) -> None:
    """One bundle a line, oldest first."""
    table = plain_table("bundle,objective,rows,AUC,calibration error,trees,state", "rows,AUC,calibration error,trees")
    for manifest in manifests:
        figures = [f"{manifest.metrics.get(name, float('nan')):.4f}" for name in ("auc", "calibration_error")]
        trees = f"{manifest.metrics.get('trees', 0):.0f}"
        state = _state(manifest.bundle_id, pointer)
        table.add_row(manifest.bundle_id, manifest.objective, f"{manifest.rows:,}", *figures, trees, state)
    console.print(table)


def _state(bundle: str, pointer: Pointer) -> str:
    if bundle == pointer.champion:
        return "champion"
    if bundle in pointer.shadows:
        return "shadow"
    for one in pointer.challengers:
        if one.bundle == bundle:
            return f"canary, {one.share:.3g} of the customers"
    if bundle in pointer.others.values():
        return "beside the champion"
    return "former champion" if bundle in pointer.previous else ""
