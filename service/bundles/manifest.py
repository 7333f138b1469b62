"""What a bundle says of itself: the format that training writes and the service reads."""

from typing import Literal

import msgspec

from features.contract import Feature

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"  # input `inputs`: float32 (rows, inputs); output `rate`: float32 (rows, 1), the calibrated rate
WARMUP_FILE = "warmup.npz"  # `inputs`: float32 (rows, inputs); `rates`: float64 (rows,), as the trainer computed them
BOOSTER_FILE = "model.txt"  # LightGBM's own text format: for explanation and audit, never loaded while serving
PARITY_LIMIT = 1e-6  # largest accepted difference of a predicted rate between any two scorers of one bundle


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rows the model has seen: decisions before `until`, or customers whose hash falls below `share`."""

    by: Literal["time", "customer"]
    share: float
    until: float | None = None  # seconds since 1970 UTC
    salt: str = ""


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """rate = 1 / (1 + exp(-(slope * margin + intercept))), folded into the exported trees (Platt 1999)."""

    slope: float
    intercept: float


class InputSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one column of the training rows looked like, as the model met it. `missing`: share of the rows.

    Of a number: a tenth of the values that were there lie below `low`, a tenth above `high`; of them `shares` lie up to each of
    the `edges`, ascending, and beyond the last. Empty for a category.
    """

    missing: float
    low: float = 0.0
    high: float = 0.0
    edges: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bundle's contents and origin. `files` maps each file name to its SHA-256."""

    bundle_id: str
    created_at: str  # RFC 3339
    objective: str
    inputs: tuple[Feature, ...]  # order of the columns: customer and context first, `action.*`, `match.*`, `pair.*`
    contract_fingerprint: str  # of `inputs`
    files: dict[str, str]
    rows: int
    base_rate: float
    action_rates: dict[str, float]  # observed success rate per action in the training rows
    split: Split
    calibration: Calibration
    dataset_fingerprint: str
    parity: float  # largest difference between ONNX Runtime and LightGBM seen at export
    seed: int
    format: int = 1
    action_rows: dict[str, int] = {}  # how many training rows each action has: its evidence
    metrics: dict[str, float] = {}
    libraries: dict[str, str] = {}
    learned_until: float | None = None  # seconds since 1970 UTC: the newest training row
    learned_inputs: dict[str, InputSummary] = {}  # by key of the input
    settings: dict[str, float] = {}  # of the training, by name
