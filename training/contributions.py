"""Which inputs made a predicted rate what it is: TreeSHAP from the bundle's own LightGBM model, never while serving."""

from collections.abc import Sequence

import lightgbm
import msgspec
import numpy as np

from features.vectors import vectorize
from service.bundles.manifest import BOOSTER_FILE, Manifest
from service.decision.records import DecisionRecord
from service.registry import Registry

BASE = "base"  # what the rate would be on average, before anything is known


class Contribution(msgspec.Struct, frozen=True):
    """What one input adds to the margin, the logit of the rate. `value` is what the model saw of it; None is missing."""

    name: str
    value: float | str | None
    margin: float


def contributions(
    registry: Registry, manifest: Manifest, record: DecisionRecord, action_id: str, attributes: dict[str, float | str]
) -> list[Contribution]:
    """What each input adds to an action's margin, largest first; their sum is the calibrated margin.

    Lundberg et al. 2020, TreeSHAP, as LightGBM computes it; scaled by the slope of the calibration.
    """
    values = {f"customer.{k}": v for k, v in record.customer.items()} | {f"context.{k}": v for k, v in record.context.items()}
    values |= {f"action.{k}": v for k, v in attributes.items()} | {"action.id": action_id}
    row = vectorize(manifest.inputs, {key: [value] for key, value in values.items()}, 1)
    values |= {f.key: _told(row[0, place]) for place, f in enumerate(manifest.inputs) if f.matches is not None}
    booster = lightgbm.Booster(model_file=str(registry.bundle_folder(manifest.bundle_id) / BOOSTER_FILE))
    shares: Sequence[float] = (np.asarray(booster.predict(row, pred_contrib=True))[0] * manifest.calibration.slope).tolist()
    found = [
        Contribution(f.key, values.get(f.key), share) for f, share in zip(manifest.inputs, shares[:-1], strict=True) if share
    ]
    base = Contribution(BASE, None, shares[-1] + manifest.calibration.intercept)
    return [*sorted(found, key=lambda one: -abs(one.margin)), base]


def _told(seen: np.float32) -> float | None:
    return None if np.isnan(seen) else float(seen)
