"""Row 5: challengers that must not serve, and honest ones that may."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pyarrow as pa
import pyarrow.parquet as pq

from features.contract import Feature
from service.bundles.manifest import MANIFEST_FILE, MODEL_FILE, WARMUP_FILE, Calibration, Manifest
from service.bundles.onnx_scorer import OnnxModel
from service.catalog.commands import main as catalog_command
from service.errors import NextbestError
from service.registry import Registry
from tests.acceptance.row import Context, Measured, Row
from training.evaluate import evaluate
from training.fit import FitSettings, Fitted, fit
from training.importing import import_table
from training.judging import Report
from training.learn import Lesson, prepare, publish, train
from training.promotion import promote
from training.simulate import World, write_world

Values = npt.NDArray[np.float64]

SEEDS, AT_LEAST = 10, 9
DECISIONS, CUSTOMERS = 24_000, 4_000
ENOUGH = 140_000  # decisions, of a log at random, to prove within 5 % that a retrain loses nothing
OLD, NEW = 0.4, 0.6  # shares of the rows that the champion and a retrain learn from
END = 1_790_000_000.0  # when the world's 30 days are over: any moment would do
QUICK = FitSettings(threads=2)
BIG = FitSettings(threads=2, rounds=600, learning_rate=0.01, leaves=60, rows_per_leaf=20, patience=60)
# more leaves than can be compiled
DEEP = FitSettings(threads=2, rounds=600, learning_rate=0.004, leaves=80, rows_per_leaf=10, patience=60)
BLIND = FitSettings(threads=2, rows_per_leaf=1_000_000)  # no split is left


class Sabotage(NamedTuple):
    """What was done to a challenger, the check that must say so, and a word of its reason."""

    name: str
    make: Callable[[Path], str]
    check: str
    word: str


def measure(context: Context) -> Measured:
    home = prepared(context.scratch / "sabotaged", context.seed)
    told, caught = [], 0
    for number, sabotage in enumerate(SABOTAGES, 1):
        context.tell(f"{number} of {len(SABOTAGES)}: {sabotage.name}")
        reasons = refused_because(home, sabotage)
        right = [r for r in reasons if r.startswith(f"{sabotage.check}:") and sabotage.word in r]
        caught += bool(right)
        told.append(f"{sabotage.name}: {right[0] if right else f'NOT FOUND, but {reasons}'}")
    leaked = leak_found(context.scratch / "leaking", context.seed)
    told.append(f"label leak: {leaked or 'NOT FOUND'}")
    caught += bool(leaked)
    accepted = [seed for seed in range(SEEDS) if is_accepted(context, seed)]
    all_of_them = len(SABOTAGES) + 1
    figure = f"{caught} of {all_of_them} refused with the right reason; honest retrains accepted: {len(accepted)} of {SEEDS}"
    return Measured(f"{figure}. {'. '.join(told)}", caught == all_of_them and len(accepted) >= AT_LEAST)


def prepared(
    home: Path, seed: int, decisions: int = DECISIONS, *,
    champion: bool = True, spoil: Callable[[pa.Table], pa.Table] | None = None,
) -> Path:  # fmt: skip
    """A home with a log of the simulated world, its catalog, and a champion that has learned from the older part."""
    world = World(CUSTOMERS, seed)
    table, mapping = write_world(home / "source", world, decisions, END, seed)
    if spoil is not None:
        pq.write_table(spoil(pq.read_table(table)), table)
    report = import_table(home, table, mapping)
    catalog_command(["catalog", "publish", str(report.catalog)], home=home, redis_url=None)
    if champion:
        train(home, "click", OLD, QUICK)
        promote(home, evaluate(home, "click"))
    return home


def refused_because(home: Path, sabotage: Sabotage) -> tuple[str, ...]:
    """The reasons against a challenger; none where it may serve."""
    try:
        found = evaluate(home, "click", sabotage.make(home))
    except NextbestError as error:
        return (f"not loaded: {error}",)
    return found.reasons if found.verdict == "refuse" else ()


def is_accepted(context: Context, seed: int) -> bool:
    """Whether a retrain from newer rows of another world may take the champion's place."""
    context.tell(f"an honest retrain, seed {seed}")
    home = prepared(context.scratch / f"honest{seed}", context.seed + 100 + seed, ENOUGH)
    found = evaluate(home, "click", train(home, "click", NEW, QUICK))
    if found.verdict != "promote":
        context.tell(f"seed {seed}: {found.verdict}: {'; '.join(found.reasons)}")
    return found.verdict == "promote"


def leak_found(home: Path, seed: int) -> str:
    """The reason against a model of a log in which a feature was filled in after the outcome."""
    prepared(home, seed, champion=False, spoil=_filled_in_afterwards)
    found: Report = evaluate(home, "click", train(home, "click", NEW, QUICK))
    reasons = [r for r in found.reasons if r.startswith("leak:") and "customer.nps" in r]
    return reasons[0] if reasons and found.verdict == "refuse" else ""


def _filled_in_afterwards(log: pa.Table) -> pa.Table:
    """Who clicked was asked what they think."""
    clicked = np.asarray(log["click"]) > 0
    chance = np.random.default_rng(0)
    scores = np.where(clicked, chance.integers(6, 11, len(clicked)), chance.integers(0, 8, len(clicked))).astype(float)
    return log.set_column(log.column_names.index("nps"), "nps", pa.array(scores))


def learned(home: Path, spoil: Callable[[Lesson], Lesson], settings: FitSettings = QUICK) -> str:
    """A challenger from spoiled rows."""
    lesson = spoil(prepare(home, "click", NEW))
    return publish(Registry(home / "registry"), fit(lesson.inputs, lesson.learned.label, lesson.columns, settings), lesson)


def _labels(change: Callable[[Lesson, Values], Values]) -> Callable[[Lesson], Lesson]:
    def spoiled(lesson: Lesson) -> Lesson:
        return lesson._replace(learned=lesson.learned.with_label(change(lesson, lesson.learned.label)))

    return spoiled


def column_of(name: str, change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> Callable[[Lesson], Lesson]:
    def spoiled(lesson: Lesson) -> Lesson:
        inputs, place = lesson.inputs.copy(), _place(lesson.columns, name)
        inputs[:, place] = change(inputs[:, place])
        return lesson._replace(inputs=inputs)

    return spoiled


def _place(columns: tuple[Feature, ...], key: str) -> int:
    return [feature.key for feature in columns].index(key)


def _as_it_is(lesson: Lesson) -> Lesson:
    return lesson


def _recalibrated(home: Path) -> str:
    """Rates that are too sure of themselves: margins twice as far from the middle."""
    lesson = prepare(home, "click", NEW)
    fitted = fit(lesson.inputs, lesson.learned.label, lesson.columns, QUICK)
    sure = Calibration(2.0 * fitted.calibration.slope, 2.0 * fitted.calibration.intercept)
    return publish(Registry(home / "registry"), Fitted(fitted.booster, sure, fitted.columns, QUICK, fitted.metrics), lesson)


def _north_lost(lesson: Lesson, label: Values) -> Values:
    """The outcomes of one region never arrived."""
    north = np.array([value == "north" for value in lesson.learned.values["customer.region"].to_pylist()])
    return np.where(north, 0.0, label)


def _stale(home: Path) -> str:
    lesson = prepare(home, "click", 0.2)
    return publish(Registry(home / "registry"), fit(lesson.inputs, lesson.learned.label, lesson.columns, QUICK), lesson)


def _other_model(home: Path) -> str:
    """Files that agree with each other, and with nothing that LightGBM has learned."""
    bundle = train(home, "click", NEW, FitSettings(seed=7))
    folder = Registry(home / "registry").bundle_folder(bundle)
    model = onnx.load(folder / MODEL_FILE)
    [weights] = [a for node in model.graph.node for a in node.attribute if a.name == "target_weights"]
    weights.floats[0] += 0.01
    (folder / MODEL_FILE).write_bytes(model.SerializeToString())
    manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=Manifest)
    with np.load(folder / WARMUP_FILE) as rows:
        inputs = rows["inputs"]
    rates = OnnxModel((folder / MODEL_FILE).read_bytes(), len(manifest.inputs)).rates(inputs)
    np.savez(folder / WARMUP_FILE, inputs=inputs, rates=rates)
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest.files}
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, files=files)))
    return bundle


def _sabotages() -> Iterator[Sabotage]:
    chance = np.random.default_rng(0)
    shuffled = _labels(lambda _, label: chance.permutation(label))
    flipped = _labels(lambda _, label: 1.0 - label)
    missing = column_of("customer.favourite_category", lambda column: np.full_like(column, np.nan))
    cents = column_of("customer.spend_12m", lambda column: column * np.float32(100.0))
    yield Sabotage("shuffled labels", lambda home: learned(home, shuffled), "skill", "")
    yield Sabotage("constant", lambda home: learned(home, _as_it_is, BLIND), "skill", "constant")
    yield Sabotage("sign flipped", lambda home: learned(home, flipped), "skill", "sign")
    yield Sabotage("stale", _stale, "age", "stale")
    yield Sabotage("missing feature", lambda home: learned(home, missing), "inputs", "customer.favourite_category")
    yield Sabotage("wrong unit", lambda home: learned(home, cents), "inputs", "customer.spend_12m")
    yield Sabotage("10 x slower", lambda home: learned(home, _as_it_is, DEEP), "latency", "times the champion's")
    yield Sabotage("10 x bigger", lambda home: learned(home, _as_it_is, BIG), "size", "times the champion's")
    yield Sabotage("uncalibrated", _recalibrated, "calibration", "uncalibrated")
    north = _labels(_north_lost)
    yield Sabotage("one segment collapsed", lambda home: learned(home, north), "segments", "`customer.region` = north")
    yield Sabotage("parity broken", _other_model, "parity", "Parity")


SABOTAGES = tuple(_sabotages())

ROW = Row(
    5,
    "sabotaged challengers at the gate, and honest ones",
    f"12 of 12 refused with the right reason; an honest retrain accepted for at least {AT_LEAST} of {SEEDS} seeds",
    measure,
)
