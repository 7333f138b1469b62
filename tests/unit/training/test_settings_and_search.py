"""What an operator can say about learning: which way an input may work, and how many settings are tried."""

import importlib
import importlib.util

import msgspec
import numpy as np
import pytest

from service.bundles.loading import read_manifest
from service.bundles.onnx_scorer import OnnxModel
from service.cli import main
from service.errors import BadRequest, NotReady
from service.registry import Registry
from training.export import check_parity, export_onnx
from training.fit import FitSettings, fit
from training.learn import prepare
from training.scores import scores

optuna_there = importlib.util.find_spec("optuna") is not None
needs_optuna = pytest.mark.skipif(not optuna_there, reason="optuna is not installed: pip install 'nextbest[tuning]'")
tuning = importlib.import_module("training.tuning") if optuna_there else None
AGE, ROWS = 0, 4000


def steps(fitted, inputs, column: int):
    """How the predicted rate changes along a grid of one input, all else as it is: (rows, steps)."""
    grid = np.linspace(-3.0, 3.0, 41, dtype=np.float32)
    rates = []
    for value in grid:
        changed = inputs[:200].copy()
        changed[:, column] = value
        rates.append(fitted.rates(changed))
    return np.diff(np.column_stack(rates), axis=1)


@pytest.mark.parametrize(("way", "learned"), [(1, True), (-1, False)])
def test_a_monotone_input_never_works_the_other_way(learning, way, learned):
    """Success is likelier with age here: held to that, age still tells; held to the opposite, it tells nothing."""
    inputs, labels, _ = learning.world(ROWS)
    settings = msgspec.structs.replace(learning.settings, rounds=60, monotone={"customer.age": way})
    free, held = (fit(inputs, labels, learning.columns, s) for s in (learning.settings, settings))
    assert (steps(held, inputs, AGE) * way >= -1e-12).all()
    assert (steps(free, inputs, AGE) < 0).any()
    assert (steps(held, inputs, AGE).max() > 0.01) == learned


def test_a_model_that_is_held_to_a_way_is_exported_as_it_is(learning):
    """Parity holds, and so does the way, in ONNX."""
    inputs, labels, _ = learning.world(ROWS)
    settings = msgspec.structs.replace(learning.settings, monotone={"customer.age": 1, "action.price": -1})
    fitted = fit(inputs, labels, learning.columns, settings)
    model = export_onnx(fitted)
    assert check_parity(model, fitted, inputs, 0) <= 1e-6
    older = inputs[:500] + np.array([1, 0, 0, 0], np.float32)
    scorer = OnnxModel(model, inputs.shape[1])
    assert (scorer.rates(older) - scorer.rates(inputs[:500]) >= -1e-7).all()


def test_ways_are_declared_in_learning_toml_and_told_by_the_bundle(own_home):
    """The manifest has every setting, so that the training can be done again."""
    (own_home / "learning.toml").write_text('[monotone]\n"customer.visits_30d" = 1\n')
    assert main(["--home", str(own_home), "train", "--objective", "click", "--seed", "3"]) == 0
    registry = Registry(own_home / "registry")
    newest = max((read_manifest(registry.bundle_folder(name)) for name in registry.bundles()), key=lambda m: m.created_at)
    assert newest.settings == {**FitSettings(seed=3).figures(), "monotone.customer.visits_30d": 1.0}


@pytest.mark.parametrize("line", ['"customer.region" = 1', '"customer.shoe_size" = 1'])
def test_what_cannot_be_monotone_is_refused_by_its_key(own_home, line):
    """A category has no order, and what is no input has no effect."""
    (own_home / "learning.toml").write_text(f"[monotone]\n{line}\n")
    with pytest.raises(BadRequest, match=f"an input that is a number, got `{line[1:-5]}` - at `learning.toml`, `monotone`"):
        prepare(own_home, "click")


def test_a_way_is_up_or_down(own_home):
    """Two is none."""
    (own_home / "learning.toml").write_text('[monotone]\n"customer.age" = 2\n')
    with pytest.raises(BadRequest, match=r"learning\.toml"):
        prepare(own_home, "click")


@needs_optuna
def test_a_search_is_never_worse_than_where_it_began_and_repeats_itself(learning):
    """The given settings are the first trial: bad ones are left behind, on rows that no trial learned from, too."""
    world, fresh = learning.world(3000), learning.world(3000, seed=8)
    bad = msgspec.structs.replace(learning.settings, learning_rate=0.0101, leaves=4, rounds=15)
    told = []
    first, second = (
        tuning.tune(world.inputs, world.labels, learning.columns, bad, 6, progress=lambda *step: told.append(step))
        for _ in range(2)
    )
    assert first == second
    assert first.loss < first.before
    assert told[:6] == [(done, 6) for done in range(1, 7)]
    losses = [
        scores(fresh.labels, fit(world.inputs, world.labels, learning.columns, s).rates(fresh.inputs))["log_loss"]
        for s in (bad, first.settings)
    ]
    assert losses[1] < losses[0]


@needs_optuna
def test_a_search_validates_on_rows_that_come_later(learning):
    """Whatever is learned ends before what is judged begins."""
    blocks = list(tuning._blocks(1000))
    assert blocks == [(500, 750), (750, 1000)]
    with pytest.raises(NotReady, match="too few to be parted for a search - at `--tune`"):
        tuning.tune(*learning.world(300)[:2], learning.columns, learning.settings, 2)


@needs_optuna
def test_a_search_that_is_asked_for_is_what_the_bundle_was_learned_by(own_home, capsys):
    """`nextbest train --tune 3` tells its settings, and the manifest has them."""
    assert main(["--home", str(own_home), "train", "--objective", "click", "--tune", "3"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2].startswith("best of 3 trials: ")
    manifest = read_manifest(Registry(own_home / "registry").bundle_folder(said[-1]))
    assert f"learning_rate {manifest.settings['learning_rate']:.3g}" in said[-2]


@pytest.mark.skipif(optuna_there, reason="optuna is installed: the error is for those who lack it")
def test_without_optuna_the_error_says_what_to_install(own_home, capsys):
    """The extra by its name."""
    assert main(["--home", str(own_home), "train", "--objective", "click", "--tune", "3"]) == 1
    assert "pip install 'nextbest[tuning]'" in capsys.readouterr().err
