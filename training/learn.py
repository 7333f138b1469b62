"""`nextbest train`: from the log to a bundle in the registry."""

import datetime as dt
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from features.contract import Feature
from features.homes import home_contract
from features.vectors import Matrix
from service.bundles.loading import read_manifest
from service.bundles.manifest import Split
from service.errors import BadRequest
from service.registry import Registry
from training.evaluate import current_catalog
from training.examples import Examples, Objective, load_examples, outcome_types
from training.fit import FitSettings, Fitted, fit
from training.lake import IMPRESSION
from training.learning_rules import FILE, LearningRules, read_rules
from training.maturity import mature
from training.pairs import with_pairs
from training.publish import Provenance, publish_bundle
from training.split import TRAIN_SHARE, choose_split, seen

Progress = Callable[[int, int], None]


def train(
    home: Path,
    objective: str | None = None,
    share: float = TRAIN_SHARE,
    settings: FitSettings | None = None,
    progress: Progress = lambda _done, _of: None,
) -> str:
    """Learn from the older part of the log (`share` of its rows), publish, and return the bundle's id. It does not serve yet.

    Raises NotReady where there is too little to learn from, and BundleRefused where the export would not predict the same.
    """
    how = Manner(settings or FitSettings())
    return learn(home, prepare(home, objective, share), how, progress).bundle


class Manner(msgspec.Struct, frozen=True):
    """How a model is learned: by which settings, after how many trials (0: no search), and where.

    With the engine `dask`: on the cluster of `scheduler`, or, without one, on `settings.threads` processes of this machine.
    """

    settings: FitSettings = FitSettings()
    trials: int = 0
    engine: Literal["local", "dask"] = "local"
    scheduler: str | None = None


class Lesson(NamedTuple):
    """What there is to learn from. `inputs`: float32 (rows, columns), of the rows `learned`. `monotone`: by key of an input."""

    objective: Objective
    learned: Examples
    split: Split
    columns: tuple[Feature, ...]
    inputs: Matrix
    monotone: dict[str, int] = {}


class Trained(NamedTuple):
    """A bundle in the registry, what it was exported from, and what that was learned from."""

    bundle: str
    fitted: Fitted
    lesson: Lesson


def learn(home: Path, lesson: Lesson, how: Manner, progress: Progress = lambda _done, _of: None) -> Trained:
    """Search where that is asked for, learn, publish. Raises NotReady and BundleRefused."""
    settings = msgspec.structs.replace(how.settings, monotone={**lesson.monotone, **how.settings.monotone})
    if how.trials:
        found = _optional("tuning").tune(
            lesson.inputs, lesson.learned.label, lesson.columns, settings, how.trials, progress=progress
        )
        settings = found.settings
    grow = _optional("dask_training").grow_on(how.scheduler, settings.threads) if how.engine == "dask" else None
    fitted = fit(lesson.inputs, lesson.learned.label, lesson.columns, settings, progress, grow=grow)
    return Trained(publish(Registry(home / "registry"), fitted, lesson), fitted, lesson)


def _optional(module: str) -> Any:  # noqa: ANN401  # a module; it needs packages that few have installed
    return importlib.import_module(f"training.{module}")


def prepare(home: Path, objective: str | None = None, share: float = TRAIN_SHARE) -> Lesson:
    """The older part of the log as a model meets it. Raises NotReady and BadRequest."""
    registry, contract = Registry(home / "registry"), home_contract(home)
    catalog = current_catalog(registry, contract)
    wanted = Objective(objective or default_objective(home, registry))
    wanted = Objective(wanted.name, read_rules(home).window(wanted.outcome))
    if wanted.is_value:
        raise BadRequest(f"Expected an outcome whose rate can be learned, got `{wanted.name}` - at `--objective`")
    examples = mature(load_examples(home, wanted, contract), wanted.window)
    split = choose_split(examples, share)
    learned = examples.take(seen(split, examples))
    columns = (*contract.features, *catalog.attributes)
    inputs = learned.matrix(columns, {action.id: action.attributes for action in catalog.actions})
    columns, inputs = with_pairs(columns, inputs, learned.label)
    return Lesson(wanted, learned, split, columns, inputs, _monotone(read_rules(home), columns))


def _monotone(rules: LearningRules, columns: Sequence[Feature]) -> dict[str, int]:
    """As learning.toml has it. Raises BadRequest for what is no input, or no number."""
    numbers = {feature.key for feature in columns if feature.type == "number"}
    for key in rules.monotone:
        if key not in numbers:
            raise BadRequest(f"Expected an input that is a number, got `{key}` - at `{FILE}`, `monotone`")
    return dict(rules.monotone)


def publish(registry: Registry, fitted: Fitted, lesson: Lesson) -> str:
    """Store what was learned as a bundle; its id. Raises BundleRefused where the export would not predict the same."""
    told = _provenance(lesson.objective, lesson.learned, lesson.split)
    return publish_bundle(registry, fitted, told, lesson.inputs, dt.datetime.now(dt.UTC))


def default_objective(home: Path, registry: Registry) -> str:
    """What the champion predicts; without one, the only outcome that there is. Raises BadRequest naming them."""
    champion = registry.current().champion
    if champion is not None:
        return read_manifest(registry.bundle_folder(champion)).objective
    known = [name for name in outcome_types(home) if name != IMPRESSION]
    if len(known) != 1:
        listed = ", ".join(f"`{name}`" for name in known) or "none so far"
        raise BadRequest(f"Expected an objective among the outcomes ({listed}), got none - at `--objective`")
    return known[0]


def _provenance(objective: Objective, learned: Examples, split: Split) -> Provenance:
    actions, inverse = np.unique(learned.action_id, return_inverse=True)
    counts = np.bincount(inverse)
    rates = np.bincount(inverse, learned.label) / counts
    return Provenance(
        objective=objective.name, rows=len(learned), base_rate=float(learned.label.mean()),
        action_rates=dict(zip(actions.tolist(), rates.tolist(), strict=True)),
        action_rows=dict(zip(actions.tolist(), counts.tolist(), strict=True)), split=split,
        dataset_fingerprint=learned.fingerprint, learned_until=float(learned.decided_at.max()),
    )  # fmt: skip
