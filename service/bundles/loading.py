"""A bundle folder, believed only after its checksums, its contract and its predictions hold."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from features.contract import Contract, Feature, fingerprint
from features.vectors import Matrix
from service.bundles.manifest import MANIFEST_FILE, MODEL_FILE, PARITY_LIMIT, WARMUP_FILE, Manifest
from service.bundles.onnx_scorer import OnnxModel, OnnxScorer
from service.catalog.entities import Action
from service.decision.scoring import Rates
from service.errors import BundleRefused

CHECKED_FILES = (MODEL_FILE, WARMUP_FILE)


class Bundle:
    """A loaded model with its manifest. Made by `load_bundle`."""

    def __init__(self, manifest: Manifest, model: OnnxModel) -> None:
        self.manifest = manifest
        self.model = model

    def scorer(self, actions: Sequence[Action]) -> OnnxScorer:
        """A scorer whose columns are these actions, in this order."""
        return OnnxScorer(self.model, self.manifest.inputs, actions)


def load_bundle(folder: Path, contract: Contract) -> Bundle:
    """Load and verify. Raises BundleRefused, saying which promise is broken: checksum, contract or parity."""
    manifest = read_manifest(folder)
    files = {name: _checked_bytes(folder, name, manifest) for name in CHECKED_FILES}
    _check_contract(manifest, contract)
    model = OnnxModel(files[MODEL_FILE], len(manifest.inputs))
    _check_parity(model, files[WARMUP_FILE], len(manifest.inputs))
    return Bundle(manifest, model)


def read_manifest(folder: Path) -> Manifest:
    """What a bundle says of itself. Raises BundleRefused where it says nothing sensible."""
    path = folder / MANIFEST_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise BundleRefused(f"Expected a manifest, found none - at `{folder.name}/{MANIFEST_FILE}`") from error
    except msgspec.DecodeError as error:
        raise BundleRefused(f"Manifest not understood: {error} - in `{folder.name}/{MANIFEST_FILE}`") from error


def _checked_bytes(folder: Path, name: str, manifest: Manifest) -> bytes:
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise BundleRefused(f"Expected file `{name}` in bundle `{manifest.bundle_id}`, found none") from error
    found = hashlib.sha256(data).hexdigest()
    if found != manifest.files.get(name):
        raise BundleRefused(f"Expected checksum {manifest.files.get(name)}, found {found} - at `{manifest.bundle_id}/{name}`")
    return data


def _check_contract(manifest: Manifest, contract: Contract) -> None:
    found = fingerprint(manifest.inputs)
    if found != manifest.contract_fingerprint:
        raise BundleRefused(f"Expected contract fingerprint {manifest.contract_fingerprint}, found {found} - at `inputs`")
    for index, feature in enumerate(manifest.inputs):
        if feature.scope != "action":
            _check_input(feature, contract.find(feature.key), index)


def _check_input(wanted: Feature, served: Feature | None, index: int) -> None:
    """The model must have learned from the very values that the service reads; how long they stay fresh may change."""
    if served is None:
        raise BundleRefused(f"Expected an input that this service knows, found `{wanted.key}` - at `inputs[{index}]`")
    if msgspec.structs.replace(served, max_age=wanted.max_age) != wanted:
        raise BundleRefused(f"Contract fingerprint: expected {describe(served)}, found {describe(wanted)} - at `inputs[{index}]`")


def describe(feature: Feature) -> str:
    """A feature as one line of an error."""
    return msgspec.json.encode(feature).decode()


def _check_parity(model: OnnxModel, warmup: bytes, inputs: int) -> None:
    matrix, expected = _warmup_rows(warmup)
    if matrix.shape != (len(expected), inputs) or not len(expected):
        raise BundleRefused(f"Expected warm-up rows of {inputs} inputs, found shapes {matrix.shape} and {expected.shape}")
    worst = float(np.abs(model.rates(matrix) - expected).max())
    if not worst <= PARITY_LIMIT:  # not, so that a NaN is refused too
        raise BundleRefused(f"Parity: expected predictions within {PARITY_LIMIT:g} of the trainer's, found {worst:g}")


def _warmup_rows(data: bytes) -> tuple[Matrix, Rates]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as rows:
            return rows["inputs"].astype(np.float32), rows["rates"].astype(np.float64)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise BundleRefused(f"Expected warm-up rows `inputs` and `rates`, found something else: {error}") from error
