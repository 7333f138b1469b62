"""Models that are better than no model are kept; others are refused with the reason."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from features.homes import contract_path, home_contract
from features.predictions import home_predictions
from service.errors import BundleRefused, NotReady
from training.fit import FitSettings
from training.predictions.learning import cut_moments, train_all
from training.predictions.models import load, predictions_registry, read_manifest
from training.predictions.rows import History

DAY = 86_400.0
END = 1_790_000_000.0
SETTINGS = FitSettings(threads=1)


@pytest.fixture(scope="module")
def trained(small_world, tmp_path_factory):
    """A copy of the world with both predictions trained, and what the training said."""
    home = tmp_path_factory.mktemp("learning") / "home"
    shutil.copytree(small_world.home, home)
    return home, {one.name: one for one in train_all(home, [], END, SETTINGS, force=False)}


def test_cuts_go_back_from_the_end_in_steps_of_the_label():
    """No two labels share an event, and each cut has as much history as its label is long."""
    assert cut_moments(0.0, 100 * DAY, 30 * DAY) == (40 * DAY, 70 * DAY)
    assert len(cut_moments(0.0, 10_000 * DAY, 30 * DAY)) == 12
    with pytest.raises(NotReady, match=r"a history of 90 days for labels of 30, found 80\.0"):
        cut_moments(0.0, 80 * DAY, 30 * DAY)


def test_churn_is_ranked_far_above_chance_and_its_rate_is_honest(trained):
    """On a month that the model has not seen: AUC above 0.7, mean distance from the observed rate below 0.06."""
    found = trained[1]["churn_risk"]
    assert found.reasons == ()
    assert found.figures["auc"] > 0.7
    assert found.figures["calibration_error"] < 0.06
    assert found.figures["gain_low"] > 0.0


def test_a_value_comes_near_what_was_spent(trained):
    """Better than the mean and than the lifetime model, which knows no complaints; in all, within a seventh of what came."""
    found = trained[1]["expected_value"]
    assert found.reasons == ()
    assert found.figures["loss"] < min(found.figures["loss_of_mean"], found.figures["loss_of_lifetime_model"])
    assert found.figures["mean_predicted"] == pytest.approx(found.figures["mean"], rel=1 / 7)
    assert found.figures["r2"] > 0.2


def test_predictions_follow_the_truth_that_made_the_world(trained, small_world):
    """Who buys often and stays is unlikely to be silent for a month; known only to the simulation."""
    home, found = trained
    history = History(home, home_contract(home))
    prediction = home_predictions(home, history.contract)["churn_risk"]
    model = load(predictions_registry(home).bundle_folder(found["churn_risk"].model_id), prediction, history.inputs)
    names, at = history.customers(prediction, END - 30 * DAY), END - 30 * DAY
    rates = model.rates(history.matrix(pa.table({"customer_id": names, "at": pa.array([at] * len(names))})))
    stays = np.array([np.clip((small_world.left[n] - at) / DAY, 0, 30) for n in names.to_pylist()])
    truth = np.exp(-np.array([small_world.rate[n] for n in names.to_pylist()]) * stays)
    assert np.corrcoef(rates, truth)[0, 1] > 0.5
    assert rates.mean() == pytest.approx(truth.mean(), abs=0.05)


def test_what_is_kept_says_where_it_comes_from_and_is_whole(trained):
    """Manifest, checksums, and a pointer; a changed byte is refused."""
    home, found = trained
    registry = predictions_registry(home)
    assert registry.current().others == {name: one.model_id for name, one in found.items()}
    folder = registry.bundle_folder(found["churn_risk"].model_id)
    manifest = read_manifest(folder)
    assert (manifest.prediction.name, manifest.forced, manifest.learned) == ("churn_risk", (), "rate")
    assert manifest.cuts == cut_moments(History(home, home_contract(home)).first, manifest.cuts[-1] + 30 * DAY, 30 * DAY)
    assert manifest.parity <= 1e-6
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"\0")
    prediction = home_predictions(home, home_contract(home))["churn_risk"]
    with pytest.raises(BundleRefused, match="Expected checksum"):
        load(folder, prediction, manifest.inputs)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(BundleRefused, match="Expected the manifest of a prediction"):
        read_manifest(folder)


def test_a_changed_contract_or_declaration_is_refused(trained):
    """A model sees what it was trained on, or nothing."""
    home, found = trained
    folder = predictions_registry(home).bundle_folder(found["expected_value"].model_id)
    prediction, inputs = home_predictions(home, home_contract(home))["expected_value"], read_manifest(folder).inputs
    with pytest.raises(BundleRefused, match=r"found others .*: run `nextbest predictions train expected_value`"):
        load(folder, prediction, inputs[1:])
    changed = contract_path(home).with_name("predictions.yaml").read_text().replace("sum: purchased.amount", "count: purchased")
    contract_path(home).with_name("predictions.yaml").write_text(changed)
    with pytest.raises(BundleRefused, match="another declaration of `expected_value`"):
        load(folder, home_predictions(home, home_contract(home))["expected_value"], inputs)


NOISE = """
predictions:
  chance: {label: {any_of: purchased, within: 20d}}
  churn_risk: {label: {none_of: purchased, within: 30d}}
  expected_value: {label: {sum: purchased.amount, within: 30d}}
"""


def test_a_prediction_that_helps_nobody_is_refused_and_force_is_written_down(settled, small_world):
    """Everybody buys at one rate, at random: nothing can be learned; by force it is kept, and its manifest says why not."""
    chance, kind = np.random.default_rng(2), type(small_world.bought[0])
    bought = [
        kind(f"c{n}", END - float(at) * DAY, 10.0)
        for n in range(400)
        for at in np.append(chance.uniform(0, 120, chance.poisson(4)), 119.0)
    ]
    home = settled(bought, NOISE)
    [refused] = train_all(home, ["chance"], END, SETTINGS, force=False)
    assert refused.model_id is None
    assert "gain over `mean`" in refused.reasons[0]
    assert predictions_registry(home).bundles() == []
    [forced] = train_all(home, ["chance"], END, SETTINGS, force=True)
    manifest = read_manifest(predictions_registry(home).bundle_folder(forced.model_id))
    assert manifest.forced == refused.reasons
    history = (home / "registry" / "predictions" / "history.jsonl").read_text()
    assert json.loads(history.splitlines()[-1])["why"].startswith("forced: gain over")


def test_too_few_labels_are_refused_with_what_was_found(settled, small_world):
    """Ten customers are no crowd; and a name that nobody declared is told with those that are."""
    few = [b for b in small_world.bought if b.customer in {f"c{n}" for n in range(10)}]
    home = settled(few)
    found = train_all(home, [], END, SETTINGS, force=True)
    assert [one.model_id for one in found] == [None, None]
    assert "Expected at least 200 rows" in found[0].reasons[0]
    [unknown] = train_all(home, ["luck"], END, SETTINGS, force=False)
    assert unknown.reasons == ("Expected a prediction of predictions.yaml (`churn_risk`, `expected_value`), got `luck`",)


def test_the_same_history_gives_the_same_model(small_world, settled):
    """To the bit, whatever the name of the home."""
    home = settled(small_world.bought, left=small_world.left)
    models = []
    for _ in range(2):
        models.append(train_all(home, ["expected_value"], END, SETTINGS, force=False)[0].model_id)
        shutil.rmtree(home / "registry")
    assert len({model.rsplit("-", 1)[1] for model in models}) == 1  # the digits of the model's checksum
