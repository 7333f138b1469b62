"""What the peers share: the same model, the same actions, and the vector that a request becomes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import numpy.typing as npt

from features.homes import home_contract
from features.vectors import Matrix
from service.bundles.loading import read_manifest
from service.bundles.manifest import BOOSTER_FILE, MODEL_FILE, Manifest
from service.bundles.onnx_scorer import OnnxModel, action_matrix
from service.catalog.entities import Catalog
from service.catalog.validate import load_catalog
from service.decision.engine import by_priority
from service.registry import Registry

Rates = npt.NDArray[np.float64]
Predict = Callable[[Matrix], Rates]  # float32 (rows, inputs) -> (rows,)
CUSTOMER = "customer_id"


class Model(NamedTuple):
    """One row of the matrix for each action: what is the same in all requests is filled in beforehand."""

    manifest: Manifest
    names: list[str]  # of the actions
    values: npt.NDArray[np.float64]
    matrix: Matrix
    codes: dict[str, dict[str, float]]  # by feature: of its categories
    predict: Predict

    @classmethod
    def of(cls, home: Path, kind: str) -> "Model":
        """The bundle that serves in a home. `kind`: `lightgbm` or `onnx`, both with one thread."""
        registry, contract = Registry(home / "registry"), home_contract(home)
        pointer = registry.current()
        folder = registry.bundle_folder(pointer.champion or "")
        manifest, catalog = read_manifest(folder), load_catalog(registry.catalog(pointer.catalog or 0).document, contract)
        return cls.made(manifest, catalog, _lightgbm(folder) if kind == "lightgbm" else _onnx(folder, len(manifest.inputs)))

    @classmethod
    def made(cls, manifest: Manifest, catalog: Catalog, predict: Predict) -> "Model":
        """With room for what a request says."""
        actions = by_priority(catalog)
        known = action_matrix([f for f in manifest.inputs if f.is_of_catalog], actions)
        room = np.full((len(actions), len(manifest.inputs) - known.shape[1]), np.nan, np.float32)
        codes = {f.name: {c: float(n) for n, c in enumerate(f.categories)} for f in manifest.inputs if f.type == "category"}
        values = np.array([action.value for action in actions])
        return cls(manifest, [a.id for a in actions], values, np.hstack([room, known]), codes, predict)

    def best(self, told: Mapping[str, Any]) -> dict[str, object]:
        """The action with the highest expected value. `told`: what is known of customer and context, by name."""
        for column, feature in enumerate(self.manifest.inputs):
            if feature.scope == "action":
                break
            value = told.get(feature.name)
            code = self.codes[feature.name].get(value, -1.0) if feature.name in self.codes and value is not None else value
            self.matrix[:, column] = np.nan if code is None else code
        rates = self.predict(self.matrix)
        first = int(np.argmax(rates * self.values))
        return {"action_id": self.names[first], "predicted_rate": float(rates[first])}


def _lightgbm(folder: Path) -> Predict:
    booster = lightgbm.Booster(model_file=folder / BOOSTER_FILE)

    def predict(matrix: Matrix) -> Rates:
        rates: Rates = booster.predict(matrix, num_threads=1)
        return rates

    return predict


def _onnx(folder: Path, inputs: int) -> Predict:
    return OnnxModel((folder / MODEL_FILE).read_bytes(), inputs).rates
