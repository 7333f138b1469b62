"""A value is learned in two parts, exported as their product, and served as that."""

from typing import NamedTuple

import numpy as np
import pytest

from features.contract import Feature
from features.vectors import Matrix
from service.bundles.compiled_scorer import CompiledScorer
from service.bundles.manifest import PARITY_LIMIT
from service.bundles.onnx_scorer import OnnxModel, OnnxScorer
from service.bundles.onnx_trees import Product, read_trees
from service.bundles.product_scorer import ProductScorer, compiled
from service.catalog.entities import Action
from service.errors import NotReady
from training.export import check_parity, export_onnx
from training.fit import FitSettings, Fitted
from training.two_parts import fit_two_parts
from training.value_levels import level_error

COLUMNS = (
    Feature("wealth", "number", "profile", max_age=1.0),
    Feature("interest", "number", "profile", max_age=1.0),
    Feature("id", "category", "action", categories=("plain", "fancy")),
)
SETTINGS = FitSettings(rounds=60, rows_per_leaf=20, threads=1, identity_dropout=0.0)
ROWS, HELD_OUT = 40_000, 6000


class Spending(NamedTuple):
    """Who is interested buys, who is wealthy pays: what each row brought, and what was to be expected of it."""

    inputs: Matrix
    values: np.ndarray
    expected: np.ndarray


def spending(rows: int = ROWS, *, unit: float = 100.0, seed: int = 1) -> Spending:
    chance = np.random.default_rng(seed)
    wealth, interest, action = chance.normal(size=rows), chance.normal(size=rows), chance.integers(0, 2, rows)
    rate = 1 / (1 + np.exp(2.5 - interest + 0.5 * action))
    amount = unit * np.exp(0.5 * wealth + 0.7 * action)
    values = np.where(chance.random(rows) < rate, amount * chance.gamma(2.0, 0.5, rows), 0.0)
    return Spending(np.column_stack([wealth, interest, action]).astype(np.float32), values, rate * amount)


@pytest.fixture(scope="module")
def known() -> Spending:
    return spending()


@pytest.fixture(scope="module")
def fitted(known) -> Fitted:
    return fit_two_parts(known.inputs, known.values, COLUMNS, SETTINGS)


def test_the_product_is_near_the_value_that_is_to_be_expected(fitted):
    """On rows that no tree has seen, in total, by action, and from row to row: far nearer than the mean is."""
    new = spending(HELD_OUT, seed=2)
    predicted = fitted.rates(new.inputs)
    for rows in (new.inputs[:, 2] >= 0, new.inputs[:, 2] == 0, new.inputs[:, 2] == 1):
        assert predicted[rows].mean() == pytest.approx(new.expected[rows].mean(), rel=0.1)
    assert np.corrcoef(predicted, new.expected)[0, 1] > 0.9


def test_amounts_are_learned_from_those_who_bought_alone(fitted, known):
    """Their level is exactly that of the amounts; how often there is one does not move it."""
    bought = known.values > 0
    assert fitted.amount is not None
    assert fitted.amount.rates(known.inputs[bought]).sum() == pytest.approx(known.values[bought].sum(), rel=1e-6)
    assert fitted.metrics["amounts"] == bought.sum()


def test_a_few_amounts_have_one_mean(known):
    """Forty of them tell how much is spent, and not by whom."""
    few = np.where(np.cumsum(known.values > 0) <= 40, known.values, 0.0)
    fitted = fit_two_parts(known.inputs, few, COLUMNS, FitSettings(rounds=10, threads=1))
    assert fitted.amount is not None
    assert fitted.amount.rates(known.inputs) == pytest.approx(few[few > 0].mean())
    check_parity(export_onnx(fitted), fitted, known.inputs, seed=0)


def test_less_than_nothing_is_no_value(known):
    """Returns have to be booked elsewhere: an amount has a logarithm."""
    with pytest.raises(NotReady, match=r"Expected values of 0 and above, found 1 others, the least -3"):
        fit_two_parts(known.inputs, np.append(known.values[:-1], -3.0), COLUMNS, SETTINGS)


@pytest.mark.parametrize("unit", [0.01, 100.0, 1e6])
def test_the_export_predicts_the_same_whatever_the_currency(unit):
    """Relative to a value above 1, a millionth: as exactly as rates."""
    rows = spending(4000, unit=unit)
    fitted = fit_two_parts(rows.inputs, rows.values, COLUMNS, SETTINGS)
    assert check_parity(export_onnx(fitted), fitted, rows.inputs, seed=3) <= PARITY_LIMIT


def actions() -> list[Action]:
    return [Action(name, "offer", "all", "all", 1.0, 1.0, 0.0, None, None, {}, (), ()) for name in ("plain", "fancy", "new")]


def test_both_parts_are_compiled_and_multiplied(fitted, known):
    """Within a millionth of ONNX Runtime, for one request and for many, known actions and a new one."""
    model = export_onnx(fitted)
    trees = read_trees(model)
    assert isinstance(trees, Product)
    fast, reference = compiled(trees, COLUMNS, actions()), OnnxScorer(OnnxModel(model, len(COLUMNS)), COLUMNS, actions())
    assert isinstance(fast, ProductScorer)
    assert fast.inputs == reference.inputs
    for rows in (1, 300):
        requests = known.inputs[:rows, :2]
        assert fast.score(requests) == pytest.approx(reference.score(requests), rel=1e-6)


def test_one_ensemble_is_compiled_alone(learning):
    """A rate needs no second scorer."""
    model = export_onnx(learning.model())
    trees = read_trees(model)
    assert trees is not None
    assert not isinstance(trees, Product)
    assert isinstance(compiled(trees, learning.columns, actions()), CompiledScorer)


def test_the_error_of_a_level_is_what_repetition_shows():
    """Means of what was predicted and of what came scatter around each other as far as is said."""
    found = [spending(2000, seed=seed) for seed in range(40)]
    differences = [float(one.values.mean() - one.expected.mean()) for one in found]
    told = np.mean([level_error(one.values, one.expected, np.inf) for one in found])
    assert np.std(differences) == pytest.approx(told, rel=0.3)
    assert level_error(found[0].values, found[0].expected, 50.0) > told
