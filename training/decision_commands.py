"""`nextbest explain | replay | whatif | experiments`: decisions that were made, or would have been."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec

from features.homes import home_contract
from service.bundles.archive import EngineArchive
from service.bundles.loading import read_manifest
from service.catalog.validate import read_catalog
from service.decision.explain import Explanation, explain
from service.decision.records import DecisionRecord
from service.errors import BadRequest, NotReady
from service.explaining import expect_actions
from service.registry import Registry
from service.verbs import Verbs
from training.contributions import Contribution, contributions
from training.days import end_of, start_of
from training.decision_log import find_decision
from training.decision_tables import experiments_table, explanation_table, replay_table, whatif_table
from training.examples import Objective, expect_known
from training.experiments import experiments
from training.progress import progress_bar
from training.replay import replay
from training.spreading import positive
from training.summary import terminal
from training.whatif import Draft, what_if

EVERY = "*"  # in place of a list of actions


class Told(msgspec.Struct, frozen=True):
    """An explanation, and for some actions what each input of the model adds to the logit of their predicted rate."""

    explanation: Explanation
    contributions: dict[str, list[Contribution]]


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """Exit code: 0 done, 1 where a replay does not hold. Errors are raised for the command line to tell."""
    del redis_url
    return _verbs().run(argv, home)


def _explain(options: argparse.Namespace, home: Path) -> int:
    record = find_decision(home, options.decision_id)
    told = explained(home, record, options.changes, tuple(options.action))
    if options.json:
        _print_json(told)
    else:
        explanation_table(told.explanation, told.contributions, terminal())
    return 0


def explained(home: Path, record: DecisionRecord, changes: str, actions: tuple[str, ...] = ()) -> Told:
    """Why a logged decision was made. `actions`: whose inputs are told, those that were served where empty.

    Raises BadRequest for actions that nobody knows, RegistryError and BundleRefused where the versions that made it are gone.
    """
    registry = Registry(home / "registry")
    engine = EngineArchive(registry, home_contract(home)).engine_of(record)
    wanted = None if changes == EVERY else frozenset(filter(None, changes.split(",")))
    expect_actions(engine, record, wanted or (), "--changes")
    expect_actions(engine, record, actions, "--action")
    found = explain(engine, record, changes_for=wanted)
    if record.versions.bundle is None:
        return Told(found, {})
    manifest = read_manifest(registry.bundle_folder(record.versions.bundle))
    attributes = {action.id: action.attributes for action in engine.of(record.experiment).actions}
    named = actions or tuple(i.action_id for p in record.placements if not p.fallback for i in p.items)
    known = [name for name in dict.fromkeys(named) if name in attributes]
    return Told(found, {name: contributions(registry, manifest, record, name, attributes[name]) for name in known})


def _replay(options: argparse.Namespace, home: Path) -> int:
    if not options.start < options.end:
        raise BadRequest("Expected a span that begins before it ends, got one that ends before - at `--from`, `--to`")
    with progress_bar("Replaying") as tell:
        report = replay(home, options.start, options.end, tell)
    if options.json:
        _print_json(report)
    else:
        replay_table(report, terminal())
    return 0 if report.holds else 1


def _whatif(options: argparse.Namespace, home: Path) -> int:
    document, _ = read_catalog(options.catalog, home_contract(home))
    bundle = options.bundle or Registry(home / "registry").current().champion
    objective = _outcome(home, options.objective, bundle)
    with progress_bar("Deciding again") as tell:
        report = what_if(home, Draft(document, bundle), objective, options.processes, tell)
    if options.json:
        _print_json(report)
    else:
        whatif_table(report, terminal())
    return 0


def _experiments(options: argparse.Namespace, home: Path) -> int:
    objective = _outcome(home, options.objective, Registry(home / "registry").current().champion)
    with progress_bar("Counting") as tell:
        reports = experiments(home, objective, tell)
    if options.json:
        _print_json(reports)
    else:
        experiments_table(reports, terminal())
    return 0


def _outcome(home: Path, asked: str | None, bundle: str | None) -> str:
    """What is counted: the outcome that was asked for, or the bundle's. Raises BadRequest for one that nobody logged."""
    if asked:
        wanted = Objective(asked)
        expect_known(home, wanted)
        return wanted.outcome
    if bundle is None:
        raise NotReady("Expected a bundle that serves, or `--objective`; found neither")
    return Objective(read_manifest(Registry(home / "registry").bundle_folder(bundle)).objective).outcome


def _print_json(report: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())


def _verbs() -> Verbs:
    verbs = Verbs()

    explaining = verbs.add("explain", _explain, "why a decision was made")
    explaining.add_argument("decision_id", metavar="ID")
    explaining.add_argument(
        "--changes", default="", metavar="ACTIONS", help=f"actions, with commas, or `{EVERY}`: what would have shown them"
    )
    explaining.add_argument(
        "--action", action="append", default=[], metavar="ACTION", help="whose inputs are told (default: those that were served)"
    )

    replaying = verbs.add("replay", _replay, "make logged decisions again, and compare byte for byte")
    replaying.add_argument("--from", dest="start", type=start_of, default=float("-inf"), metavar="D", help="day or moment, UTC")
    replaying.add_argument("--to", dest="end", type=end_of, default=float("inf"), metavar="D", help="day, included, or moment")

    trying = verbs.add("whatif", _whatif, "what a draft would have made of the logged decisions")
    trying.add_argument("--catalog", type=Path, required=True, metavar="FILE", help="the draft")
    trying.add_argument("--bundle", metavar="ID", help="that serves with it (default: the champion)")
    trying.add_argument("--objective", help="the outcome that is counted (default: the bundle's)")
    trying.add_argument("--processes", type=positive, help="default: one per core")
    comparing = verbs.add("experiments", _experiments, "what the arms of experiments brought, and whether they differ")
    comparing.add_argument("--objective", help="the outcome that is counted (default: the champion's)")
    for telling in (explaining, replaying, trying, comparing):
        telling.add_argument("--json", action="store_true", help="for machines")
    return verbs
