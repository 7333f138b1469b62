"""A bundle that predicts what actions bring: learned from a log, judged, promoted, served and explained."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from features.homes import home_contract
from service.api.recommend import render
from service.api.wire import AnswerVersions, RecommendRequest
from service.bundles.archive import EngineArchive
from service.bundles.loading import load_bundle
from service.bundles.manifest import AMOUNT_FILE, Manifest
from service.cli import main
from service.decision.again import decide_again, encode_record
from service.decision.decide import decide
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.errors import BadRequest, NotReady
from service.pipeline import Answer
from service.registry import Registry
from tests.unit.training.conftest import write_log
from training.batch import serving_engine
from training.contributions import BASE, contributions
from training.evaluate import evaluate
from training.examples import Objective, load_examples
from training.fit import FitSettings
from training.importing import import_table
from training.judging import Report
from training.learn import prepare, publish, train
from training.promotion import promote
from training.split import seen
from training.two_parts import fit_two_parts

QUICK = FitSettings(rounds=40, threads=1)
ROWS, OBJECTIVE = 12_000, "value:spend"
MAPPING = """
[log]
customer_id = "customer_id"
action_id = "action_id"
choice_probability = 0.5
placement = "=email"
[features]
wealth = "number"
interest = "number"
[outcomes]
spend = "value"
"""


def write_table(folder: Path) -> Path:
    """The interested buy, the wealthy pay; `fancy` is bought less often, for twice as much."""
    chance = np.random.default_rng(5)
    wealth, interest, fancy = chance.normal(size=ROWS), chance.normal(size=ROWS), chance.integers(0, 2, ROWS)
    bought = chance.random(ROWS) < 1 / (1 + np.exp(1.5 - interest + 0.5 * fancy))
    spend = np.where(bought, 50.0 * np.exp(0.5 * wealth + 1.0 * fancy) * chance.gamma(2.0, 0.5, ROWS), 0.0)
    table = pa.table({
        "customer_id": [f"c{n}" for n in range(ROWS)], "action_id": np.where(fancy == 1, "fancy", "plain"),
        "wealth": wealth, "interest": interest, "spend": spend,
    })  # fmt: skip
    pq.write_table(table, folder / "log.parquet")
    (folder / "mapping.toml").write_text(MAPPING)
    return folder / "log.parquet"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported, with a bundle of values that serves; the catalog's own values would make `plain` win."""
    home = tmp_path_factory.mktemp("spending")
    imported = import_table(home, write_table(home), home / "mapping.toml")
    catalog = yaml.safe_load(imported.catalog.read_text())
    for action in catalog["actions"]:
        action["value"] = 1000.0 if action["id"] == "plain" else 1.0
    imported.catalog.write_text(yaml.safe_dump(catalog))
    assert main(["--home", str(home), "catalog", "publish", str(imported.catalog)]) == 0
    train(home, OBJECTIVE)
    promote(home, evaluate(home))
    return home


@pytest.fixture(scope="module")
def report(home: Path) -> Report:
    return evaluate(home)


@pytest.fixture(scope="module")
def manifest(home: Path) -> Manifest:
    registry = Registry(home / "registry")
    return load_bundle(registry.bundle_folder(registry.bundles()[0]), home_contract(home)).manifest


def test_the_manifest_says_that_a_value_is_predicted(home, manifest):
    """What it tells of each action are mean values; a manifest that says nothing means rates."""
    examples = load_examples(home, Objective(OBJECTIVE), home_contract(home))
    learned = examples.take(seen(manifest.split, examples))
    assert (manifest.predicts, manifest.objective) == ("value", OBJECTIVE)
    assert AMOUNT_FILE in manifest.files
    assert manifest.base_rate == pytest.approx(learned.label.mean())
    told = msgspec.to_builtins(manifest)
    del told["predicts"], told["amount_calibration"]
    assert msgspec.convert(told, Manifest).predicts == "rate"


def test_the_gate_looks_at_a_value_as_it_does_at_a_rate(report):
    """Eleven checks; the calibration tells totals, and those of each action."""
    found = {check.name: check for check in report.checks}
    assert list(found) == [
        "parity", "inputs", "age", "size", "latency", "fairness", "losses", "leak", "skill", "calibration", "segments"
    ]  # fmt: skip
    assert all(check.holds and check.told for check in found.values())
    assert "predicted" in found["calibration"].told
    assert "`fancy`" in found["calibration"].told
    assert report.gain_over_logged.ci[0] > 0.0
    assert report.verdict == "promote"


@pytest.mark.parametrize(
    ("spoil", "check", "word"),
    [
        (lambda label: 2.0 * label, "calibration", "uncalibrated: predicted"),
        (lambda label: 2.0 * label, "calibration", "`fancy` uncalibrated"),
        (lambda label: np.random.default_rng(0).permutation(label), "skill", "no skill"),
        (lambda label: np.where(label > 0, 0.0, 50.0), "skill", "ranked below"),
    ],
    ids=["total", "action", "shuffled", "flipped"],
)  # fmt: skip
def test_a_spoiled_value_is_refused_with_its_reason(home, tmp_path, spoil, check, word):
    """Twice the money: total and actions are off. Values of other rows: no skill. The wrong way round: that."""
    own = Path(shutil.copytree(home, tmp_path / "home"))
    lesson = prepare(own, OBJECTIVE)
    lesson = lesson._replace(learned=lesson.learned.with_label(spoil(lesson.learned.label)))
    spoiled = publish(
        Registry(own / "registry"), fit_two_parts(lesson.inputs, lesson.learned.label, lesson.columns, QUICK), lesson
    )
    found = {one.name: one for one in evaluate(own, bundle=spoiled).checks}
    assert not found[check].holds
    assert word in found[check].told


def test_an_amount_that_is_not_its_model_s_is_refused(home, tmp_path):
    """The second part is held to LightGBM's own text as the first is."""
    own = Path(shutil.copytree(home, tmp_path / "home"))
    registry = Registry(own / "registry")
    folder = registry.bundle_folder(registry.bundles()[0])
    (folder / AMOUNT_FILE).write_text((folder / "model.txt").read_text())
    parity = evaluate(own).checks[0]
    assert not parity.holds
    assert "Parity: expected ONNX within 1e-06" in parity.told


def asked(count: int) -> list[DecisionRequest]:
    """Customers from poor to wealthy."""
    values = [{"wealth": n / count, "interest": 0.5} for n in range(count)]
    slot = (PlacementRequest("email", 1),)
    return [DecisionRequest(f"d{n}", f"s{n}", 1e9 + n, CustomerState(v), {}, slot) for n, v in enumerate(values)]


def test_it_serves_by_what_is_brought_and_decides_the_same_again(home, manifest):
    """Utility is the expected value, whatever the catalog puts on a success; an archive makes the record again, bit for bit."""
    engine = serving_engine(home)
    records = decide(engine, asked(20))
    archive = EngineArchive(Registry(home / "registry"), home_contract(home))
    for record in records:
        first = record.placements[0]
        assert first.utilities == first.predicted_rates
        assert max(first.utilities) > 1.0
        assert manifest.bundle_id in (record.versions.bundle, record.versions.rates)  # the latter for one in a hundred
        assert record.versions.predicts == "value"
        assert encode_record(decide_again(archive.engine_of(record), record)) == encode_record(record)


def test_an_answer_says_that_a_value_is_predicted(home):
    """Beside the versions; an answer by rates has no word more than before."""
    engine = serving_engine(home)
    [record] = decide(engine, asked(1))
    told = msgspec.to_builtins(render(Answer(record, engine), RecommendRequest(customer_id="s0", placement="email"), 0.0))
    assert told["versions"]["predicts"] == "value"
    assert told["placements"][0]["items"][0]["predicted_rate"] == record.placements[0].items[0].predicted_rate
    assert set(msgspec.to_builtins(AnswerVersions(1, "b"))) == {"catalog", "bundle"}


def test_why_is_told_in_two_parts(home, manifest):
    """What inputs add to the logit of the rate, and to the logarithm of the amount: together they are the value."""
    registry = Registry(home / "registry")
    [record] = decide(serving_engine(home), asked(1))
    for action, value in zip(record.placements[0].candidates, record.placements[0].predicted_rates, strict=True):
        told = contributions(registry, manifest, record, action, {})
        rate, amount = (sum(one.margin for one in told if one.part == part) for part in ("rate", "amount"))
        assert np.exp(amount) / (1.0 + np.exp(-rate)) == pytest.approx(value, rel=1e-5)
        assert [one.part for one in told if one.name == BASE] == ["rate", "amount"]


def test_the_command_line_explains_an_expected_value(home, tmp_path, capsys):
    """Money in place of a rate, and no value of a success beside it."""
    own = Path(shutil.copytree(home, tmp_path / "home"))
    [record] = decide(serving_engine(own), asked(1))
    write_log(own, [record])
    assert main(["--home", str(own), "explain", record.decision_id]) == 0
    shown = capsys.readouterr().out
    assert "expected value" in shown
    assert f"{record.placements[0].items[0].predicted_rate:.2f}" in shown
    assert "adds to the logarithm" in shown


def test_a_log_without_values_has_nothing_to_learn_from(own_home):
    """Nobody pays for looking; and nobody has had a refund."""
    with pytest.raises(NotReady, match=r"with 0 successes"):
        train(own_home, "value:impression")
    with pytest.raises(BadRequest, match=r"among the outcomes .*, got `value:refund`"):
        train(own_home, "value:refund")
