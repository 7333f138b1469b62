"""`nextbest import | simulate | train | evaluate | promote | rollback | models`."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from service.bundles.loading import read_manifest
from service.bundles.manifest import Manifest
from service.errors import NotReady
from service.registry import Registry
from training.backfill import card
from training.evaluate import evaluate, newest_bundle, reasons_against
from training.importing import import_table
from training.learn import learn, prepare
from training.progress import progress_bar
from training.promotion import check_why, promote, promote_beside, promote_without_evidence, rollback
from training.publish import LEFT_OUT
from training.simulate import World, write_world
from training.slots import slots_told
from training.spreading import positive
from training.summary import evaluation_table, models_table, terminal
from training.trackers import Told, Tracker, add_tracker_option, open_tracker
from training.training_options import add_training_options, manner_of


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every command is called alike
    """Exit code: 0 done, 1 an error to mend. Errors are raised for the command line to tell."""
    options = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace, Path], int] = options.run
    return run(options, home)


def _import(options: argparse.Namespace, home: Path) -> int:
    with progress_bar(f"Importing {options.table.name}") as tell:
        report = import_table(home, options.table, options.mapping, tell)
    if report.already:
        print("this table was imported before with this mapping: nothing to do")
    else:
        print(f"imported {report.rows} decisions with {report.outcomes} outcomes and {len(report.actions)} actions")
    print(f"review `{report.catalog}`, then: nextbest catalog publish {report.catalog}")
    return 0


def _simulate(options: argparse.Namespace, home: Path) -> int:  # noqa: ARG001  # every verb is called alike
    world = World(options.customers, options.seed)
    table, mapping = write_world(options.folder, world, options.decisions, options.end, options.seed)
    print(
        f"wrote {options.decisions} decisions on {options.customers} customers\nnext: nextbest import {table} --mapping {mapping}"
    )
    return 0


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
    for line in _told_of(read_manifest(Registry(home / "registry").bundle_folder(bundle))):
        print(line)


def _told_of(manifest: Manifest) -> tuple[str, ...]:
    """What of a bundle's card fits no table: values that no row recorded, what slots are worth, from whom it has not learned."""
    slots, rows = slots_told(manifest.metrics), manifest.metrics.get(LEFT_OUT, 0.0)
    without = f"left out: {rows:,.0f} rows of customers who were erased or do not want to be known"
    return (*card(manifest.backfilled), *([slots] if slots else []), *([without] if rows else []))


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


def _rollback(options: argparse.Namespace, home: Path) -> int:
    pointer = rollback(home, options.why)
    print(f"`{pointer.champion}` serves" if pointer.champion else "no bundle serves any more: actions rank by priority")
    return 0


def _models(options: argparse.Namespace, home: Path) -> int:  # noqa: ARG001  # every verb is called alike
    registry = Registry(home / "registry")
    manifests = [read_manifest(registry.bundle_folder(name)) for name in registry.bundles()]
    if not manifests:
        raise NotReady("Expected a trained bundle, found none: run `nextbest train`")
    models_table(sorted(manifests, key=lambda m: (m.created_at, m.bundle_id)), registry.current(), terminal())
    for manifest in manifests:
        for line in _told_of(manifest):
            print(f"`{manifest.bundle_id}`: {line}")
    for note in registry.notes():
        against = "; ".join(note.refused) or "nothing"
        print(f"`{note.bundle}` was forced by {note.by} at {note.at}: {note.why} (against it: {against})")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nextbest")
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace, Path], int], purpose: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=purpose, description=purpose)
        added.set_defaults(run=run)
        return added

    importing = verb("import", _import, "take in a table of logged decisions")
    importing.add_argument("table", type=Path, metavar="TABLE", help="CSV or Parquet, .gz too")
    importing.add_argument("--mapping", type=Path, required=True, metavar="FILE", help="which column means what (TOML)")

    simulating = verb("simulate", _simulate, "write a small world with known truth, ready to import")
    simulating.add_argument("folder", type=Path, metavar="FOLDER")
    simulating.add_argument("--customers", type=positive, default=4000)
    simulating.add_argument("--decisions", type=positive, default=12_000)
    simulating.add_argument("--seed", type=int, default=0)
    simulating.add_argument(
        "--end", type=float, default=time.time(), help="when its 30 days end, in seconds since 1970 (default now)"
    )

    training = verb("train", _train, "learn a bundle from the log")
    add_training_options(training)
    add_tracker_option(training)

    evaluating = verb("evaluate", _evaluate, "what policies are worth, on rows no model saw")
    evaluating.add_argument("--objective", help="outcome, or `value:OUTCOME` (default: the bundle's)")
    evaluating.add_argument("--bundle", help="its id (default: the newest)")
    evaluating.add_argument("--catalog", type=Path, metavar="FILE", help="a draft (default: the one that serves)")
    evaluating.add_argument("--json", action="store_true", help="for machines")

    promoting = verb("promote", _promote, "let a proven bundle serve")
    promoting.add_argument("bundle", nargs="?", help="its id (default: the newest)")
    promoting.add_argument("--why", default="", help="a note for the history")
    promoting.add_argument("--force", action="store_true", help="without evidence; a note in the registry says who and `--why`")
    promoting.add_argument("--by", default="", metavar="NAME", help="who insists (default: the login)")
    add_tracker_option(promoting)
    promoting.add_argument("--beside", action="store_true", help="for a further objective, beside the champion")

    rolling = verb("rollback", _rollback, "return to the bundle before this one, without shadows and canaries")
    rolling.add_argument("--why", default="", help="a note for the history")

    verb("models", _models, "list bundles")
    return parser
