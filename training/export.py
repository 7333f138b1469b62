"""LightGBM's trees as ONNX, decision for decision.

Thresholds are rounded down to float32: for float32 inputs `x <= threshold` then keeps its truth. The calibration is folded in:
leaves are multiplied by its slope, and its intercept is the base of the sum.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from features.vectors import UNSEEN, Matrix
from service.bundles.manifest import PARITY_LIMIT
from service.bundles.onnx_scorer import OnnxModel
from service.errors import BundleRefused
from training.fit import Fitted

PARITY_ROWS = 10_000
DUMPED_INFINITY = 1e300  # how LightGBM's dump writes an infinite threshold, which parts the missing values from all others
NEAR_ZERO = float(np.float32(1e-35))  # predicting, LightGBM takes values as near to zero as this for zero
VALUE_PARITY_LIMIT = 1e-5  # of a value, relative to it or to 1: float32 has 7 digits, and the exponential adds to the error
NASTY_SHARE = 0.5  # of the values; the others stay as they come
ONNX_VERSION, ML_VERSION, IR_VERSION = 17, 3, 8  # old enough for every ONNX Runtime that the service accepts


NODE_FIELDS = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "missing_value_tracks_true")
LEAF_FIELDS = ("treeids", "nodeids", "ids", "weights")


@dataclass
class _Nodes:
    """The attributes of TreeEnsembleRegressor, one entry per node, and one per leaf."""

    nodes: dict[str, list[Any]] = field(default_factory=lambda: {k: [] for k in NODE_FIELDS})
    leaves: dict[str, list[Any]] = field(default_factory=lambda: {k: [] for k in LEAF_FIELDS})


class _Branch(NamedTuple):
    """A split in LightGBM's dump, read strictly."""

    feature: int
    threshold: np.float32
    missing_left: bool


def export_onnx(fitted: Fitted) -> bytes:
    """The model of a bundle: `inputs` float32 (rows, columns) -> `rate` float32 (rows, 1). Raises BundleRefused."""
    model = helper.make_model(
        _graph(fitted),
        opset_imports=[helper.make_opsetid("", ONNX_VERSION), helper.make_opsetid("ai.onnx.ml", ML_VERSION)],
        ir_version=IR_VERSION,
        producer_name="nextbest",
    )
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized


def _graph(fitted: Fitted) -> onnx.GraphProto:
    nodes = _value(*fitted.parts) if fitted.amount is not None else [_trees(fitted, "margin"), _linked(fitted, "margin", "rate")]
    return helper.make_graph(
        nodes, "nextbest",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, len(fitted.columns)])],
        [helper.make_tensor_value_info("rate", TensorProto.FLOAT, [None, 1])],
    )  # fmt: skip


def _linked(fitted: Fitted, margin: str, output: str) -> onnx.NodeProto:
    link = {"rate": "Sigmoid", "uplift": "Identity"}.get(fitted.learned, "Exp")
    return helper.make_node(link, [margin], [output])


def _value(rate: Fitted, amount: Fitted) -> list[onnx.NodeProto]:
    """The amount over 1 + exp(-margin): ONNX Runtime's own Sigmoid is off by 1e-5 of a rate near 0.01, and amounts show it."""
    return [
        _trees(rate, "margin", _level(rate)), helper.make_node("Neg", ["margin"], ["against"]),
        helper.make_node("Exp", ["against"], ["odds"]), helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Add", ["odds", "one"], ["whole"]),
        _trees(amount, "log_amount"), _linked(amount, "log_amount", "amount"),
        helper.make_node("Div", ["amount", "whole"], ["rate"]),
    ]  # fmt: skip


def _level(fitted: Fitted) -> float:
    """What all leaves of the first tree have in common: LightGBM begins there. Added last, it costs float32 one rounding."""
    waiting, leaves = [fitted.booster.dump_model(num_iteration=1)["tree_info"][0]["tree_structure"]], []
    while waiting:
        node = waiting.pop()
        if "leaf_value" in node:
            leaves.append(fitted.calibration.slope * node["leaf_value"])
        else:
            waiting += [node["left_child"], node["right_child"]]
    return float(np.mean(leaves))


def _trees(fitted: Fitted, output: str, level: float = 0.0) -> onnx.NodeProto:
    """The ensemble. `level`: taken off the leaves of the first tree, and given to the base of the sum."""
    nodes = _Nodes()
    for number, tree in enumerate(fitted.booster.dump_model(num_iteration=fitted.rounds)["tree_info"]):
        _add_tree(nodes, number, tree["tree_structure"], fitted.calibration.slope, 0.0 if number else level)
    return helper.make_node(
        "TreeEnsembleRegressor", ["inputs"], [output], domain="ai.onnx.ml", n_targets=1, aggregate_function="SUM",
        post_transform="NONE", base_values=[fitted.calibration.intercept + level],
        **{f"nodes_{key}": values for key, values in nodes.nodes.items()},
        **{f"target_{key}": values for key, values in nodes.leaves.items()},
    )  # fmt: skip


def _add_tree(nodes: _Nodes, tree: int, root: dict[str, Any], slope: float, level: float) -> None:
    """Nodes in the order in which a walk meets them; a node's number is its place in that order."""
    waiting = [(root, 0)]
    used = 1
    while waiting:
        node, number = waiting.pop()
        if "leaf_value" in node:
            _append(nodes.nodes, (tree, number, 0, "LEAF", 0.0, 0, 0, 0))
            _append(nodes.leaves, (tree, number, 0, slope * node["leaf_value"] - level))
            continue
        branch = _read_branch(node)
        left, right, used = used, used + 1, used + 2
        fields = (tree, number, branch.feature, "BRANCH_LEQ", float(branch.threshold), left, right, int(branch.missing_left))
        _append(nodes.nodes, fields)
        waiting += [(node["left_child"], left), (node["right_child"], right)]


def _append(columns: dict[str, list[Any]], row: Sequence[Any]) -> None:
    for column, value in zip(columns.values(), row, strict=True):
        column.append(value)


def _read_branch(node: dict[str, Any]) -> _Branch:
    """What a split does. LightGBM takes NaN as 0 where the feature had no missing values in training."""
    if node["decision_type"] != "<=" or node["missing_type"] not in ("None", "NaN"):
        raise BundleRefused(
            f"Expected splits `<=` with missing type None or NaN, found `{node['decision_type']}` with `{node['missing_type']}`"
        )
    missing_left = node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0.0
    return _Branch(node["split_feature"], exported_threshold(node["threshold"]), bool(missing_left))


def exported_threshold(threshold: float) -> np.float32:
    """The largest float32 that LightGBM sends left: up to the threshold, except that it takes what is near zero for zero."""
    if abs(threshold) > NEAR_ZERO:
        return round_down(threshold)
    return np.float32(NEAR_ZERO) if threshold >= 0.0 else np.nextafter(np.float32(-NEAR_ZERO), np.float32(-np.inf))


def round_down(threshold: float) -> np.float32:
    """The largest float32 that is not above the threshold."""
    if abs(threshold) >= DUMPED_INFINITY:
        return np.float32(np.copysign(np.inf, threshold))
    with np.errstate(over="ignore"):
        nearest = np.float32(threshold)
        return np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > threshold else nearest


def check_parity(model: bytes, fitted: Fitted, inputs: Matrix, seed: int) -> float:
    """Largest difference between ONNX Runtime and LightGBM on 10,000 nasty rows. Raises BundleRefused above 1e-6.

    Of a value above 1, of itself; of one in a single part, 1e-5 of itself.
    """
    rows = nasty_rows(fitted, inputs, seed)
    expected = fitted.rates(rows)
    worst = float(
        (np.abs(OnnxModel(model, len(fitted.columns)).rates(rows) - expected) / np.maximum(1.0, np.abs(expected))).max()
    )
    limit = PARITY_LIMIT if fitted.learned in ("rate", "uplift") else VALUE_PARITY_LIMIT
    if not worst <= limit:
        raise BundleRefused(f"Parity: expected ONNX within {limit:g} of LightGBM on {len(rows)} rows, found {worst:g}")
    return worst


def nasty_rows(fitted: Fitted, inputs: Matrix, seed: int) -> Matrix:
    """Rows as they come, with values replaced by those that break exporters.

    float32, (10,000, columns): missing, infinite, an unseen category, zero, a threshold and its two float32 neighbours.
    """
    chance = np.random.default_rng(seed)
    rows = inputs[chance.integers(0, len(inputs), PARITY_ROWS)].copy()
    for column, thresholds in enumerate(_thresholds(fitted)):
        nasty = np.array([np.nan, np.inf, -np.inf, UNSEEN, 0.0, *thresholds], np.float32)
        replaced = chance.random(PARITY_ROWS) < NASTY_SHARE
        rows[replaced, column] = chance.choice(nasty, int(replaced.sum()))
    return rows


def _thresholds(fitted: Fitted) -> list[list[np.float32]]:
    found: list[set[np.float32]] = [set() for _ in fitted.columns]
    dumps = (part.booster.dump_model(num_iteration=part.rounds) for part in fitted.parts)
    for tree in (tree for dump in dumps for tree in dump["tree_info"]):
        for node in _branches(tree["tree_structure"]):
            threshold = exported_threshold(node["threshold"])
            with np.errstate(over="ignore"):  # the largest float32 has infinity for its neighbour
                around = (np.nextafter(threshold, np.float32(-np.inf)), threshold, np.nextafter(threshold, np.float32(np.inf)))
            found[node["split_feature"]].update(around)
    return [sorted(column) for column in found]


def _branches(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if "leaf_value" not in node:
            yield node
            waiting += [node["left_child"], node["right_child"]]
