"""`nextbest models | rollback`: the bundles that there are, and the one before. On call, nobody waits for a trainer to load."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from service.bundles.loading import read_manifest
from service.errors import NotReady
from service.registry import Registry
from service.verbs import Verbs
from training.cards import told_of
from training.promotion import rollback
from training.summary import models_table, terminal


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:  # noqa: ARG001  # every command is called alike
    """Exit code: 0 done, 1 an error to mend. Errors are raised for the command line to tell."""
    return _verbs().run(argv, home)


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
        for line in told_of(manifest):
            print(f"`{manifest.bundle_id}`: {line}")
    for note in registry.notes():
        against = "; ".join(note.refused) or "nothing"
        print(f"`{note.bundle}` was forced by {note.by} at {note.at}: {note.why} (against it: {against})")
    return 0


def _verbs() -> Verbs:
    verbs = Verbs()

    rolling = verbs.add("rollback", _rollback, "return to the bundle before this one, without shadows and canaries")
    rolling.add_argument("--why", default="", help="a note for the history")

    verbs.add("models", _models, "list bundles")
    return verbs
