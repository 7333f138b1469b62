"""From a home to a bundle that serves: trained, proven, promoted, rolled back."""

import json
import shutil
import time

import msgspec
import pytest

from features.homes import home_contract
from service.bundles.loading import load_bundle, read_manifest
from service.errors import BadRequest, BundleRefused, CatalogInvalid, NotReady, PromotionRefused, RegistryError
from service.registry import Registry
from training.evaluate import evaluate
from training.examples import Objective, load_examples
from training.learn import default_objective, train
from training.promotion import promote, promote_without_evidence, rollback
from training.retrain import Plan, retrain
from training.simulate import exploring_engine, probabilities
from training.split import seen


def registry(home) -> Registry:
    return Registry(home / "registry")


@pytest.fixture(scope="module")
def report(trained_home):
    return evaluate(trained_home)


def test_a_trained_bundle_loads_and_tells_what_it_was_made_from(trained_home):
    """It serves this home's contract, and its manifest names rows, rates and the split."""
    [name] = registry(trained_home).bundles()
    manifest = load_bundle(registry(trained_home).bundle_folder(name), home_contract(trained_home)).manifest
    examples = load_examples(trained_home, Objective("click"), home_contract(trained_home))
    learned = examples.take(seen(manifest.split, examples))
    assert (manifest.objective, manifest.rows, manifest.split.by) == ("click", len(learned), "time")
    assert manifest.base_rate == pytest.approx(learned.label.mean())
    assert manifest.dataset_fingerprint == learned.fingerprint
    gold = learned.label[learned.action_id == "gold_card"]
    assert manifest.action_rates["gold_card"] == pytest.approx(gold.mean())


def test_the_same_log_gives_the_same_model(trained_home, own_home):
    """Trained again with the same seed, the model's bytes are the same."""
    [first] = registry(trained_home).bundles()
    time.sleep(1.0)  # an id names a second, and the model
    second = train(own_home, "click")
    folders = [registry(trained_home).bundle_folder(first), registry(own_home).bundle_folder(second)]
    assert (folders[0] / "model.onnx").read_bytes() == (folders[1] / "model.onnx").read_bytes()


def test_the_objective_must_be_said_where_there_are_several(trained_home):
    """Clicks or conversions: nobody guesses, and both are named."""
    with pytest.raises(BadRequest, match="`click`, `conversion`"):
        default_objective(trained_home, registry(trained_home))


def test_an_objective_that_is_no_outcome_is_refused_with_those_that_there_are(own_home):
    """Misspelt, all of its rows would be failures."""
    with pytest.raises(BadRequest, match=r"Expected an objective among the outcomes .*`click`.*, got `clik`"):
        train(own_home, "clik")


def test_where_windows_leave_too_few_rows_the_window_is_told(own_home):
    """As of a table that was imported without moments: all of it is of one, and outcomes have not had their time."""
    (own_home / "learning.toml").write_text('[windows]\nclick = "900d"\n')
    with pytest.raises(NotReady, match=r"window of 77760000 s is over, found 0 of [\d]+ .*`decided_at`.* in `learning.toml`"):
        train(own_home, "click")


def test_the_champions_objective_is_the_default(own_home):
    """A retraining means the same as the training before."""
    promote_without_evidence(own_home, registry(own_home).bundles()[0], "for tests")
    assert default_objective(own_home, registry(own_home)) == "click"


def test_training_without_a_catalog_says_what_to_do_first(tmp_path):
    """Attributes of actions come from the catalog."""
    with pytest.raises(NotReady, match="nextbest catalog publish FILE"):
        train(tmp_path, "click")


def test_evaluation_uses_only_rows_that_the_model_never_saw(trained_home, report):
    """Half of the log is kept for proof."""
    examples = load_examples(trained_home, Objective("click"), home_contract(trained_home))
    [name] = registry(trained_home).bundles()
    split = read_manifest(registry(trained_home).bundle_folder(name)).split
    assert report.rows == (~seen(split, examples)).sum()


def test_the_truth_lies_within_the_interval_of_the_estimate(trained_home, report, shop):
    """Choosing at random among what may be shown: the shop knows what that is worth."""
    examples = load_examples(trained_home, Objective("click"), home_contract(trained_home))
    assert report.policies["logged"].value == pytest.approx(examples.label[-report.rows :].mean(), abs=1e-6)
    moments = shop.moments(2000, 0.0, 60.0, seed=1)
    requests = [shop.request(moment, f"t{row}") for row, moment in enumerate(moments)]
    truth = shop.true_value(moments, probabilities(exploring_engine(shop), requests))
    uniform = report.policies["uniform"]
    assert uniform.ci[0] < truth < uniform.ci[1]


def test_an_evaluation_as_json_has_exactly_the_promised_shape(report):
    """Names and nesting are a contract with whoever reads it."""
    found = json.loads(msgspec.json.encode(report))
    assert list(found) == [
        "objective", "rows", "policies", "best_static", "gain_over_logged", "gain_over_best_static", "beats_best_static",
        "verdict", "reasons", "checks", "overlap",
    ]  # fmt: skip
    assert set(found["policies"]["logged"]) == {"value", "ci", "estimator"}
    for name, policy in found["policies"].items():
        assert name == "logged" or set(policy) == {"value", "ci", "estimator", "ess", "max_weight", "estimators"}
    assert set(found["gain_over_logged"]) == {"value", "ci"}
    assert {"logged", "uniform", "always:gold_card"} <= set(found["policies"])


def test_an_objective_that_the_bundle_does_not_predict_can_be_evaluated(trained_home):
    """Money instead of clicks: the reward model is then each action's mean."""
    found = evaluate(trained_home, "value:conversion")
    assert found.objective == "value:conversion"
    assert found.policies["logged"].value > 0


def test_a_draft_catalog_is_evaluated_in_place_of_the_one_that_serves(own_home, tmp_path):
    """What would another catalog be worth: here one that only ever tells stories."""
    text = (own_home / "catalog.yaml").read_text().replace("value: 0.9", "value: 90.0")
    (tmp_path / "draft.yaml").write_text(text)
    drafted, serving = evaluate(own_home, catalog=tmp_path / "draft.yaml"), evaluate(own_home)
    assert drafted.policies["logged"] == serving.policies["logged"]
    own = f"bundle:{drafted.bundle}"
    assert drafted.policies[own].value != serving.policies[own].value


@pytest.mark.parametrize(("name", "expected"), [("none.yaml", "Expected a readable catalog"), ("bytes.yaml", "Expected UTF-8")])
def test_a_draft_that_cannot_be_read_is_told(trained_home, tmp_path, name, expected):
    """Not there, or not a text: as `nextbest catalog check` says it."""
    (tmp_path / "bytes.yaml").write_bytes(b"catalog: \xff")
    with pytest.raises(CatalogInvalid, match=expected):
        evaluate(trained_home, catalog=tmp_path / name)


def test_a_proven_bundle_is_promoted_with_its_reasons_in_the_history(own_home):
    """Who asks later why it served finds the gain."""
    found = evaluate(own_home)
    assert found.verdict == "promote"
    promote(own_home, found, why="spring")
    assert registry(own_home).current().champion == found.bundle
    last = json.loads((own_home / "registry" / "history.jsonl").read_text().splitlines()[-1])
    assert last["why"] == f"promote {found.bundle}: spring; {found.reasons[0]}"


def twin_of(home, bundle: str) -> str:
    """A stored bundle that differs in its name alone."""
    copy, stored = home / "twin", registry(home).bundle_folder(bundle)
    shutil.copytree(stored, copy)
    manifest = json.loads((stored / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "bundle_id": "twin"}))
    registry(home).add_bundle(copy, "twin")
    return "twin"


def test_what_was_proven_against_one_champion_does_not_take_the_place_of_another(own_home):
    """Somebody else has let a bundle serve since it was evaluated, or has gone back; evaluated anew it may serve."""
    found = evaluate(own_home)
    twin = twin_of(own_home, found.bundle)
    assert found.champion is None
    promote_without_evidence(own_home, twin, "for tests")
    with pytest.raises(RegistryError, match="Expected that no bundle serves, found that `twin` does"):
        promote(own_home, found)
    again = evaluate(own_home, bundle=found.bundle)
    assert again.champion == twin
    rollback(own_home)
    with pytest.raises(RegistryError, match="Expected that `twin` serves, found that no bundle does"):
        promote(own_home, again)
    assert registry(own_home).current().champion is None


def test_a_round_does_not_promote_over_what_was_promoted_while_it_judged(own_home):
    """The bundle stays, and the next round judges it against the one that serves now."""
    [bundle] = registry(own_home).bundles()
    twin_of(own_home, bundle)

    def meanwhile(_done: int, _of: int) -> None:
        registry(own_home).promote(bundle, at="2026-01-01T00:00:00Z", why="meanwhile")

    with pytest.raises(RegistryError, match=f"Expected that no bundle serves, found that `{bundle}` does"):
        retrain(own_home, Plan("click"), meanwhile)
    assert registry(own_home).current().champion == bundle


def test_a_bundle_without_proof_is_refused_and_the_champion_stays(own_home, report):
    """The reasons are in the error."""
    unproven = msgspec.structs.replace(report, verdict="keep", reasons=("too little",))
    with pytest.raises(PromotionRefused, match="got `keep`: too little"):
        promote(own_home, unproven)
    assert registry(own_home).current().champion is None


def test_even_a_forced_bundle_must_load(own_home, report):
    """Insisting does not mend a broken file."""
    model = registry(own_home).bundle_folder(report.bundle) / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(BundleRefused, match="checksum"):
        promote_without_evidence(own_home, report.bundle, "I insist")
    assert registry(own_home).current().champion is None


def test_a_forced_promotion_says_so_in_the_history_and_can_be_taken_back(own_home, report):
    """One step back is the state before."""
    promote_without_evidence(own_home, report.bundle, "I insist")
    lines = (own_home / "registry" / "history.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["why"] == f"promote {report.bundle}: forced; I insist"
    assert rollback(own_home, "it was wrong").champion is None
    with pytest.raises(RegistryError, match="Expected a previous champion"):
        rollback(own_home)
