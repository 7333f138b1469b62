"""`nextbest stage report`: what a shadow would have done on live traffic, and whose rates were nearer to what came of it.

The log of shadows is joined with decisions and outcomes by the decision's id. A shadow is judged by the rates that it predicts
for what was served: what would have come of its own choices, nobody saw; `nextbest evaluate` estimates it.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from service.bundles.loading import read_manifest
from service.decision.experiments import Assigned
from service.decision.records import OutcomeRecord, ShadowRecord
from service.errors import NotReady
from service.registry import Registry
from training.examples import Objective
from training.judging import Gain
from training.learning_rules import read_rules
from training.left_out import left_out
from training.live_log import read_log
from training.off_policy import Values, mean_interval
from training.slots import knows_slots

Mask = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]
About = tuple[str, str | None, str | None]  # what an outcome speaks of: a decision, a placement or all, an action or any

LEAST_RATE = 1e-6  # so that no single row decides


class ShadowReport(msgspec.Struct, frozen=True):
    """`agreed`: share of the decisions in which it would have shown the same. `slowest_ms`: 99 of 100 took at most so long.

    `rows`: served items whose outcomes are known. `gain`: by how much its mean log loss on them is below the champion's; None
    without such items, where the champion predicts something else, or they predict no rates. Intervals: 95 %, by customer.
    """

    bundle: str
    decisions: int
    failed: int
    agreed: Gain
    slowest_ms: float
    rows: int
    gain: Gain | None


class _Item(msgspec.Struct, frozen=True):
    rank: int
    action_id: str
    predicted_rate: float


class _Placement(msgspec.Struct, frozen=True):
    id: str
    items: tuple[_Item, ...]
    fallback: bool


class _Versions(msgspec.Struct, frozen=True):
    bundle: str | None


class _Decided(msgspec.Struct, frozen=True):
    decision_id: str
    customer_id: str
    at: float
    placements: tuple[_Placement, ...]
    versions: _Versions
    experiment: Assigned | None = None


class _Row(msgspec.Struct, frozen=True):
    """A served item: who saw it, and the rates of the shadow and of whoever decided."""

    customer_id: str
    own: float
    served: float
    came: bool


def shadow_report(home: Path, bundle: str, now: float) -> ShadowReport:
    """What the log says of a shadow. `now`: seconds since 1970 UTC. Raises NotReady where it was asked about nothing."""
    asked = {one.decision_id: one for one in read_log(home, "shadows", ShadowRecord) if one.bundle == bundle}
    out, decisions = left_out(home), read_log(home, "decisions", _Decided)
    known = (one for one in decisions if one.decision_id in asked and not out.has(one.customer_id, one.at))
    decided = {one.decision_id: one for one in known}
    pairs = [(one, decided[name]) for name, one in asked.items() if name in decided]
    if not pairs:
        raise NotReady(
            f"Expected decisions that `{bundle}` was asked about, found none: `nextbest stage shadow {bundle}`, and serve"
        )
    rows = list(_rows(home, bundle, pairs, now))
    customers = np.array([served.customer_id for _, served in pairs])
    agreed = np.array([one.agreed for one, _ in pairs], np.float64)
    return ShadowReport(
        bundle, len(pairs), sum(bool(one.problem) for one, _ in pairs), _gain(agreed, customers),
        float(np.quantile([one.took_ms for one, _ in pairs], 0.99)), len(rows), _less_loss(rows) if rows else None,
    )  # fmt: skip


def _rows(home: Path, bundle: str, pairs: list[tuple[ShadowRecord, _Decided]], now: float) -> Iterator[_Row]:
    registry = Registry(home / "registry")
    manifest = read_manifest(registry.bundle_folder(bundle))
    if manifest.predicts != "rate":
        return  # values and uplifts have no log loss
    objective = manifest.objective
    window = read_rules(home).window(objective)
    before, after = Objective(objective, window).span
    seen, came = _outcomes(home, objective)
    others = {name: read_manifest(registry.bundle_folder(name)) for name in registry.bundles()}
    alike = {name for name, other in others.items() if (other.objective, other.predicts) == (objective, "rate")}
    of_first = {name for name, other in others.items() if knows_slots(other.inputs)}  # they predict what the first slot brings
    for one, served in pairs:
        if served.versions.bundle not in alike or served.at > now - (window or 0.0):
            continue
        for own, placed in zip(one.placements, served.placements, strict=False):
            for rate, item in zip(own.served_rates, () if placed.fallback else placed.items, strict=False):
                about = _about(served.decision_id, placed.id, item.action_id)
                is_comparable = item.rank == 1 or not {bundle, served.versions.bundle} & of_first
                if rate is not None and is_comparable and not seen.isdisjoint(about):
                    is_success = any(-before <= at - served.at <= after for key in about for at in came.get(key, ()))
                    yield _Row(served.customer_id, rate, item.predicted_rate, is_success)


def _about(decision: str, placement: str, action: str) -> tuple[About, ...]:
    """What an outcome may speak of to be one of this item."""
    return (decision, placement, action), (decision, placement, None), (decision, None, action), (decision, None, None)


def _outcomes(home: Path, objective: str) -> tuple[set[About], dict[About, list[float]]]:
    """What somebody saw; and when successes of it came."""
    seen: set[About] = set()
    came: defaultdict[About, list[float]] = defaultdict(list)
    for outcome in read_log(home, "outcomes", OutcomeRecord):
        key = outcome.decision_id, outcome.placement, outcome.action_id
        seen.add(key)
        if outcome.type == objective:
            came[key].append(outcome.at)
    return seen, came


def _less_loss(rows: list[_Row]) -> Gain:
    came = np.array([row.came for row in rows])
    own, served = (_losses(np.array(rates), came) for rates in ([r.own for r in rows], [r.served for r in rows]))
    return _gain(served - own, np.array([row.customer_id for row in rows]))


def _losses(rates: Values, came: Mask) -> Values:
    likely = np.clip(np.where(came, rates, 1.0 - rates), LEAST_RATE, 1.0)
    losses: Values = -np.log(likely)
    return losses


def _gain(contributions: Values, customers: Names) -> Gain:
    found = mean_interval(contributions, np.unique(customers, return_inverse=True)[1])
    return Gain(found.value, (found.low, found.high))
