"""A catalog and a scorer, compiled once into what a decision needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.contract import Contract
from service.catalog.entities import Action, Catalog, Placement, Treatment
from service.decision.arbitration import Allowed
from service.decision.eligibility import EligibilityTable
from service.decision.records import Versions
from service.decision.scoring import Scorer


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """What one placement can show: `shows` is bool (actions,); `treatments` holds the first fitting one of each action."""

    placement: Placement
    shows: Allowed
    treatments: tuple[Treatment | None, ...]


@dataclass(frozen=True, slots=True)
class Engine:
    """Immutable: a new catalog or bundle makes a new engine. Build it with `build_engine`.

    `actions` fixes the order of every array over actions: highest priority first, then the catalog's own order, so that the
    first of several equal utilities is the one that marketers rank higher. `worth` is value x lever: float64, (actions,).
    """

    actions: tuple[Action, ...]
    plans: dict[str, PlacementPlan]
    rules: EligibilityTable
    scorer: Scorer
    worth: npt.NDArray[np.float64]
    positions: dict[str, int]
    versions: Versions
    contract: Contract


def by_priority(catalog: Catalog) -> tuple[Action, ...]:
    """The order of every array over actions."""
    return tuple(sorted(catalog.actions, key=lambda action: -action.priority))


def build_engine(catalog: Catalog, contract: Contract, scorer: Scorer, versions: Versions) -> Engine:
    """Compile. The scorer's columns are the actions in the order of `by_priority(catalog)`."""
    actions = by_priority(catalog)
    return Engine(
        actions=actions,
        plans={p.id: _plan(p, actions) for p in catalog.placements.values()},
        rules=EligibilityTable(actions),
        scorer=scorer,
        worth=np.array([a.value * a.lever for a in actions], np.float64),
        positions={a.id: i for i, a in enumerate(actions)},
        versions=versions,
        contract=contract,
    )


def _plan(placement: Placement, actions: Sequence[Action]) -> PlacementPlan:
    treatments = tuple(_treatment(placement, action) for action in actions)
    return PlacementPlan(placement, np.array([t is not None for t in treatments], np.bool_), treatments)


def _treatment(placement: Placement, action: Action) -> Treatment | None:
    if action.kind not in placement.accepts:
        return None
    return next((t for t in action.treatments if placement.id in t.placements), None)
