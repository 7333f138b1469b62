"""A bundle folder, believed only after its checksums, its contract and its predictions hold."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from features.contract import MOST_SLOTS, Contract, Feature, fingerprint
from features.vectors import Matrix
from service.bundles.compiled_scorer import too_many_worlds, unfit
from service.bundles.manifest import MANIFEST_FILE, MODEL_FILE, PARITY_LIMIT, WARMUP_FILE, Manifest
from service.bundles.matching import Matching, unmatched
from service.bundles.onnx_scorer import OnnxModel, OnnxScorer, action_matrix
from service.bundles.onnx_trees import Ensemble, Product, read_trees
from service.bundles.product_scorer import compiled
from service.bundles.uplift_scorer import UpliftScorer
from service.catalog.entities import Action
from service.decision.scoring import Rates, Scorer
from service.errors import BundleRefused
from service.logs import logger
from service.registry import UNREADABLE

CHECKED_FILES = (MODEL_FILE, WARMUP_FILE)
COMPILED_FROM = 1000  # actions x trees: 4 x 300, 16 x 50 and 100 x 10 take ONNX Runtime and compiled trees about the same time
PROOF_ROWS = 20_000  # requests x actions, of which two scorers must agree: a tenth of a second
KEPT_SCORERS = 8  # catalogs and arms with the same actions share one


class Bundle:
    """A loaded model with its manifest. Made by `load_bundle`."""

    def __init__(self, manifest: Manifest, model: OnnxModel, trees: Ensemble | Product | str, warmup: Matrix) -> None:
        """`trees`: those of the model, or why they cannot be compiled; `warmup`: float32, (rows, inputs)."""
        self.manifest = manifest
        self.model = model
        self.trees = trees
        self.warmup = warmup
        self._made: dict[tuple[int, bytes, tuple[str, ...]], Scorer] = {}

    def scorer(self, actions: Sequence[Action]) -> Scorer:
        """A scorer whose columns are these actions, in this order: the fastest that equals the reference."""
        attributes = action_matrix([f for f in self.manifest.inputs if f.is_of_catalog], actions)
        kinds = tuple(action.kind for action in actions) if self.manifest.predicts == "uplift" else ()
        key = len(actions), attributes.tobytes() + Matching(self.manifest.inputs, actions).key, kinds
        if key not in self._made:
            self._made = dict(islice(self._made.items(), max(0, len(self._made) + 1 - KEPT_SCORERS), None))
            scorer = self._scorer(actions)
            self._made[key] = UpliftScorer(scorer, actions) if self.manifest.predicts == "uplift" else scorer
        return self._made[key]

    def at_slot(self, slot: int) -> "Bundle":
        """The same model, asked what actions bring in a slot that may be another than the first."""
        place = float(min(slot, MOST_SLOTS))
        inputs = tuple(msgspec.structs.replace(f, default=place) if f.origin == "slot" else f for f in self.manifest.inputs)
        return Bundle(msgspec.structs.replace(self.manifest, inputs=inputs), self.model, self.trees, self.warmup)

    def _scorer(self, actions: Sequence[Action]) -> Scorer:
        reference = OnnxScorer(self.model, self.manifest.inputs, actions)
        if isinstance(self.trees, str):
            return self._slow(reference, self.trees)
        if len(self.trees.trees) * len(actions) < COMPILED_FROM:
            return reference
        if why := too_many_worlds(self.trees, self.manifest.inputs, len(actions)):
            return self._slow(reference, why)
        fast = compiled(self.trees, self.manifest.inputs, actions)
        problem = _difference(fast, reference, self._requests(len(actions)))
        return self._slow(reference, problem) if problem else fast

    def _slow(self, reference: OnnxScorer, why: str) -> OnnxScorer:
        logger.warning("bundle `%s` is scored row by row: %s", self.manifest.bundle_id, why)
        return reference

    def _requests(self, actions: int) -> Matrix:
        """What the warm-up rows say of requests, as far as there is time to look."""
        columns = [column for column, feature in enumerate(self.manifest.inputs) if feature.is_of_request]
        return self.warmup[: max(1, PROOF_ROWS // actions), columns]


def _difference(scorer: Scorer, reference: Scorer, requests: Matrix) -> str | None:
    """How far the rates are from the reference's, where it is further than any two scorers of one bundle may be."""
    rates, expected = scorer.score(requests), reference.score(requests)
    worst = float((np.abs(rates - expected) / np.maximum(1.0, np.abs(expected))).max())
    return None if worst <= PARITY_LIMIT else f"Expected rates within {PARITY_LIMIT:g} of ONNX Runtime's, found {worst:g}"


def load_bundle(folder: Path, contract: Contract) -> Bundle:
    """Load and verify. Raises BundleRefused, saying which promise is broken: checksum, contract or parity."""
    manifest = read_manifest(folder)
    files = {name: _checked_bytes(folder, name, manifest) for name in CHECKED_FILES}
    _check_contract(manifest, contract)
    model = OnnxModel(files[MODEL_FILE], len(manifest.inputs))
    warmup, expected = _warmup_rows(files[WARMUP_FILE])
    _check_parity(model, warmup, expected, len(manifest.inputs))
    return Bundle(manifest, model, _trees(files[MODEL_FILE], len(manifest.inputs)), warmup)


def read_manifest(folder: Path) -> Manifest:
    """What a bundle says of itself. Raises BundleRefused where it says nothing sensible."""
    path = folder / MANIFEST_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise BundleRefused(f"Expected a manifest, found none - at `{folder.name}/{MANIFEST_FILE}`") from error
    except UNREADABLE as error:
        raise BundleRefused(f"Manifest not understood: {error} - in `{folder.name}/{MANIFEST_FILE}`") from error


def _checked_bytes(folder: Path, name: str, manifest: Manifest) -> bytes:
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise BundleRefused(f"Expected file `{name}` in bundle `{manifest.bundle_id}`, found none") from error
    except OSError as error:
        raise BundleRefused(f"Expected file `{name}` in bundle `{manifest.bundle_id}` that can be read: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != manifest.files.get(name):
        raise BundleRefused(f"Expected checksum {manifest.files.get(name)}, found {found} - at `{manifest.bundle_id}/{name}`")
    return data


def _check_contract(manifest: Manifest, contract: Contract) -> None:
    found = fingerprint(manifest.inputs)
    if found != manifest.contract_fingerprint:
        raise BundleRefused(f"Expected contract fingerprint {manifest.contract_fingerprint}, found {found} - at `inputs`")
    if problem := unmatched(manifest.inputs):
        raise BundleRefused(problem)
    for index, feature in enumerate(manifest.inputs):
        if feature.is_of_request:
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


def _trees(model: bytes, inputs: int) -> Ensemble | Product | str:
    """Those of the model, or why they cannot be compiled."""
    trees = read_trees(model)
    if trees is None:
        return "Expected one ensemble of trees with at most one function after it, or a value of two, found another model"
    return unfit(trees, inputs) or trees


def _check_parity(model: OnnxModel, matrix: Matrix, expected: Rates, inputs: int) -> None:
    if matrix.shape != (len(expected), inputs) or not len(expected):
        raise BundleRefused(f"Expected warm-up rows of {inputs} inputs, found shapes {matrix.shape} and {expected.shape}")
    try:
        rates = model.rates(matrix)
    except Exception as error:  # ONNX Runtime raises several unrelated classes where a model that it loaded cannot be run
        raise BundleRefused(f"Expected rates of the warm-up rows from the model, got: {error}") from error
    if rates.shape != expected.shape:
        raise BundleRefused(f"Parity: expected rates of shape {expected.shape}, found {rates.shape}")
    worst = float((np.abs(rates - expected) / np.maximum(1.0, np.abs(expected))).max())
    if not worst <= PARITY_LIMIT:  # not, so that a NaN is refused too
        raise BundleRefused(f"Parity: expected predictions within {PARITY_LIMIT:g} of the trainer's, found {worst:g}")


def _warmup_rows(data: bytes) -> tuple[Matrix, Rates]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as rows:
            return rows["inputs"].astype(np.float32), rows["rates"].astype(np.float64)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise BundleRefused(f"Expected warm-up rows `inputs` and `rates`, found something else: {error}") from error
