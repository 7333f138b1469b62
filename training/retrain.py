"""`nextbest retrain`: one round trains, evaluates, and promotes if the gate says so. There are never two at once."""

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import duckdb
import lightgbm
import msgspec
import pyarrow as pa

from features.contract import ContractError
from service.bundles.loading import read_manifest
from service.bundles.manifest import Manifest
from service.errors import NextbestError, NotReady
from service.registry import Registry
from training.backfill import card
from training.evaluate import evaluate
from training.fit import FitSettings
from training.judging import Report
from training.learn import Lesson, Manner, Trained, learn, predicted, prepare, weights_of
from training.promotion import promote
from training.publish import WEIGHED_TO
from training.sealing import ManifestInvalid
from training.split import TRAIN_SHARE

Progress = Callable[[int, int], None]
Stage = Literal["promote", "none"]
Result = Literal["promoted", "ready", "kept", "skipped"]

LOCK = "retrain.lock"
FAILURES = (
    NextbestError, ContractError, ManifestInvalid, OSError, MemoryError, lightgbm.basic.LightGBMError, duckdb.Error,
    pa.ArrowException,
)  # fmt: skip
"""What one round may fail of and the next one not: rows, files, memory, libraries. A mistake in the code is none of them."""


class Plan(msgspec.Struct, frozen=True):
    """What each round does. `stage`: `none` leaves the promotion to somebody else."""

    objective: str | None = None
    share: float = TRAIN_SHARE
    how: Manner = Manner()
    stage: Stage = "promote"


class Round(NamedTuple):
    """What one round did, and why, in words. No `report`: nothing was evaluated; no `trained`: nothing was learned."""

    result: Result
    bundle: str
    told: tuple[str, ...]
    report: Report | None = None
    trained: Trained | None = None


ONCE = Plan()


def retrain(home: Path, plan: Plan = ONCE, progress: Progress = lambda _done, _of: None) -> Round:
    """One round. That the gate keeps the champion is a result, not an error.

    Raises NotReady where another round is under way or there is too little to learn from, BundleRefused, and RegistryError where
    another bundle has come to serve meanwhile: the next round judges against that one.
    """
    with alone(home):
        lesson, registry = prepare(home, plan.objective, plan.share, progress), Registry(home / "registry")
        rows, champion = lesson.learned.fingerprint, registry.current().champion
        known = [m for m in _learned_from(rows, lesson, registry) if _is_as_asked(m, lesson, plan.how)]
        if champion is not None and any(manifest.bundle_id == champion for manifest in known):
            return Round("skipped", champion, (f"no mature rows have come since `{champion}` was trained, which serves",))
        if known and known[-1].bundle_id in registry.taken_back():
            back = f"`{known[-1].bundle_id}` has learned from the same rows before, and somebody went back from it"
            return Round("skipped", known[-1].bundle_id, (f"{back}: `nextbest promote` lets it serve again",))
        if known:
            report = evaluate(home, bundle=known[-1].bundle_id, progress=progress)
            return _conclude(home, plan, report, f"`{known[-1].bundle_id}` has learned from the same rows before")
        trained = learn(home, lesson, plan.how, progress)
        report = evaluate(home, bundle=trained.bundle, progress=progress)
        return _conclude(home, plan, report, _news(lesson, champion, registry))._replace(trained=trained)


def _learned_from(rows: str, lesson: Lesson, registry: Registry) -> list[Manifest]:
    """The bundles that have learned from just these rows, oldest first."""
    manifests = [read_manifest(registry.bundle_folder(name)) for name in registry.bundles()]
    found = [m for m in manifests if (m.dataset_fingerprint, m.objective) == (rows, lesson.objective.name)]
    return sorted(found, key=lambda m: (m.created_at, m.bundle_id))


def _is_as_asked(manifest: Manifest, lesson: Lesson, how: Manner) -> bool:
    """Whether the bundle predicts what is asked for, and was learned in that manner: weights, and settings that are unusual."""
    if manifest.predicts != predicted(lesson, how):
        return False
    if how.uplift:
        return True
    if (WEIGHED_TO in manifest.settings) != (weights_of(lesson, how) != "none"):
        return False
    usual, asked = FitSettings().figures(), how.settings.figures()
    unusual = {name: value for name, value in asked.items() if name != "threads" and usual.get(name) != value}
    return all(manifest.settings.get(name) == value for name, value in unusual.items())


def _news(lesson: Lesson, champion: str | None, registry: Registry) -> str:
    told = f"learned `{lesson.objective.name}` from {len(lesson.learned):,} rows"
    if champion is None:
        return told
    until = read_manifest(registry.bundle_folder(champion)).learned_until
    newer = 0 if until is None else int((lesson.learned.decided_at > until).sum())
    return f"{told}, {newer:,} of them newer than any of the champion's"


def _conclude(home: Path, plan: Plan, report: Report, done: str) -> Round:
    manifest = read_manifest(Registry(home / "registry").bundle_folder(report.bundle))
    told = (done, *card(manifest.backfilled), *report.reasons)
    if report.verdict != "promote":
        return Round("kept", report.bundle, told, report)
    if plan.stage == "none":
        return Round("ready", report.bundle, told, report)
    promote(home, report, "retrained")
    return Round("promoted", report.bundle, told, report)


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """No other round on this home meanwhile. Raises NotReady where one is under way."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NotReady(f"Expected to be alone, found another round under way - at `{home / LOCK}`") from error
        yield


def rounds(run: Callable[[], Round], every: float, wait: Callable[[float], bool]) -> Iterator[Round | Exception]:
    """What each round did, or what it failed of; they begin `every` so many seconds, later where one takes longer.

    `wait(seconds)` says whether to go on.
    """
    going = True
    while going:
        begun = time.monotonic()
        try:
            yield run()
        except FAILURES as error:
            yield error
        going = wait(max(0.0, begun + every - time.monotonic()))
