"""`nextbest train`: from the log to a bundle in the registry."""

import datetime as dt
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from features.contract import SLOT, Feature
from features.homes import home_contract
from features.vectors import Matrix
from service.bundles.loading import read_manifest
from service.bundles.manifest import Split
from service.catalog.entities import Action
from service.decision.scoring import Predicts
from service.errors import BadRequest, NotReady
from service.registry import Registry
from training.choice_weights import Weighing, choice_weights
from training.evaluate import current_catalog
from training.examples import Examples, Objective, Values, expect_known, listed, load_examples, outcome_types
from training.fit import FEWEST_ROWS, FitSettings, Fitted, fit
from training.lake import IMPRESSION
from training.learning_rules import FILE, LearningRules, TrainingRules, read_rules
from training.maturity import mature
from training.pairs import with_pairs
from training.publish import Provenance, publish_bundle
from training.slots import with_slot
from training.split import TRAIN_SHARE, choose_split, seen
from training.two_parts import fit_two_parts
from training.uplift_bundle import fit_uplift

DAY = 86_400.0

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
    return learn(home, prepare(home, objective, share, progress), how, progress).bundle


class Manner(msgspec.Struct, frozen=True):
    """How a model is learned: by which settings, after how many trials (0: no search), and where.

    With the engine `dask`: on the cluster of `scheduler`, or, without one, on `settings.threads` processes of this machine.
    """

    settings: FitSettings = FitSettings()
    trials: int = 0
    engine: Literal["local", "dask"] = "local"
    scheduler: str | None = None
    weights: Literal["none", "choice"] | None = None  # None: as learning.toml says
    uplift: bool = False  # whether to learn what actions change instead of what comes of them; without a search, and here


class Lesson(NamedTuple):
    """What there is to learn from. `inputs`: float32 (rows, columns), of the rows `learned`. `monotone`: by key of an input."""

    objective: Objective
    learned: Examples
    split: Split
    columns: tuple[Feature, ...]
    inputs: Matrix
    monotone: dict[str, int] = {}
    training: TrainingRules = TrainingRules()
    actions: tuple[Action, ...] = ()

    @property
    def successes(self) -> Values:
        """Whether a row brought anything: 0 or 1, (rows,)."""
        return (self.learned.label > 0).astype(np.float64)


class Trained(NamedTuple):
    """A bundle in the registry, what it was exported from, and what that was learned from. `weighing`: None, rows count alike."""

    bundle: str
    fitted: Fitted
    lesson: Lesson
    weighing: Weighing | None = None


def learn(home: Path, lesson: Lesson, how: Manner, progress: Progress = lambda _done, _of: None) -> Trained:
    """Search where that is asked for, learn, publish. Raises NotReady and BundleRefused."""
    if how.uplift:
        gains = fit_uplift(lesson.learned, lesson.columns, lesson.actions, how.settings, progress)
        return Trained(publish(Registry(home / "registry"), gains.fitted, lesson, gains=gains.means), gains.fitted, lesson)
    settings = msgspec.structs.replace(how.settings, monotone={**lesson.monotone, **how.settings.monotone})
    weighing = _weighing(lesson, how)
    weights = None if weighing is None else weighing.weights
    if how.trials:
        found = _optional("tuning").tune(
            lesson.inputs, lesson.successes, lesson.columns, settings, how.trials, progress=progress, weights=weights
        )
        settings = found.settings
    grow = _optional("dask_training").grow_on(how.scheduler, settings.threads) if how.engine == "dask" else None
    learn_it = fit_two_parts if lesson.objective.is_value else fit
    fitted = learn_it(lesson.inputs, lesson.learned.label, lesson.columns, settings, progress, grow=grow, weights=weights)
    return Trained(publish(Registry(home / "registry"), fitted, lesson, weighing), fitted, lesson, weighing)


def _weighing(lesson: Lesson, how: Manner) -> Weighing | None:
    if weights_of(lesson, how) == "none":
        return None
    return choice_weights(lesson.learned.choice_probability, lesson.training.most)


def weights_of(lesson: Lesson, how: Manner) -> Literal["none", "choice"]:
    """How rows count: as asked for, else as learning.toml says."""
    return how.weights or lesson.training.weights


def predicted(lesson: Lesson, how: Manner) -> Predicts:
    """What the model will predict."""
    if how.uplift:
        return "uplift"
    return "value" if lesson.objective.is_value else "rate"


def _optional(module: str) -> Any:  # noqa: ANN401  # a module; it needs packages that few have installed
    return importlib.import_module(f"training.{module}")


def prepare(
    home: Path, objective: str | None = None, share: float = TRAIN_SHARE, progress: Progress = lambda _done, _of: None
) -> Lesson:
    """The older part of the log as a model meets it. Raises NotReady and BadRequest."""
    registry, contract = Registry(home / "registry"), home_contract(home)
    registry.keep_contract(contract.fingerprint, contract.canonical)
    catalog = current_catalog(registry, contract)
    wanted = Objective(objective or default_objective(home, registry))
    rules = read_rules(home)
    wanted = Objective(wanted.name, rules.window(wanted.outcome))
    found = load_examples(home, wanted, contract, progress)
    examples = mature(found, wanted.window)
    if not examples.label.any():
        expect_known(home, wanted)
    if len(examples) < FEWEST_ROWS <= len(found):
        raise NotReady(
            f"Expected at least {FEWEST_ROWS} rows whose window of {wanted.window:.0f} s is over, found {len(examples)} of "
            f"{len(found)} (a table imported without `decided_at` is of that moment): wait, or shorten it - in `{FILE}`"
        )
    split = choose_split(examples, share, rules.gate.oldest_days * DAY)
    learned = examples.take(seen(split, examples))
    columns = with_slot((*contract.features, *catalog.attributes), learned.slot, rules.training.slot)
    inputs = learned.matrix(columns, {action.id: action.attributes for action in catalog.actions})
    columns, inputs = with_pairs(columns, inputs, learned.label)
    return Lesson(wanted, learned, split, columns, inputs, _monotone(rules, columns), rules.training, catalog.actions)


def _monotone(rules: LearningRules, columns: Sequence[Feature]) -> dict[str, int]:
    """As learning.toml has it; of the slot where it is an input. Raises BadRequest for what is no input, or no number."""
    numbers = {feature.key for feature in columns if feature.type == "number"}
    for key in rules.monotone:
        if key not in {*numbers, SLOT.key}:
            raise BadRequest(f"Expected an input that is a number, got `{key}` - at `{FILE}`, `monotone`")
    return {key: way for key, way in rules.monotone.items() if key in numbers}


def publish(
    registry: Registry, fitted: Fitted, lesson: Lesson, weighing: Weighing | None = None, gains: dict[str, float] | None = None
) -> str:
    """Store what was learned as a bundle; its id. Raises BundleRefused where the export would not predict the same.

    `gains`: of an uplift, the mean of each action.
    """
    told = msgspec.structs.replace(_provenance(lesson.objective, lesson.learned, lesson.split), weighing=weighing)
    if gains is not None:
        mean = sum(gains[action] * rows for action, rows in told.action_rows.items()) / told.rows
        told = msgspec.structs.replace(told, base_rate=mean, action_rates=gains)
    return publish_bundle(registry, fitted, told, lesson.inputs, dt.datetime.now(dt.UTC))


def default_objective(home: Path, registry: Registry) -> str:
    """What the champion predicts; without one, the only outcome that there is. Raises BadRequest naming them."""
    champion = registry.current().champion
    if champion is not None:
        return read_manifest(registry.bundle_folder(champion)).objective
    known = [name for name in outcome_types(home) if name != IMPRESSION]
    if len(known) != 1:
        raise BadRequest(f"Expected an objective among the outcomes ({listed(known)}), got none - at `--objective`")
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
        backfilled={key: one.summary(learned.decided_at) for key, one in learned.backfills.items()},
        left_out=learned.left_out,
    )  # fmt: skip
