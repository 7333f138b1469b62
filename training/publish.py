"""A fitted model as a bundle in the registry. It does not serve until it is promoted."""

import datetime as dt
import hashlib
import io
import platform
import re
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from features.contract import Feature, fingerprint
from features.vectors import Matrix
from service.bundles.manifest import (
    AMOUNT_FILE,
    BOOSTER_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    WARMUP_FILE,
    Backfilled,
    InputSummary,
    Manifest,
    Split,
)
from service.decision.scoring import Predicts
from service.registry import Registry
from training.cards import LEFT_OUT
from training.choice_weights import Weighing
from training.drift import parting
from training.export import check_parity, export_onnx
from training.fit import Fitted
from training.slots import slot_figures

WARMUP_ROWS = 64
WEIGHED_TO = "choice_weights.most"  # among a bundle's settings where rows were weighed
TENTHS = np.arange(1, 10) / 10.0
UNSAFE = re.compile(r"[^A-Za-z0-9_]+")  # in a file's name; an outcome may be called anything
LIBRARIES = ("lightgbm", "onnx", "onnxruntime", "numpy")


class Provenance(msgspec.Struct, frozen=True):
    """What a model was trained for and on."""

    objective: str
    rows: int
    base_rate: float
    action_rates: dict[str, float]
    action_rows: dict[str, int]
    split: Split
    dataset_fingerprint: str
    learned_until: float | None = None  # seconds since 1970 UTC: the newest row
    backfilled: dict[str, Backfilled] = {}
    left_out: int = 0  # rows of the log, of customers from whom nobody learns
    weighing: Weighing | None = None  # how rows were weighed, where they did not count alike


def publish_bundle(registry: Registry, fitted: Fitted, provenance: Provenance, inputs: Matrix, created: dt.datetime) -> str:
    """Export, prove parity, store. Returns the bundle's id. Raises BundleRefused where ONNX and LightGBM differ.

    `inputs`: rows as the model meets them, float32 (rows, columns).
    """
    model = export_onnx(fitted)
    parity = check_parity(model, fitted, inputs, fitted.settings.seed)
    files = {MODEL_FILE: model, WARMUP_FILE: _warmup(fitted, inputs), BOOSTER_FILE: booster_text(fitted)}
    if fitted.amount is not None:
        files[AMOUNT_FILE] = booster_text(fitted.amount)
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    subject = UNSAFE.sub("-", provenance.objective)
    bundle_id = f"{subject}-{created:%Y%m%d-%H%M%S}-{checksums[MODEL_FILE][:6]}"
    weighed = provenance.weighing
    manifest = Manifest(
        bundle_id=bundle_id, created_at=created.isoformat(timespec="seconds"), objective=provenance.objective,
        inputs=fitted.columns, contract_fingerprint=fingerprint(fitted.columns), files=checksums, rows=provenance.rows,
        base_rate=provenance.base_rate, action_rates=provenance.action_rates, action_rows=provenance.action_rows,
        split=provenance.split,
        calibration=fitted.calibration, dataset_fingerprint=provenance.dataset_fingerprint, parity=parity,
        seed=fitted.settings.seed, libraries=libraries(),
        metrics={
            **fitted.metrics, "trees": float(sum(part.rounds for part in fitted.parts)),
            **({} if weighed is None else weighed.figures()), **slot_figures(fitted, inputs),
            **({LEFT_OUT: float(provenance.left_out)} if provenance.left_out else {}),
        },
        learned_until=provenance.learned_until, learned_inputs=summaries(fitted.columns, inputs),
        settings={**fitted.settings.figures(), **({} if weighed is None else {WEIGHED_TO: weighed.most})},
        predicts=_predicts(fitted), backfilled=provenance.backfilled,
        amount_calibration=fitted.amount.calibration if fitted.amount else None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        registry.add_bundle(folder, bundle_id)
    return bundle_id


def _predicts(fitted: Fitted) -> Predicts:
    if fitted.learned == "uplift":
        return "uplift"
    return "value" if fitted.amount is not None else "rate"


def summaries(columns: Sequence[Feature], inputs: Matrix) -> dict[str, InputSummary]:
    """What rows look like, column by column: float32 (rows, columns)."""
    return {feature.key: _summary(feature, inputs[:, column]) for column, feature in enumerate(columns)}


def _summary(feature: Feature, values: Matrix) -> InputSummary:
    missing, there = round(float(np.isnan(values).mean()), 6), values[np.isfinite(values)]
    if feature.type == "category" or not len(there):
        return InputSummary(missing)
    tenths = np.quantile(there, TENTHS)
    edges = parting(tenths.astype(np.float32))
    return InputSummary(
        missing, float(tenths[0]), float(tenths[-1]), tuple(edges.tolist()), tuple(shares(values, edges).tolist())
    )


def shares(values: Matrix, edges: Matrix) -> npt.NDArray[np.float64]:
    """Of the values that are there, the share up to each edge, and beyond the last: (edges + 1,)."""
    there = values[np.isfinite(values)]
    counts = np.bincount(np.searchsorted(edges, there), minlength=len(edges) + 1)
    return np.asarray(counts / max(1, len(there)), np.float64)


def _warmup(fitted: Fitted, inputs: Matrix) -> bytes:
    """Rows for the first calls of a new scorer, with the rates that LightGBM gives them: the service checks them."""
    rows = inputs[np.linspace(0, len(inputs) - 1, WARMUP_ROWS).astype(int)]
    data = io.BytesIO()
    np.savez(data, inputs=rows, rates=fitted.rates(rows))
    return data.getvalue()


def booster_text(fitted: Fitted) -> bytes:
    text: str = fitted.booster.model_to_string(num_iteration=fitted.rounds)
    return text.encode()


def libraries() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
