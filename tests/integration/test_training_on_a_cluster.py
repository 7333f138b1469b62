"""LightGBM's own training on a Dask cluster: two processes on loopback learn what one would."""

import importlib.util

import msgspec
import numpy as np
import pytest
from distributed import LocalCluster

from features.homes import home_contract
from service.bundles.loading import load_bundle, read_manifest
from service.bundles.manifest import PARITY_LIMIT
from service.cli import main
from service.errors import NotReady
from service.registry import Registry
from training.dask_training import best_round, grow_on
from training.fit import FitSettings, Growth, fit, grow_here
from training.learn import Manner, learn, prepare
from training.scores import scores

sklearn_there = importlib.util.find_spec("sklearn") is not None
needs_sklearn = pytest.mark.skipif(not sklearn_there, reason="scikit-learn is not installed: pip install 'nextbest[cluster]'")
NEAR = 0.01  # of AUC and log loss
SETTINGS = FitSettings(rounds=80)


@pytest.fixture(scope="module")
def address():
    """A cluster of two workers, each a process of its own."""
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


@needs_sklearn
def test_two_workers_learn_as_well_as_one_process(own_home, address):
    """AUC and log loss on rows that neither saw are within 0.01, and the bundle is proven and loads."""
    lesson, held = prepare(own_home, "click"), prepare(own_home, "click", 0.999)
    new = slice(len(lesson.learned), None)
    alone = fit(lesson.inputs, lesson.learned.label, lesson.columns, SETTINGS)
    trained = learn(own_home, lesson, Manner(SETTINGS, engine="dask", scheduler=address))
    expected, found = (scores(held.learned.label[new], f.rates(held.inputs[new])) for f in (alone, trained.fitted))
    assert expected["auc"] > 0.6
    assert abs(found["auc"] - expected["auc"]) < NEAR
    assert abs(found["log_loss"] - expected["log_loss"]) < NEAR
    bundle = load_bundle(Registry(own_home / "registry").bundle_folder(trained.bundle), home_contract(own_home))
    assert bundle.manifest.parity <= PARITY_LIMIT
    assert 0 < bundle.manifest.metrics["trees"] <= SETTINGS.rounds


@needs_sklearn
def test_without_a_scheduler_processes_are_started_here(own_home, capsys):
    """`nextbest train --engine dask` alone: the bundle is there, no process is left."""
    command = ["train", "--objective", "click", "--engine", "dask", "--threads", "2"]
    assert main(["--home", str(own_home), *command]) == 0
    bundle = capsys.readouterr().out.split()[-1]
    assert read_manifest(Registry(own_home / "registry").bundle_folder(bundle)).parity <= PARITY_LIMIT


def test_the_rounds_that_count_are_those_that_stopping_early_would_have_found(own_home):
    """The checked rows choose the same number of trees afterwards as during the training."""
    lesson = prepare(own_home, "click")
    fitted = fit(lesson.inputs, lesson.learned.label, lesson.columns, msgspec.structs.replace(SETTINGS, patience=80))
    cut = int(len(lesson.learned) * 0.8)
    growth = Growth(
        lesson.inputs[:cut],
        lesson.learned.label[:cut],
        lesson.inputs[cut:],
        lesson.learned.label[cut:],
        {},
        SETTINGS,
        "rate",
        None,
    )
    assert best_round(fitted.booster, growth) == fitted.booster.best_iteration


@pytest.mark.parametrize("learned", ["count", "sum", "amount"])
def test_rounds_of_counts_sums_and_amounts_are_chosen_by_their_own_loss(learned):
    """As LightGBM's own metric chooses them."""
    chance = np.random.default_rng(0)
    inputs = chance.standard_normal((2000, 2)).astype(np.float32)
    values = chance.poisson(np.exp(inputs[:, 0] / 2)).astype(float)
    values += learned == "amount"  # each is above zero
    objective = {"count": "poisson", "sum": "tweedie", "amount": "gamma"}[learned]
    parameters = {"objective": objective, "metric": objective, "verbosity": -1, "num_threads": 1, "feature_pre_filter": False}
    growth = Growth(
        inputs[:1500], values[:1500], inputs[1500:], values[1500:], parameters, FitSettings(rounds=60, patience=60), learned, None
    )
    booster = grow_here(growth)
    assert best_round(booster, growth) == booster.best_iteration


def test_a_scheduler_without_its_engine_is_a_slip(own_home, capsys):
    """It is not guessed."""
    assert main(["--home", str(own_home), "train", "--scheduler", "tcp://127.0.0.1:9"]) == 1
    assert "Expected `--engine dask` with `--scheduler`" in capsys.readouterr().err


@pytest.mark.skipif(sklearn_there, reason="scikit-learn is installed: the error is for those who lack it")
def test_without_scikit_learn_the_error_says_what_to_install():
    """LightGBM's Dask estimators are its scikit-learn estimators."""
    with pytest.raises(NotReady, match=r"pip install 'nextbest\[cluster\]'"):
        grow_on(None, 2)
