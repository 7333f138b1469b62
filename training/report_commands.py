"""`nextbest report | drift`: how things go, on one page; and whether they still go as when the champion learned."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec

from service.verbs import Verbs
from training.days import end_of, start_of
from training.progress import progress_bar
from training.report_drift import TRAIN, Drifted, Reference, drifted
from training.report_figures import figures
from training.report_page import write_page
from training.summary import plain_table, terminal

DRIFTED = 2  # exit code


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every command is called alike
    """Exit code: 0 done, 2 something has drifted. Errors are raised for the command line to tell."""
    return _verbs().run(argv, home)


def _report(options: argparse.Namespace, home: Path) -> int:
    with progress_bar("Reporting") as tell:
        found = figures(home, options.since, tell)
    print(f"wrote {write_page(found, options.out)}")
    return 0


def _drift(options: argparse.Namespace, home: Path) -> int:
    with progress_bar("Comparing") as tell:
        found = drifted(home, options.reference, tell)
    if options.json:
        told = {**msgspec.to_builtins(found), "reasons": found.reasons}
        print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    else:
        _tell(found)
    return DRIFTED if found.reasons else 0


def _tell(found: Drifted) -> None:
    console = terminal()
    then, now = found.rows
    console.print(f"{found.bundle}: {now:,} rows of now against {then:,} of then")
    table = plain_table("input,stability index,by chance, ", "stability index,by chance")
    for one in found.inputs.columns:
        table.add_row(one.column, f"{one.index:.3f}", f"{one.by_chance:.3f}", "moved" if one.is_shifted else "")
    console.print(table if found.inputs.columns else "no inputs to compare: the home has no features")
    rates = plain_table(f"action,{found.objective} then,now,p, ", f"{found.objective} then,now,p")
    for rate in found.rates:
        rates.add_row(
            rate.action, f"{rate.then.value:.4f}", f"{rate.now.value:.4f} [{rate.now.low:.4f} to {rate.now.high:.4f}]",
            f"{rate.p:.2g}", "moved" if rate.is_shifted else "",
        )  # fmt: skip
    console.print(rates)
    console.print("\n".join(f"drift: {reason}" for reason in found.reasons) or "no drift")


def _verbs() -> Verbs:
    verbs = Verbs()
    reporting = verbs.add("report", _report, "value, calibration, experiments, drift and exploration on one page")
    reporting.add_argument(
        "--since", type=start_of, default=float("-inf"), metavar="DATE", help="decisions from this day on, UTC"
    )
    reporting.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="default: report.html")
    drifting = verbs.add("drift", _drift, "rows since the champion's training against those it learned from")
    drifting.add_argument(
        "--reference", type=_reference, metavar="train|DATES", help="`train`, or days like 2026-11-01..2026-11-14"
    )
    drifting.add_argument("--json", action="store_true", help="for machines")
    return verbs


def _reference(text: str) -> Reference | None:
    if text == TRAIN:
        return None
    start, dots, end = text.partition("..")
    if not dots:
        raise argparse.ArgumentTypeError(f"Expected `{TRAIN}`, or days like 2026-11-01..2026-11-14, got `{text}`")
    found = Reference(start_of(start), end_of(end))
    if found.start >= found.end:
        raise argparse.ArgumentTypeError(f"Expected an end after the start, got `{text}`")
    return found
