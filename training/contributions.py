"""Which inputs made a prediction what it is: TreeSHAP from the bundle's own LightGBM model, never while serving."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import lightgbm
import msgspec
import numpy as np

from features.vectors import Matrix, vectorize
from service.bundles.manifest import AMOUNT_FILE, BOOSTER_FILE, Calibration, Manifest
from service.decision.records import DecisionRecord
from service.registry import Registry

Part = Literal["rate", "amount", "uplift"]
WORKED_OUT = ("slot", "match", "pair")  # inputs that neither the record nor the catalog has
BASE = "base"  # what the rate would be on average, before anything is known


class Contribution(msgspec.Struct, frozen=True):
    """What one input adds to the margin, the logit of the rate. `value` is what the model saw of it; None is missing.

    A value has a second part, `amount`, whose margin is the logarithm of how large one is where there is one.
    Of an `uplift` the margin is that itself.
    """

    name: str
    value: float | str | None
    margin: float
    part: Part = "rate"


def contributions(
    registry: Registry, manifest: Manifest, record: DecisionRecord, action_id: str, attributes: dict[str, float | str]
) -> list[Contribution]:
    """What each input adds to an action's margin, largest first; their sum is the calibrated margin.

    Those of an amount follow those of the rate, likewise.
    Lundberg et al. 2020, TreeSHAP, as LightGBM computes it; scaled by the slope of the calibration.
    """
    values = {f"customer.{k}": v for k, v in record.customer.items()} | {f"context.{k}": v for k, v in record.context.items()}
    values |= {f"action.{k}": v for k, v in attributes.items()} | {"action.id": action_id}
    row = vectorize(manifest.inputs, {key: [value] for key, value in values.items()}, 1)
    values |= {f.key: _told(row[0, place]) for place, f in enumerate(manifest.inputs) if f.scope in WORKED_OUT}
    folder, found = registry.bundle_folder(manifest.bundle_id), list[Contribution]()
    for part, file, calibration in _parts(manifest):
        *shares, base = _shares(folder / file, row, calibration)
        added = [
            Contribution(f.key, values.get(f.key), share, part) for f, share in zip(manifest.inputs, shares, strict=True) if share
        ]
        found += sorted(added, key=lambda one: -abs(one.margin))
        found.append(Contribution(BASE, None, base + calibration.intercept, part))
    return found


def _parts(manifest: Manifest) -> Iterator[tuple[Part, str, Calibration]]:
    yield "uplift" if manifest.predicts == "uplift" else "rate", BOOSTER_FILE, manifest.calibration
    if manifest.amount_calibration is not None:
        yield "amount", AMOUNT_FILE, manifest.amount_calibration


def _shares(model: Path, row: Matrix, calibration: Calibration) -> Sequence[float]:
    booster = lightgbm.Booster(model_file=str(model))
    shares: Sequence[float] = (np.asarray(booster.predict(row, pred_contrib=True))[0] * calibration.slope).tolist()
    return shares


def _told(seen: np.float32) -> float | None:
    return None if np.isnan(seen) else float(seen)
