"""A bundle small enough to compute by hand: rate = sigmoid(sum of the inputs), missing counted as nothing."""

import hashlib
import io
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from features.contract import Feature, fingerprint
from service.bundles.manifest import MANIFEST_FILE, MODEL_FILE, WARMUP_FILE, Calibration, Manifest, Split

INPUTS = (
    Feature("age", "number", "profile", max_age=86400.0),
    Feature("device", "category", "context", categories=("mobile", "desktop")),
    Feature("price", "number", "action"),
)


def sum_model(columns: int, *, name: str = "inputs") -> onnx.ModelProto:
    """Inputs -> ReduceSum -> Sigmoid -> rate."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("ReduceSum", [name, "axes"], ["margin"], keepdims=1),
        helper.make_node("Sigmoid", ["margin"], ["rate"]),
    ]
    graph = helper.make_graph(
        nodes, "sum",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("rate", TensorProto.FLOAT, [None, 1])],
        initializer=[axes],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class BundleMaker:
    """Writes bundle folders, right ones by default; `write` takes what a test wants to be wrong."""

    inputs = INPUTS

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, bundle_id: str = "tiny-1", *, model: bytes | None = None, rates_shift: float = 0.0, **changes) -> Path:
        folder = self._folder / bundle_id
        folder.mkdir(parents=True)
        matrix = np.array([[0.5, 1.0, -2.0], [0.0, 0.0, 0.0]], np.float32)
        rates = 1 / (1 + np.exp(-matrix.astype(np.float64).sum(axis=1))) + rates_shift
        warmup = io.BytesIO()
        np.savez(warmup, inputs=matrix, rates=rates)
        (folder / MODEL_FILE).write_bytes(model or sum_model(len(INPUTS)).SerializeToString())
        (folder / WARMUP_FILE).write_bytes(warmup.getvalue())
        (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(self.manifest(folder, bundle_id, **changes)))
        return folder

    def manifest(self, folder: Path, bundle_id: str, **changes) -> Manifest:
        files = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in (MODEL_FILE, WARMUP_FILE)}
        right = Manifest(
            bundle_id=bundle_id, created_at="2026-01-01T00:00:00Z", objective="click", inputs=INPUTS,
            contract_fingerprint=fingerprint(INPUTS), files=files, rows=2, base_rate=0.5, action_rates={},
            split=Split("time", 0.5, 1.0), calibration=Calibration(1.0, 0.0), dataset_fingerprint="none", parity=0.0, seed=0,
        )  # fmt: skip
        return msgspec.structs.replace(right, **changes)


@pytest.fixture
def bundles(tmp_path) -> BundleMaker:
    return BundleMaker(tmp_path / "made")
