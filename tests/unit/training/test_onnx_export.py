"""The exported trees decide as LightGBM does, on every value that breaks exporters."""

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import helper

from features.vectors import UNSEEN
from service.bundles.manifest import PARITY_LIMIT, Calibration
from service.bundles.onnx_scorer import OnnxModel
from service.errors import BundleRefused
from training.export import (
    DUMPED_INFINITY,
    NEAR_ZERO,
    PARITY_ROWS,
    check_parity,
    export_onnx,
    exported_threshold,
    nasty_rows,
    round_down,
)
from training.fit import margins

LARGEST = float(np.finfo(np.float32).max)
below_infinity = st.floats(-DUMPED_INFINITY, DUMPED_INFINITY, exclude_min=True, exclude_max=True)
single = st.floats(width=32, allow_nan=False)


# numpy compares a float32 with a Python float in float32: sides are compared between Python floats throughout.
def nearest(value: float) -> float:
    """What a cast to float32 makes of it."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def neighbours(value: float) -> tuple[float, float]:
    """The float32 values one step below and one step above."""
    with np.errstate(over="ignore"):
        middle = np.float32(value)
        return float(np.nextafter(middle, np.float32(-np.inf))), float(np.nextafter(middle, np.float32(np.inf)))


def splits(fitted) -> list[dict]:
    """Every split of every tree, as LightGBM dumps it."""
    found, waiting = [], [tree["tree_structure"] for tree in fitted.booster.dump_model()["tree_info"]]
    while waiting:
        node = waiting.pop()
        if "threshold" in node:
            found.append(node)
            waiting += [node["left_child"], node["right_child"]]
    return found


def every_combination(fitted) -> np.ndarray:
    """All rows whose inputs are missing, infinite, huge, unseen, near zero, at a threshold, or a step beside it."""
    columns = []
    for position in range(len(fitted.columns)):
        edges = [nearest(s["threshold"]) for s in splits(fitted) if s["split_feature"] == position][:3]
        special = [np.nan, np.inf, -np.inf, LARGEST, -LARGEST, UNSEEN, 0.0, -0.0, NEAR_ZERO, -NEAR_ZERO, 1e-45, *edges]
        columns.append(np.unique([*special, *itertools.chain.from_iterable(map(neighbours, edges))]).astype(np.float32))
    return np.array(list(itertools.product(*columns)), np.float32)


def difference(fitted, rows) -> float:
    return float(np.abs(OnnxModel(export_onnx(fitted), len(fitted.columns)).rates(rows) - fitted.rates(rows)).max())


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_rates_are_those_of_lightgbm_on_every_combination_of_nasty_values(learning, missing):
    """With and without missing values in training: LightGBM sends what is missing in production to other sides."""
    fitted = learning.model(missing=missing)
    assert {s["missing_type"] for s in splits(fitted)} == {"NaN" if missing else "None"}
    assert difference(fitted, every_combination(fitted)) <= PARITY_LIMIT


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_the_parity_check_passes_and_says_how_close_it_was(learning, missing):
    """What the manifest keeps: not nothing, for float32 rounds, and far below the limit."""
    fitted = learning.model(missing=missing)
    assert 0.0 < check_parity(export_onnx(fitted), fitted, learning.world(missing=missing).inputs, seed=0) <= PARITY_LIMIT


@pytest.mark.parametrize("missing_succeeds", [True, False])
def test_a_split_that_only_parts_missing_values_sends_infinite_ones_with_all_others(learning, missing_succeeds):
    """LightGBM dumps its infinite threshold as 1e300, which no float32 equals: infinity must stay infinity."""
    inputs = np.repeat(np.array([np.nan, 0.0], np.float32), 100)[:, None]
    often, seldom = np.tile([0, 1, 1, 1, 1], 20), np.tile([1, 0, 0, 0, 0], 20)
    fitted = learning.trees(inputs, np.concatenate([often, seldom] if missing_succeeds else [seldom, often]))
    assert {s["threshold"] for s in splits(fitted)} == {DUMPED_INFINITY}
    rows = np.array([[np.nan], [-np.inf], [-LARGEST], [0.0], [LARGEST], [np.inf]], np.float32)
    assert difference(fitted, rows) <= PARITY_LIMIT
    rates = fitted.rates(rows)
    assert np.ptp(rates[1:]) == 0.0
    assert (rates[0] > rates[1]) == missing_succeeds


@pytest.mark.parametrize(("low", "high"), [(-1.0, 0.0), (0.0, 1.0), (-1.0, 1.0), (-2.0, UNSEEN)])
def test_values_too_near_to_zero_for_lightgbm_are_zero_here_too(learning, low, high):
    """Predicting, LightGBM reads -1e-35 as 0: an unseen category is parted from code 0 at that very threshold."""
    fitted = learning.two_values(low, high)
    assert difference(fitted, every_combination(fitted)) <= PARITY_LIMIT
    if (low, high) == (UNSEEN, 0.0):
        assert {s["threshold"] for s in splits(fitted)} == {-NEAR_ZERO}
        at_the_threshold, at_zero = fitted.rates(np.array([[-NEAR_ZERO], [0.0]], np.float32))
        assert at_the_threshold == at_zero


def test_a_threshold_between_neighbours_would_change_sides_if_it_were_rounded_to_nearest(learning):
    """Two float32 values one step apart: LightGBM's threshold lies between them, and the nearest float32 is the upper one."""
    low, high = 1.0, neighbours(1.0)[1]
    fitted = learning.two_values(low, high)
    (threshold,) = {s["threshold"] for s in splits(fitted)}
    assert low < threshold < high
    assert (float(round_down(threshold)), nearest(threshold)) == (low, high)
    assert [high <= threshold, high <= nearest(threshold), high <= float(round_down(threshold))] == [False, True, False]
    assert difference(fitted, np.array([[low], [high]], np.float32)) <= PARITY_LIMIT


def rounded_to_nearest(model: bytes, threshold: float) -> bytes:
    """The same model as another exporter would have written it."""
    proto = onnx.load_from_string(model)
    values = next(a for a in proto.graph.node[0].attribute if a.name == "nodes_values")
    changed = [nearest(threshold) if v == float(round_down(threshold)) else v for v in values.floats]
    values.CopyFrom(helper.make_attribute("nodes_values", changed))
    return proto.SerializeToString()


def test_an_exporter_that_rounds_to_nearest_is_caught_by_the_parity_check(learning):
    """The guard trips: the very same trees, with the threshold one float32 step higher."""
    low, high = 1.0, neighbours(1.0)[1]
    fitted = learning.two_values(low, high)
    model, inputs = export_onnx(fitted), np.array([[low], [high]], np.float32)
    assert check_parity(model, fitted, inputs, seed=0) <= PARITY_LIMIT
    with pytest.raises(BundleRefused, match=r"Parity: expected ONNX within 1e-06 of LightGBM on 10000 rows, found 0\.[1-9]"):
        check_parity(rounded_to_nearest(model, splits(fitted)[0]["threshold"]), fitted, inputs, seed=0)


@given(below_infinity, single)
@example(-LARGEST * (1 + 1e-12), -LARGEST)
@example(LARGEST * (1 + 1e-12), np.inf)
@example(-1e-60, 0.0)
def test_rounding_down_keeps_the_side_of_every_float32(threshold, value):
    """Whatever the threshold; beyond float32 and below its smallest step too."""
    assert (value <= float(round_down(threshold))) == (value <= threshold)


@given(single, st.sampled_from([-np.inf, 0.0, np.inf]))
def test_rounding_down_keeps_the_side_of_a_value_beside_its_threshold(value, direction):
    """At most one float64 step off a float32, where random numbers never fall; the result is the largest that will do."""
    threshold = float(np.nextafter(value, direction))
    if abs(threshold) < DUMPED_INFINITY:
        rounded = float(round_down(threshold))
        assert (value <= rounded) == (value <= threshold)
        assert rounded <= threshold < neighbours(rounded)[1]


@given(st.one_of(below_infinity, st.floats(-2e-35, 2e-35)), st.one_of(single, st.floats(-(2.0**-115), 2.0**-115, width=32)))
@example(-NEAR_ZERO, -NEAR_ZERO)
@example(NEAR_ZERO, NEAR_ZERO)
def test_an_exported_threshold_decides_as_if_what_is_near_zero_were_zero(threshold, value):
    """The rule of LightGBM's predictor, for any threshold and any float32."""
    read = 0.0 if abs(value) <= NEAR_ZERO else value
    assert (value <= float(exported_threshold(threshold))) == (read <= threshold)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_an_infinite_threshold_stays_infinite(sign):
    """Both ways of writing it."""
    assert round_down(sign * DUMPED_INFINITY) == exported_threshold(sign * np.inf) == sign * np.inf


def test_categorical_splits_are_refused(learning):
    """ONNX has no set of categories in a node: they would have to be spelled out, and are encoded as numbers instead."""
    codes = np.tile(np.arange(10, dtype=np.float32), 40)[:, None]
    fitted = learning.trees(codes, codes[:, 0] % 2, categories=[0], min_data_per_group=5)
    with pytest.raises(BundleRefused, match="Expected splits `<=` with missing type None or NaN, found `==`"):
        export_onnx(fitted)


def test_zero_that_stands_for_missing_is_refused(learning):
    """A price of 0 is a price; ONNX knows only NaN as missing."""
    inputs = np.tile(np.arange(10, dtype=np.float32), 40)[:, None]
    with pytest.raises(BundleRefused, match="Expected splits `<=` with missing type None or NaN, found `<=` with `Zero`"):
        export_onnx(learning.trees(inputs, inputs[:, 0] % 2, zero_as_missing=True))


@pytest.mark.parametrize("calibration", [Calibration(1.0, 0.0), Calibration(0.5, -1.0), Calibration(2.0, 0.7)])
def test_the_calibration_is_folded_into_the_trees(learning, calibration):
    """The file alone gives sigmoid(slope * margin + intercept); the margin is LightGBM's own."""
    fitted = learning.model()
    changed = type(fitted)(fitted.booster, calibration, fitted.columns, fitted.settings, {})
    inputs = learning.world().inputs
    rates = OnnxModel(export_onnx(changed), 4).rates(inputs)
    margin = margins(fitted.booster, inputs)
    np.testing.assert_allclose(rates, 1 / (1 + np.exp(-(calibration.slope * margin + calibration.intercept))), atol=PARITY_LIMIT)


def test_a_model_without_any_split_says_the_same_rate_to_everybody(learning):
    """Trees of one leaf: nothing to learn, and still a model."""
    fitted = learning.trees(np.zeros((100, 1), np.float32), np.tile([0, 0, 0, 1], 25))
    assert splits(fitted) == []
    rates = OnnxModel(export_onnx(fitted), 1).rates(np.array([[np.nan], [0.0], [7.0]], np.float32))
    np.testing.assert_allclose(rates, 0.25, atol=PARITY_LIMIT)


def test_only_trees_that_count_are_exported(learning):
    """What was grown after the best round stays out of the file, as it stays out of the reference."""
    fitted = learning.model()
    fitted.booster.best_iteration = 3
    trees = next(a for a in onnx.load_from_string(export_onnx(fitted)).graph.node[0].attribute if a.name == "nodes_treeids")
    assert set(trees.ints) == {0, 1, 2}
    assert difference(fitted, learning.world().inputs) <= PARITY_LIMIT


def test_nasty_rows_hold_every_value_that_breaks_exporters(learning):
    """Missing, infinite, unseen, zero, each threshold and a step to either side; about half of the values stay as they come."""
    fitted, inputs = learning.model(), learning.world().inputs
    rows = nasty_rows(fitted, inputs, seed=0)
    assert (rows.shape, rows.dtype) == ((PARITY_ROWS, 4), np.float32)
    ages = set(rows[:, 0].tolist())
    assert {np.inf, -np.inf, UNSEEN, 0.0} <= ages
    assert np.isnan(rows).any(axis=0).all()
    for split in splits(fitted):
        around = (*neighbours(exported_threshold(split["threshold"])), exported_threshold(split["threshold"]))
        assert set(map(float, around)) <= set(rows[:, split["split_feature"]].tolist())
    assert np.isin(rows[:, 0], inputs[:, 0]).mean() == pytest.approx(0.5, abs=0.05)


def test_nasty_rows_are_the_same_for_the_same_seed_and_leave_the_given_ones_alone(learning):
    """A refusal can be looked at again."""
    fitted, inputs = learning.model(), learning.world().inputs
    before = inputs.copy()
    np.testing.assert_array_equal(nasty_rows(fitted, inputs, seed=1), nasty_rows(fitted, inputs, seed=1))
    np.testing.assert_array_equal(inputs, before)
