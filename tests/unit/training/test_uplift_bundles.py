"""A bundle that predicts what actions change: it serves those who are moved, and leaves alone who buys anyway."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from features.homes import home_contract
from service.bundles.archive import EngineArchive
from service.bundles.loading import load_bundle, read_manifest
from service.bundles.manifest import Manifest
from service.bundles.uplift_scorer import UpliftScorer
from service.catalog.entities import PRIMARY
from service.cli import main
from service.decision.again import decide_again, encode_record
from service.decision.decide import decide
from service.decision.engine import without_models
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.errors import NotReady
from service.registry import Registry
from tests.unit.training.conftest import write_log
from training.batch import serving_engine
from training.contributions import BASE, contributions
from training.evaluate import evaluate
from training.fit import FitSettings
from training.importing import import_table
from training.learn import Manner, learn, prepare, train
from training.promotion import promote
from training.uplift_bundle import MOST_PAIRS, fit_uplift, picked

ROWS, ACTIONS = 12_000, ("call", "mail", "wait")
QUICK = FitSettings(threads=1)
MAPPING = """
[log]
customer_id = "customer_id"
action_id = "action_id"
choice_probability = 0.3333333
placement = "=phone"
[features]
loyalty = "number"
openness = "number"
[outcomes]
order = "binary"
spend = "value"
"""


def effects(openness: np.ndarray) -> np.ndarray:
    """What a call, a mail and waiting change: a call helps the open and annoys the others, a mail does next to nothing."""
    return np.column_stack([0.25 * np.tanh(2.0 * openness), np.full(len(openness), 0.02), np.zeros(len(openness))])


def write_table(folder: Path) -> Path:
    """The loyal buy anyway, whatever is done."""
    chance = np.random.default_rng(7)
    loyalty, openness, done = chance.normal(size=ROWS), chance.normal(size=ROWS), chance.integers(0, 3, ROWS)
    rate = 0.25 + 0.45 / (1 + np.exp(-3.0 * loyalty)) + effects(openness)[np.arange(ROWS), done]
    order = (chance.random(ROWS) < rate).astype(float)
    table = pa.table({
        "customer_id": [f"c{n}" for n in range(ROWS)], "action_id": np.array(ACTIONS)[done], "loyalty": loyalty,
        "openness": openness, "order": order, "spend": 40.0 * order,
    })  # fmt: skip
    pq.write_table(table, folder / "log.parquet")
    (folder / "mapping.toml").write_text(MAPPING)
    return folder / "log.parquet"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported; waiting is worth nothing, an order 10; a bundle of uplifts serves."""
    home = tmp_path_factory.mktemp("uplift")
    imported = import_table(home, write_table(home), home / "mapping.toml")
    catalog = yaml.safe_load(imported.catalog.read_text())
    for action in catalog["actions"]:
        action.update({"kind": "nothing", "value": 0.0} if action["id"] == "wait" else {"kind": "offer", "value": 10.0})
    for placement in catalog["placements"]:
        placement["accepts"] = ["offer", "nothing"]
    imported.catalog.write_text(yaml.safe_dump(catalog))
    assert main(["--home", str(home), "catalog", "publish", str(imported.catalog)]) == 0
    assert main(["--home", str(home), "train", "--objective", "order", "--uplift", "--threads", "1"]) == 0
    promote(home, evaluate(home))
    return home


@pytest.fixture(scope="module")
def manifest(home: Path) -> Manifest:
    registry = Registry(home / "registry")
    return read_manifest(registry.bundle_folder(registry.bundles()[0]))


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Path:
    """A copy, to change."""
    return Path(shutil.copytree(home, tmp_path / "home"))


def asked(openness: np.ndarray) -> list[DecisionRequest]:
    """Customers of all kinds of loyalty, by how open they are."""
    loyalty, slot = np.linspace(-2.0, 2.0, len(openness)), (PlacementRequest("phone", 1),)
    known = [{"loyalty": one, "openness": other} for one, other in zip(loyalty.tolist(), openness.tolist(), strict=True)]
    return [DecisionRequest(f"d{n}", f"s{n}", 1e9, CustomerState(values), {}, slot) for n, values in enumerate(known)]


def predicted(home: Path, openness: np.ndarray) -> np.ndarray:
    """By the scorer that serves: (customers, actions)."""
    engine = serving_engine(home)
    requests = asked(openness)
    scores = engine.scorer.score(engine.encoders[PRIMARY].encode([r.customer.values for r in requests], [{}] * len(requests)))
    return np.asarray(scores[:, [engine.positions[name] for name in ACTIONS]])


def test_gains_are_near_the_truth_and_loyalty_is_none(home):
    """For a call by openness, for a mail next to nothing, for waiting exactly nothing; the loyal are promised no more."""
    openness = np.random.default_rng(0).normal(size=500)
    found, truth = predicted(home, openness), effects(openness)
    assert np.abs(found - truth).mean() < 0.05
    assert np.corrcoef(found[:, 0], truth[:, 0])[0, 1] > 0.9
    assert abs(np.corrcoef(found[:, 0], np.linspace(-2.0, 2.0, 500))[0, 1]) < 0.3
    assert (found[:, 2] == 0.0).all()


def test_whoever_would_be_annoyed_is_left_alone(home, manifest):
    """A call ranks above `wait` for the open, below it for the others, though an order is worth 10 and waiting 0."""
    engine = serving_engine(home)
    records = decide(engine, asked(np.repeat([-2.0, 2.0], 50)))
    archive = EngineArchive(Registry(home / "registry"), home_contract(home))
    for place, record in enumerate(records):
        first = record.placements[0]
        utilities = dict(zip(first.candidates, first.utilities, strict=True))
        assert record.versions.predicts == "uplift"
        assert utilities["wait"] == 0.0
        if record.versions.bundle == manifest.bundle_id:
            assert (utilities["call"] < 0.0) == (place < 50)
            assert utilities["call"] == pytest.approx(10.0 * first.predicted_rates[first.candidates.index("call")])
        assert encode_record(decide_again(archive.engine_of(record), record)) == encode_record(record)


def test_a_log_is_learned_from_in_part_where_actions_are_many(home):
    """Beyond the largest number of pairs, rows are picked at random, the same ones each time."""
    learned = prepare(home, "order").learned
    some = picked(learned, MOST_PAIRS // 100, 3)
    assert len(some) == 100
    assert some.decision_id.equals(picked(learned, MOST_PAIRS // 100, 3).decision_id)
    assert picked(learned, 2, 3) is learned


def test_it_is_judged_by_what_it_would_have_earned(home):
    """Better than the log and than any one action; parity, inputs, age, size, latency, fairness are checked."""
    report = evaluate(home)
    assert [check.name for check in report.checks] == ["parity", "inputs", "age", "size", "latency", "fairness", "losses"]
    assert all(check.holds for check in report.checks)
    assert report.beats_best_static
    assert report.gain_over_logged.ci[0] > 0.0


def test_a_bundle_of_rates_is_no_challenger_of_the_same_kind(own):
    """It calls everybody, since waiting is worth nothing: less is earned, and it is not compared as if it predicted the same."""
    rates = train(own, "order", settings=QUICK)
    report = evaluate(own, bundle=rates)
    assert next(check for check in report.checks if check.name == "leak").holds
    champion = next(name for name in report.policies if name.startswith("bundle:") and not name.endswith(rates))
    assert report.policies[f"bundle:{rates}"].value < report.policies[champion].value


def test_an_uplift_of_money_is_not_multiplied_by_a_value(own):
    """An order brings 40, so that a call changes up to 10."""
    learn(own, prepare(own, "value:spend"), Manner(QUICK, uplift=True))
    promote(own, evaluate(own, "value:spend"))
    first = decide(serving_engine(own), asked(np.full(3, 2.0)))[0].placements[0]
    assert first.utilities == first.predicted_rates
    assert first.utilities[first.candidates.index("call")] == pytest.approx(
        10.0, abs=6.0
    )  # by a value of 10 it would be above 40


def test_where_the_model_fails_mean_uplifts_stand_in(home, manifest):
    """Waiting changes nothing there, too."""
    engine = without_models(serving_engine(home))
    first = decide(engine, asked(np.zeros(1)))[0].placements[0]
    told = dict(zip(first.candidates, first.predicted_rates, strict=True))
    assert told["wait"] == 0.0
    assert told["mail"] == pytest.approx(manifest.action_rates["mail"], abs=0.01)
    assert manifest.action_rates["mail"] == pytest.approx(0.02, abs=0.03)


def test_what_inputs_add_is_told_in_the_uplift_itself(home, manifest):
    """They add up to it: there is no link."""
    registry = Registry(home / "registry")
    record = next(r for r in decide(serving_engine(home), asked(np.full(9, 1.0))) if r.versions.bundle)
    first = record.placements[0]
    told = contributions(registry, manifest, record, "call", {})
    uplift = first.predicted_rates[first.candidates.index("call")]
    assert sum(one.margin for one in told) == pytest.approx(uplift, abs=1e-5)
    assert {one.part for one in told} == {"uplift"}
    assert told[-1].name == BASE


def test_the_command_line_explains_an_uplift(own, capsys):
    """With its sign, and in its own name."""
    record = next(r for r in decide(serving_engine(own), asked(np.full(9, 1.0))) if r.versions.bundle)
    write_log(own, [record])
    assert main(["--home", str(own), "explain", record.decision_id]) == 0
    shown = capsys.readouterr().out
    assert "uplift" in shown
    assert "adds to the uplift" in shown


def test_a_log_without_nothing_cannot_say_what_is_changed(home, capsys):
    """It says which action is missing, and the catalog says which one does nothing."""
    lesson = prepare(home, "order")
    busy = [action for action in lesson.actions if action.kind != "nothing"]
    with pytest.raises(NotReady, match=r"200 rows of an action of kind `nothing`.*no such action in the catalog"):
        fit_uplift(lesson.learned, lesson.columns, busy, QUICK)
    idle = lesson.learned.take(lesson.learned.action_id == "wait")
    with pytest.raises(NotReady, match="Expected rows of actions beside doing nothing, found none"):
        fit_uplift(idle, lesson.columns, lesson.actions, QUICK)
    few = lesson.learned.take(lesson.learned.action_id != "wait")
    with pytest.raises(NotReady, match="`wait` 0"):
        fit_uplift(few, lesson.columns, lesson.actions, QUICK)
    assert main(["--home", str(home), "train", "--uplift", "--tune", "3"]) == 1
    assert "Expected `--uplift` by itself and on this machine" in capsys.readouterr().err


def test_the_same_actions_share_a_scorer_that_knows_who_does_nothing(home):
    """An action that is no longer `nothing` in another catalog is scored anew."""
    registry = Registry(home / "registry")
    bundle = load_bundle(registry.bundle_folder(registry.bundles()[0]), home_contract(home))
    actions = list(serving_engine(home).actions)
    offers = [msgspec.structs.replace(action, kind="offer") for action in actions]
    scorer = bundle.scorer(actions)
    assert isinstance(scorer, UpliftScorer)
    assert bundle.scorer(actions) is scorer
    assert bundle.scorer(offers) is not scorer
    assert not (bundle.scorer(offers).score(np.ones((1, 2), np.float32)) == 0.0).any()
