"""What one answer may hold as a whole: at most so many items, or such a share, of a kind, a group, an issue."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.catalog.entities import Action, Placement
from service.catalog.policies import Constraint
from service.decision.entities import Batch
from service.decision.limits import Limit, Scope, ScopeMaker

Counts = npt.NDArray[np.int64]

ROUNDING = 1e-9  # 0.3 x 10 slots are 3 items, whatever floating point says


class ConstraintTable:
    """The constraints of a catalog. What must at least be there is what the others may at most be."""

    def __init__(self, constraints: Sequence[Constraint], actions: Sequence[Action], placements: Sequence[Placement]) -> None:
        make = ScopeMaker(actions, placements)
        self._constraints = [(c, _scope(c, make)) for c in constraints]

    def limits(self, batch: Batch) -> list[Limit]:
        """How many items each constraint leaves, for each request."""
        if not self._constraints:
            return []
        slots = np.array([sum(p.slots for p in r.placements) for r in batch], np.int64)
        return [Limit(c.name, scope, most_items(c, slots)[:, None]) for c, scope in self._constraints]


def most_items(constraint: Constraint, slots: Counts) -> Counts:
    """Of so many slots, how many items may be those that the constraint limits: int (requests,)."""
    if constraint.at_most is not None:
        return np.full(len(slots), constraint.at_most)
    if constraint.at_most_share is not None:
        return np.array([math.ceil(constraint.at_most_share * n - ROUNDING) for n in slots.tolist()], np.int64)
    share = constraint.at_least_share or 0.0
    return np.array([n - math.floor(share * n + ROUNDING) for n in slots.tolist()], np.int64)


def _scope(constraint: Constraint, make: ScopeMaker) -> Scope:
    scope = make.scope(constraint.where)
    if constraint.at_least_share is None:
        return scope
    return Scope(~scope.of_action, scope.of_placement, scope.unit, scope.by_placement, scope.units)
