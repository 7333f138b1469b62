"""Rows weighed by how likely they were: what the weights are, what they cost, and where they help."""

import importlib
import importlib.util
import shutil
from typing import NamedTuple

import lightgbm
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from features.contract import Feature
from service.bundles.loading import read_manifest
from service.cli import main
from service.errors import BadRequest, NotReady
from service.registry import Registry
from training.choice_weights import choice_weights
from training.fit import FitSettings, fit, grow_here, parameters_of
from training.learn import Manner, learn, prepare
from training.learning_rules import FILE, read_rules

optuna_there = importlib.util.find_spec("optuna") is not None
dask_there = all(importlib.util.find_spec(name) for name in ("dask", "distributed", "sklearn"))
A, B = 0, 1
COLUMNS = (Feature("x", "number", "profile", max_age=1.0), Feature("id", "category", "action", categories=("a", "b")))
SMALL = FitSettings(threads=1, leaves=2, rounds=200, patience=30, identity_dropout=0.0)  # one split a tree: no interaction
LARGE = msgspec.structs.replace(SMALL, leaves=8)


@given(arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(1e-6, 1.0)), st.floats(1.01, 50.0))
def test_weights_have_mean_one_keep_below_the_bound_and_order_rows_as_their_rarity_does(probability, most):
    """Whatever the log, and however tight the bound; those that are not clipped are in proportion to 1 / p."""
    found = choice_weights(probability, most)
    assert found.weights.mean() == pytest.approx(1.0)
    assert found.weights.max() <= most * (1 + 1e-9)
    assert found.clipped == (found.weights >= most).sum() or found.clipped == 0
    free = found.weights < most * (1 - 1e-9)
    assert np.ptp((found.weights * probability)[free]) <= 1e-9 * found.weights.max() if free.any() else True


def test_what_is_cut_off_goes_to_the_others():
    """By hand: 1, 1, 1 and 97 are 0.04 and 3.88 of their mean; with at most 2 the others share what is left."""
    found = choice_weights(np.array([1.0, 1.0, 1.0, 1 / 97]), 2.0)
    assert found.weights.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])
    assert found.clipped == 1
    assert found.figures() == {
        "choice_weights.largest": 2.0, "choice_weights.clipped": 1.0, "choice_weights.effective_rows": 3.0
    }  # fmt: skip
    assert found.told() == "weighed by 1 / choice probability: largest weight 2.00, 1 of 4 rows clipped, worth 3 rows"


@pytest.mark.parametrize("bad", [0.0, np.nan, 1.5, -0.1])
def test_rows_without_a_probability_cannot_be_weighed(bad):
    """With what was found, and how to do without."""
    with pytest.raises(NotReady, match=rf"found {bad:g} - at `--weights choice`"):
        choice_weights(np.array([0.5, bad]), 10.0)


class Narrow(NamedTuple):
    """A log of an old policy that chose narrowly: inputs, labels, and how likely each choice was."""

    inputs: np.ndarray
    labels: np.ndarray
    probability: np.ndarray


def rate(x, action):
    """Truth: `b` is far better for one in five, and worse for all others, by more in sum: `a` is the better one of the two."""
    return np.where(action == A, 0.4, np.where(x > 0.8, 0.7, 0.2))


def narrow(rows: int, seed: int) -> Narrow:
    """Who is like the one in five got either; all others got `b` once in fifty times."""
    chance = np.random.default_rng(seed)
    x = chance.random(rows)
    likely = np.where(x > 0.8, 0.5, 0.02)
    action = (chance.random(rows) < likely).astype(int)
    labels = (chance.random(rows) < rate(x, action)).astype(float)
    return Narrow(np.column_stack([x, action]).astype(np.float32), labels, np.where(action == B, likely, 1 - likely))


def worth(fitted) -> float:
    """The true rate of always choosing what the model thinks best."""
    x = np.linspace(0.0, 1.0, 1001)
    both = np.column_stack([fitted.rates(np.column_stack([x, np.full_like(x, a)]).astype(np.float32)) for a in (A, B)])
    return float(rate(x, both.argmax(axis=1)).mean())


@pytest.mark.parametrize("seed", range(3))
def test_weights_help_a_model_that_is_too_small_to_hold_the_truth(seed):
    """Without them it learns where the log varied, and offers `b` to everybody: 0.30; with them `a`: 0.40. Best is 0.46."""
    log = narrow(12_000, seed)
    plain = fit(log.inputs, log.labels, COLUMNS, SMALL)
    weighed = fit(log.inputs, log.labels, COLUMNS, SMALL, weights=choice_weights(log.probability, 10.0).weights)
    assert worth(plain) == pytest.approx(0.3, abs=0.01)
    assert worth(weighed) == pytest.approx(0.4, abs=0.01)


def test_a_model_that_holds_the_truth_needs_no_weights():
    """Trees of two splits find who wants what, weighed or not; 12,000 weighed rows are worth 5,074."""
    log = narrow(12_000, 0)
    weighing = choice_weights(log.probability, 10.0)
    assert worth(fit(log.inputs, log.labels, COLUMNS, LARGE)) == pytest.approx(0.46, abs=0.01)
    assert worth(fit(log.inputs, log.labels, COLUMNS, LARGE, weights=weighing.weights)) == pytest.approx(0.46, abs=0.01)
    assert weighing.figures()["choice_weights.effective_rows"] < 0.5 * len(log.labels)


def test_weighed_rates_are_held_to_their_word_on_rows_as_they_were_served():
    """Calibration is not weighed: predicted is observed where the log is."""
    log = narrow(12_000, 1)
    fitted = fit(log.inputs, log.labels, COLUMNS, SMALL, weights=choice_weights(log.probability, 10.0).weights)
    late = slice(9600, None)
    assert fitted.rates(log.inputs[late]).mean() == pytest.approx(log.labels[late].mean(), abs=1e-3)


def test_without_weights_trees_are_those_of_lightgbm_without_any(learning):
    """To the letter: what it would have grown from the rows alone; and weights that are all one change no prediction."""
    inputs, labels, _ = learning.world(2000)
    fitted, cut = fit(inputs, labels, learning.columns, learning.settings), 1600
    names, quiet = [f"c{i}" for i in range(4)], {"feature_pre_filter": False, "verbosity": -1}
    train = lightgbm.Dataset(inputs[:cut], labels[:cut], feature_name=names, params=quiet)
    check = lightgbm.Dataset(inputs[cut:], labels[cut:], reference=train)
    parameters = parameters_of(learning.settings, 1) | {"objective": "binary", "metric": "binary_logloss"}
    stop = lightgbm.early_stopping(learning.settings.patience, verbose=False)
    alone = lightgbm.train(parameters, train, learning.settings.rounds, valid_sets=[check], callbacks=[stop])
    assert fitted.booster.model_to_string() == alone.model_to_string()
    ones = fit(inputs, labels, learning.columns, learning.settings, weights=np.ones(2000))
    np.testing.assert_allclose(ones.rates(inputs), fitted.rates(inputs), rtol=1e-9)


def manifest_of(home, bundle: str):
    return read_manifest(Registry(home / "registry").bundle_folder(bundle))


def test_a_bundle_without_weights_says_nothing_of_them_and_has_the_same_files(own_home):
    """Asked for or not: `none` is what there was before there were weights."""
    lesson = prepare(own_home, "click")
    [name] = Registry(own_home / "registry").bundles()
    before = manifest_of(own_home, name)
    shutil.rmtree(Registry(own_home / "registry").bundle_folder(name))  # the same model within a second has the same id
    plain = manifest_of(own_home, learn(own_home, lesson, Manner(weights="none")).bundle)
    assert plain.files == before.files
    assert (plain.settings, plain.metrics) == (before.settings, before.metrics)
    assert not [name for name in (*plain.settings, *plain.metrics) if "weights" in name]


def test_learning_toml_asks_for_weights_and_the_bundle_says_so(own_home, capsys):
    """Bound, largest, how many were clipped, effective rows: in the manifest, and in words at the terminal."""
    (own_home / FILE).write_text('[training]\nweights = "choice"\nmost = 1.1\n')
    assert main(["--home", str(own_home), "train", "--objective", "click", "--seed", "5"]) == 0
    *_, told, bundle = capsys.readouterr().out.splitlines()
    found = manifest_of(own_home, bundle)
    lesson = prepare(own_home, "click")
    expected = choice_weights(lesson.learned.choice_probability, 1.1)
    assert told == expected.told()
    assert found.settings["choice_weights.most"] == 1.1
    assert {name: found.metrics[name] for name in expected.figures()} == expected.figures()
    assert expected.clipped > 0


def test_the_option_wins_over_the_file(own_home, capsys):
    """`--weights choice` where the file says nothing, `--weights none` where it says `choice`; a retrain takes it, too."""
    assert main(["--home", str(own_home), "train", "--objective", "click", "--weights", "choice", "--seed", "6"]) == 0
    assert "weighed by 1 / choice probability" in capsys.readouterr().out
    (own_home / FILE).write_text('[training]\nweights = "choice"\n')
    assert main(["--home", str(own_home), "train", "--objective", "click", "--weights", "none", "--seed", "7"]) == 0
    assert "weighed" not in capsys.readouterr().out
    assert main(["--home", str(own_home), "retrain", "--objective", "click", "--weights", "choice", "--share", "0.4"]) == 0
    newest = max((manifest_of(own_home, name) for name in Registry(own_home / "registry").bundles()), key=lambda m: m.created_at)
    assert newest.settings["choice_weights.most"] == 10.0


@pytest.mark.parametrize("text", ['[training]\nweights = "inverse"\n', "[training]\nmost = 1.0\n"])
def test_other_weights_and_bounds_that_leave_nothing_are_refused(tmp_path, text):
    """With what was expected."""
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BadRequest, match=r"\$.training"):
        read_rules(tmp_path)


@pytest.mark.skipif(not optuna_there, reason="optuna is not installed: pip install 'nextbest[tuning]'")
def test_a_search_learns_and_judges_by_the_weights():
    """The given settings are the first trial: with weights the small model's loss on a narrow log is another one."""
    tuning = importlib.import_module("training.tuning")
    log, settings = narrow(3000, 2), msgspec.structs.replace(SMALL, rounds=30)
    weights = choice_weights(log.probability, 10.0).weights
    plain = tuning.tune(log.inputs, log.labels, COLUMNS, settings, 1)
    weighed = tuning.tune(log.inputs, log.labels, COLUMNS, settings, 1, weights=weights)
    ones = tuning.tune(log.inputs, log.labels, COLUMNS, settings, 1, weights=np.ones(3000))
    assert ones.before == pytest.approx(plain.before, abs=2e-6)
    assert abs(weighed.before - plain.before) > 1e-3


@pytest.mark.skipif(not dask_there, reason="Dask is not installed: pip install 'nextbest[cluster]'")
def test_on_a_cluster_the_checked_rows_are_weighed_as_here():
    """The number of rounds that stopping early finds is the one that the weighed checked rows say afterwards."""
    cluster, log = importlib.import_module("training.dask_training"), narrow(4000, 3)
    weights, seen = choice_weights(log.probability, 10.0).weights, []

    def kept(growth):
        booster = grow_here(growth)
        seen.append((cluster.best_round(booster, growth), booster.best_iteration, growth.check_weights))
        return booster

    fit(log.inputs, log.labels, COLUMNS, msgspec.structs.replace(SMALL, patience=200), grow=kept, weights=weights)
    [(afterwards, early, check)] = seen
    assert afterwards == early
    np.testing.assert_array_equal(check, weights[3200:])
