"""`nextbest train | evaluate | promote`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec

from service.bundles.loading import read_manifest
from service.registry import Registry
from service.verbs import Verbs
from training.cards import told_of
from training.evaluate import evaluate, newest_bundle, reasons_against
from training.learn import learn, prepare
from training.progress import progress_bar
from training.promotion import check_why, promote, promote_beside, promote_without_evidence
from training.summary import evaluation_table, terminal
from training.trackers import Told, Tracker, add_tracker_option, open_tracker
from training.training_options import add_training_options, manner_of


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every command is called alike
    """Exit code: 0 done, 1 an error to mend. Errors are raised for the command line to tell."""
    return _verbs().run(argv, home)


def _train(options: argparse.Namespace, home: Path) -> int:
    how, tracker = manner_of(options), open_tracker(home, options.mlflow)
    with progress_bar("Training") as tell:
        trained = learn(home, prepare(home, options.objective, options.share, tell), how, tell)
    if how.trials:
        figures = trained.fitted.settings.figures().items()
        print(f"best of {how.trials} trials: {', '.join(f'{name} {value:.3g}' for name, value in figures)}")
    if trained.weighing is not None:
        print(trained.weighing.told())
    _print_card(trained.bundle, home)
    print(trained.bundle)
    tracker.track(Told(trained.bundle, trained))
    return 0


def _print_card(bundle: str, home: Path) -> None:
    for line in told_of(read_manifest(Registry(home / "registry").bundle_folder(bundle))):
        print(line)


def _evaluate(options: argparse.Namespace, home: Path) -> int:
    with progress_bar("Evaluating") as tell:
        report = evaluate(home, options.objective, options.bundle, options.catalog, tell)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        evaluation_table(report, terminal())
    return 0


def _promote(options: argparse.Namespace, home: Path) -> int:
    if options.beside:
        chosen = options.bundle or newest_bundle(Registry(home / "registry"), None)
        print(f"`{chosen}` predicts `{promote_beside(home, chosen, options.why)}` beside the champion")
        return 0
    tracker = open_tracker(home, options.mlflow)
    if options.force:
        return _force(options, home, tracker)
    with progress_bar("Evaluating") as tell:
        report = evaluate(home, bundle=options.bundle, progress=tell)
    promote(home, report, options.why)
    _print_card(report.bundle, home)
    print(f"`{report.bundle}` serves: {'; '.join(report.reasons)}")
    tracker.track(Told(report.bundle, report=report, promoted=True))
    return 0


def _force(options: argparse.Namespace, home: Path, tracker: Tracker) -> int:
    check_why(options.why)
    chosen = options.bundle or newest_bundle(Registry(home / "registry"), None)
    with progress_bar("Evaluating") as tell:
        refused = reasons_against(home, chosen, tell)
    promote_without_evidence(home, chosen, options.why, by=options.by, refused=refused)
    tracker.track(Told(chosen, promoted=True))
    print(f"`{chosen}` serves: forced; the note in the registry says who, why, and what spoke against it: {'; '.join(refused)}")
    return 0


def _verbs() -> Verbs:
    verbs = Verbs()

    training = verbs.add("train", _train, "learn a bundle from the log")
    add_training_options(training)
    add_tracker_option(training)

    evaluating = verbs.add("evaluate", _evaluate, "what policies are worth, on rows no model saw")
    evaluating.add_argument("--objective", help="outcome, or `value:OUTCOME` (default: the bundle's)")
    evaluating.add_argument("--bundle", help="its id (default: the newest)")
    evaluating.add_argument("--catalog", type=Path, metavar="FILE", help="a draft (default: the one that serves)")
    evaluating.add_argument("--json", action="store_true", help="for machines")

    promoting = verbs.add("promote", _promote, "let a proven bundle serve")
    promoting.add_argument("bundle", nargs="?", help="its id (default: the newest)")
    promoting.add_argument("--why", default="", help="a note for the history")
    promoting.add_argument("--force", action="store_true", help="without evidence; a note in the registry says who and `--why`")
    promoting.add_argument("--by", default="", metavar="NAME", help="who insists (default: the login)")
    add_tracker_option(promoting)
    promoting.add_argument("--beside", action="store_true", help="for a further objective, beside the champion")

    return verbs
