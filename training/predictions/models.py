"""A kept prediction: an immutable folder with a model, its manifest and checksums, and a pointer that says which one is used.

registry/predictions/bundles/<id>/{model.onnx, model.txt, manifest.json}
registry/predictions/current, history.jsonl
"""

import datetime as dt
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from features.contract import Feature, fingerprint
from features.predictions import Prediction
from features.vectors import Matrix
from service.bundles.manifest import BOOSTER_FILE, MANIFEST_FILE, MODEL_FILE, Calibration
from service.bundles.onnx_scorer import OnnxModel
from service.errors import BundleRefused
from service.registry import Registry
from training.export import check_parity, export_onnx
from training.fit import Fitted, Learned
from training.publish import booster_text, libraries


class PredictionManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a kept prediction says of itself. `cuts`: the moments that it learned from, then the one that judged it, in seconds.

    `forced`: why it was not to be used, where somebody used it all the same.
    """

    model_id: str
    created_at: str  # RFC 3339
    prediction: Prediction
    inputs: tuple[Feature, ...]
    contract_fingerprint: str  # of `inputs`
    files: dict[str, str]  # SHA-256 by name
    cuts: tuple[float, ...]
    rows: int
    learned: Learned
    calibration: Calibration
    parity: float
    seed: int
    figures: dict[str, float]
    forced: tuple[str, ...] = ()
    libraries: dict[str, str] = {}


class Origin(NamedTuple):
    """Where a fitted prediction comes from, and what is known of it."""

    prediction: Prediction
    cuts: Sequence[float]
    rows: int
    figures: Mapping[str, float]
    forced: tuple[str, ...]


def predictions_registry(home: Path) -> Registry:
    """Where predictions are kept: apart from the bundles that decide."""
    return Registry(home / "registry" / "predictions")


def keep(home: Path, fitted: Fitted, origin: Origin, inputs: Matrix, now: dt.datetime) -> PredictionManifest:
    """Export, prove parity, store, and use it from now on. Raises BundleRefused where ONNX and LightGBM differ."""
    model = export_onnx(fitted)
    parity = check_parity(model, fitted, inputs, fitted.settings.seed)
    files = {MODEL_FILE: model, BOOSTER_FILE: booster_text(fitted)}
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    at = now.isoformat(timespec="seconds")
    manifest = PredictionManifest(
        model_id=f"{origin.prediction.name}-{now:%Y%m%d-%H%M%S}-{checksums[MODEL_FILE][:6]}", created_at=at,
        prediction=origin.prediction, inputs=fitted.columns, contract_fingerprint=fingerprint(fitted.columns), files=checksums,
        cuts=tuple(origin.cuts), rows=origin.rows, learned=fitted.learned, calibration=fitted.calibration, parity=parity,
        seed=fitted.settings.seed, figures={**origin.figures, "trees": float(fitted.rounds)}, forced=origin.forced,
        libraries=libraries(),
    )  # fmt: skip
    registry = predictions_registry(home)
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in {**files, MANIFEST_FILE: msgspec.json.format(msgspec.json.encode(manifest), indent=1)}.items():
            (Path(scratch) / name).write_bytes(data)
        registry.add_bundle(Path(scratch), manifest.model_id)
    why = f"forced: {'; '.join(origin.forced)}" if origin.forced else f"gain {origin.figures['gain']:+.4f}"
    registry.promote_beside(manifest.model_id, origin.prediction.name, at=at, why=why)
    return manifest


def read_manifest(folder: Path) -> PredictionManifest:
    """Raises BundleRefused."""
    try:
        return msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=PredictionManifest)
    except (OSError, msgspec.DecodeError) as error:
        raise BundleRefused(f"Expected the manifest of a prediction, got: {error} - at `{folder / MANIFEST_FILE}`") from error


def load(folder: Path, prediction: Prediction, inputs: Sequence[Feature]) -> OnnxModel:
    """The model, if it is whole and was trained for this declaration on these inputs. Raises BundleRefused."""
    manifest = read_manifest(folder)
    again = f"run `nextbest predictions train {prediction.name}`"
    if manifest.contract_fingerprint != fingerprint(inputs):
        raise BundleRefused(
            f"Expected the inputs that `{manifest.model_id}` was trained on ({manifest.contract_fingerprint}), found others "
            f"({fingerprint(inputs)}): {again}"
        )
    if manifest.prediction != prediction:
        raise BundleRefused(
            f"Expected what `{manifest.model_id}` predicts, found another declaration of `{prediction.name}`: {again}"
        )
    model = (folder / MODEL_FILE).read_bytes()
    if (found := hashlib.sha256(model).hexdigest()) != manifest.files[MODEL_FILE]:
        raise BundleRefused(f"Expected checksum {manifest.files[MODEL_FILE]}, found {found} - at `{folder / MODEL_FILE}`")
    return OnnxModel(model, len(manifest.inputs))
