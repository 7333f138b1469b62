"""`nextbest apprentice | stage | guard`: the rungs that a bundle climbs before it serves everybody."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from service.registry import Registry
from training.apprentice import ApprenticeReport, apprentice
from training.guard import GuardReport, guard
from training.judging import Gain
from training.progress import progress_bar
from training.promotion import stage_canary, stage_shadow, step_off
from training.shadowing import shadow_report
from training.split import TRAIN_SHARE
from training.spreading import positive
from training.training_options import share

CANARY_SHARE = 0.05
TAKEN_BACK = 3  # exit code


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every command is called alike
    """Exit code: 0 done, 1 an error to mend, 3 where `guard` took a canary back. Errors are raised for others to tell."""
    options = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace, Path], int] = options.run
    return run(options, home)


def _apprentice(options: argparse.Namespace, home: Path) -> int:
    with progress_bar("Learning") as tell:
        report = apprentice(home, options.share, progress=tell)
    for line in _apprenticeship(report):
        print(line)
    return 0


def _apprenticeship(report: ApprenticeReport) -> Iterator[str]:
    yield f"learned from {report.learned:,} choices among {report.actions} actions; judged on {report.unseen:,} it had not seen"
    yield f"the apprentice names the existing system's choice in {_percent(report.matches)} of these"
    yield f"always saying `{report.usual_action}`, the most frequent one, does so in {_percent(report.usual)}"
    if report.repeats is not None:
        yield f"the existing system itself would repeat its choice in {report.repeats:.1%}, by the probabilities that it logged"
    yield {
        "learned": "so what it decides from is among the inputs: the difference is shown",
        "not shown": "so it is not shown that what it decides from is among the inputs",
        "worse": "so nothing was learned: what it decides from is not among the inputs, or has changed since",
    }[report.verdict]


def _percent(share: Gain) -> str:
    return f"{share.value:.1%} ({max(0.0, share.ci[0]):.1%} to {min(1.0, share.ci[1]):.1%})"


def _shadow(options: argparse.Namespace, home: Path) -> int:
    stage_shadow(home, options.bundle, options.why)
    print(f"`{options.bundle}` is scored on live decisions, and makes none")
    return 0


def _canary(options: argparse.Namespace, home: Path) -> int:
    stage_canary(home, options.bundle, options.share, options.why)
    print(f"`{options.bundle}` decides for {options.share:g} of the customers; `nextbest guard` watches it")
    return 0


def _report(options: argparse.Namespace, home: Path) -> int:
    report = shadow_report(home, options.bundle, time.time())
    print(f"`{report.bundle}` was asked about {report.decisions:,} decisions, and failed in {report.failed}")
    print(f"it would have shown the same in {_percent(report.agreed)}; 99 of 100 took {report.slowest_ms:.2f} ms at most")
    if report.gain is None:
        print("what came of what was served is not known yet, or the champion predicts something else")
        return 0
    gain = report.gain
    proven = "nearer" if gain.ci[0] > 0.0 else "farther" if gain.ci[1] < 0.0 else "not shown to be nearer or farther"
    told = f"log loss {gain.value:+.5f} [{gain.ci[0]:+.5f}, {gain.ci[1]:+.5f}] below the champion's"
    print(f"on {report.rows:,} served items its rates are {proven}: {told}")
    return 0


def _off(options: argparse.Namespace, home: Path) -> int:
    step_off(home, options.bundle, options.why)
    print(f"`{options.bundle}` is neither shadow nor canary any more")
    return 0


def _guard(options: argparse.Namespace, home: Path) -> int:
    while True:
        report = guard(home, time.time())
        if report is None:
            print("no canary is staged: nothing to watch")
            return 0
        _tell(report, home)
        if report.judgement.verdict == "back":
            return TAKEN_BACK
        if options.every is None:
            return 0
        time.sleep(options.every)


def _tell(report: GuardReport, home: Path) -> None:
    print(f"canary `{report.bundle}`, {report.share:g} of the customers since {report.since}: {report.decisions:,} decisions")
    for rail in report.judgement.rails:
        print(f"  {rail.name:10} {'holds' if rail.holds else 'BROKEN':7} {rail.told}")
    champion = Registry(home / "registry").current().champion or "no bundle"
    told = {
        "watch": "it goes on: nothing speaks against it, and nothing is proven yet",
        "proven": f"no loss beyond the margin is left to fear: `nextbest promote {report.bundle}`",
        "back": f"taken back: {champion} decides for its customers again",
    }
    print(told[report.judgement.verdict], flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nextbest")
    verbs = parser.add_subparsers(dest="verb", required=True)
    purpose = "how far the existing system's choices can be foretold"
    learning = verbs.add_parser("apprentice", help=purpose, description=purpose)
    learning.set_defaults(run=_apprentice)
    learning.add_argument("--share", type=share, default=TRAIN_SHARE, help="of the rows to learn from; the rest prove it")

    staging = verbs.add_parser("stage", help="a bundle takes a rung of the ladder, or leaves it")
    rungs = staging.add_subparsers(dest="rung", required=True)

    def rung(name: str, run: Callable[[argparse.Namespace, Path], int], purpose: str) -> argparse.ArgumentParser:
        added = rungs.add_parser(name, help=purpose, description=purpose)
        added.set_defaults(run=run)
        added.add_argument("bundle", metavar="BUNDLE", help="its id: `nextbest models` lists them")
        added.add_argument("--why", default="", help="a note for the history")
        return added

    rung("shadow", _shadow, "scored on live decisions, answers untouched")
    canary = rung("canary", _canary, "decides for a share of the customers, always the same ones")
    canary.add_argument("--share", type=share, default=CANARY_SHARE, help=f"of the customers (default {CANARY_SHARE:g})")
    rung("report", _report, "what a shadow would have done on live traffic, and how near its rates are")
    rung("off", _off, "neither shadow nor canary any more")

    purpose = "judge the canary, and take it back where a guard-rail does not hold (exit code 3)"
    guarding = verbs.add_parser("guard", help=purpose, description=purpose)
    guarding.set_defaults(run=_guard)
    guarding.add_argument(
        "--every", type=positive, metavar="SECONDS", help="go on until it is taken back, or is no canary any more"
    )
    return parser
