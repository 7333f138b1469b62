"""Scoring with ONNX Runtime, one row per request and action: the reference that every other scorer must equal."""

from collections.abc import Sequence

import numpy as np
import onnxruntime

from features.contract import Feature
from features.vectors import Matrix, vectorize
from service.bundles.matching import Matching
from service.catalog.entities import Action
from service.decision.scoring import Rates
from service.errors import BundleRefused

ROWS_AT_ONCE = 65_536  # bounds the expanded matrix of a large batch: 65,536 rows x 60 inputs are 16 MB


class OnnxModel:
    """An ONNX model held in memory. Raises BundleRefused where the bytes are no model with the expected input and output."""

    def __init__(self, model: bytes, inputs: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning burns a core between requests
        options.log_severity_level = 3
        try:  # from bytes: a path would let the file pull in external data
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises several unrelated classes for a bad model
            raise BundleRefused(f"Expected an ONNX model, found something that ONNX Runtime refuses: {error}") from error
        found = [(i.name, i.shape[-1]) for i in self._session.get_inputs()], [o.name for o in self._session.get_outputs()]
        if found != ([("inputs", inputs)], ["rate"]):
            raise BundleRefused(f"Expected input `inputs` with {inputs} columns and output `rate`, found {found}")

    def rates(self, matrix: Matrix) -> Rates:
        """Predicted rates: float32 (rows, inputs) -> float64 (rows,)."""
        rates: Rates = self._session.run(["rate"], {"inputs": matrix})[0].reshape(-1).astype(np.float64)
        return rates


class OnnxScorer:
    """Repeats each request for every action, and the actions' attributes for every request; what both tell comes last."""

    def __init__(self, model: OnnxModel, inputs: Sequence[Feature], actions: Sequence[Action]) -> None:
        self.inputs = tuple(f for f in inputs if f.is_of_request)
        self._model = model
        self._actions = action_matrix([f for f in inputs if f.is_of_catalog], actions)
        self._matching = Matching(inputs, actions)

    def score(self, requests: Matrix) -> Rates:
        """Predicted rates: float32 (requests, inputs) -> float64 (requests, actions)."""
        step = max(1, ROWS_AT_ONCE // max(1, len(self._actions)))
        parts = [self._score(requests[start : start + step]) for start in range(0, len(requests), step)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self._actions)))

    def _score(self, requests: Matrix) -> Rates:
        count, split, matches = len(self._actions), requests.shape[1], len(self._matching.columns)
        end = split + self._actions.shape[1]
        rows = np.empty((len(requests), count, end + matches), np.float32)
        rows[:, :, :split] = requests[:, None, :]
        rows[:, :, split:end] = self._actions
        if matches:
            rows[:, :, end:] = self._matching.values(requests)
        return self._model.rates(rows.reshape(-1, rows.shape[2])).reshape(len(requests), count)


def action_matrix(inputs: Sequence[Feature], actions: Sequence[Action]) -> Matrix:
    """What a model sees of a catalog's actions, their attributes and, the same for all, the slot: float32, (actions, inputs)."""
    columns: dict[str, list[object]] = {f.key: [a.attributes.get(f.name) for a in actions] for f in inputs}
    columns["action.id"] = [a.id for a in actions]
    return vectorize(inputs, columns, len(actions))
