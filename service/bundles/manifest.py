"""What a bundle says of itself: the format that training writes and the service reads."""

from typing import Literal

import msgspec

from features.contract import Feature
from service.decision.scoring import Predicts

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"  # input `inputs`: float32 (rows, inputs); output `rate`: float32 (rows, 1), what the bundle predicts
WARMUP_FILE = "warmup.npz"  # `inputs`: float32 (rows, inputs); `rates`: float64 (rows,), as the trainer computed them
BOOSTER_FILE = "model.txt"  # LightGBM's own text format: for explanation and audit, never loaded while serving
AMOUNT_FILE = "amount.txt"  # the same of the second part, where a value is predicted
VALUE_PREFIX = "value:"  # of an objective: the sum of an outcome's values instead of whether there was one
PARITY_LIMIT = 1e-6  # largest accepted difference between any two scorers of one bundle, of values above 1 relative to them


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rows the model has seen: decisions before `until`, or customers whose hash falls below `share`."""

    by: Literal["time", "customer"]
    share: float
    until: float | None = None  # seconds since 1970 UTC
    salt: str = ""


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """rate = 1 / (1 + exp(-(slope * margin + intercept))), folded into the exported trees (Platt 1999).

    Of an amount: exp(slope * margin + intercept).
    """

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


class Backfilled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A feature that was no part of the contract when some of the training rows were logged.

    `rows` of them could not have recorded it. `filled` of these have a value, worked out `by` what, as of their own moments:
    `since` to `until`, seconds since 1970 UTC. `unknown` other rows were made under a contract that nobody knows any more, and
    none of them has a value: they were left as they are.
    """

    rows: int
    filled: int
    by: str
    since: float | None = None
    until: float | None = None
    unknown: int = 0


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bundle's contents and origin. `files` maps each file name to its SHA-256.

    Where it predicts a value, `base_rate` and `action_rates` are mean values of the training rows, and the prediction is the rate
    of values above zero times the amount of one: `calibration` is the rate's, `amount_calibration` the amount's. Where it
    predicts an uplift, the margin itself is that, and `base_rate` and `action_rates` are mean uplifts.
    """

    bundle_id: str
    created_at: str  # RFC 3339
    objective: str
    inputs: tuple[Feature, ...]  # in order: customer and context, `action.*`, `slot`, `match.*`, `pair.*`
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
    predicts: Predicts = "rate"  # bundles of before say nothing
    amount_calibration: Calibration | None = None
    backfilled: dict[str, Backfilled] = {}  # by key of the input

    @property
    def is_worth(self) -> bool:
        """Whether what is predicted is money, or a difference of it: then no value is put on a success."""
        return self.predicts == "value" or (self.predicts == "uplift" and self.objective.startswith(VALUE_PREFIX))
