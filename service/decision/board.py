"""A batch of requests laid out for deciding: what is allowed, what it is worth, and what is left while slates are filled."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from service.catalog.entities import PRIMARY
from service.decision.arbitration import NONE_LEFT, Choices, Utilities
from service.decision.eligibility import Eligible, Shown
from service.decision.engine import Engine, PlacementPlan
from service.decision.entities import Batch, DecisionRequest
from service.decision.limits import Mask, Rows
from service.decision.scoring import Rates

EXCLUDED_BY_REQUEST = "excluded_by_request"
NOT_REQUESTED = "not_requested"  # the request named its candidates, and this is none of them
SHOWN_ELSEWHERE = "shown_elsewhere"  # already in an earlier placement of the same answer


class Board:
    """Everything about a batch that does not depend on the placement, and what earlier choices have taken from it.

    Arrays are (requests, actions). `ruled` is what rules leave, `allowed` what rules and the request itself leave, `left` that
    without what is shown.
    """

    def __init__(self, engine: Engine, batch: Batch, rates: Rates | None = None) -> None:
        """`rates`: those that `score` predicts, where somebody knows them already."""
        self.engine = engine
        self.batch = batch
        self.eligible = [engine.rules.eligible(r.customer.values, r.context, r.at) for r in batch]
        self.ruled = np.array([e.allowed for e in self.eligible], np.bool_).reshape(len(batch), len(engine.actions))
        self.allowed = self._allowed()
        self.left = self.allowed.copy()
        self.rates = score(engine, batch) if rates is None else rates
        self._policing = engine.contact.police(batch)
        self._constraints = engine.constraints.limits(batch)
        self._utilities: dict[object, Utilities] = {}

    def _allowed(self) -> Mask:
        asking = [row for row, r in enumerate(self.batch) if r.exclude_actions or r.candidates is not None]
        if not asking:
            return self.ruled
        allowed = self.ruled.copy()
        for row in asking:
            allowed[row] &= _requested(self.engine, self.batch[row])
        return allowed

    def utilities(self, plan: PlacementPlan) -> Utilities:
        """Predicted rate x context weight x value x lever, as far as the placement takes them into account.

        A predicted value takes the place of rate x value: nothing is put on it twice. What is beyond the largest
        float is that one, and what is no number is 0: JSON has neither, and a record has to be read again.
        """
        placement = plan.placement
        key = (placement.factors, tuple(placement.objectives.items()))
        if key not in self._utilities:
            self._utilities[key] = self._work_out(placement.factors, placement.objectives)
        return self._utilities[key]

    def _work_out(self, factors: Sequence[str], objectives: dict[str, float]) -> Utilities:
        if self.engine.worth.is_bounded and not self.engine.values:
            return self._product(factors, objectives)
        with np.errstate(over="ignore", invalid="ignore"):
            utilities = self._product(factors, objectives)
            # one sum tells of all: 1.3 us for 100 actions, and the errstate 2.3. It may overflow itself, which costs time alone
            return utilities if math.isfinite(np.add.reduce(utilities, axis=None)) else np.nan_to_num(utilities)

    def _product(self, factors: Sequence[str], objectives: dict[str, float]) -> Utilities:
        """As the factors are; not every product is finite."""
        utilities, brought = self._success(objectives) if "rate" in factors else (np.ones(self.rates.shape), None)
        if "value" in factors:
            utilities = utilities * self.engine.worth.values(self.batch)
        if brought is not None:
            utilities = utilities + brought
        if "lever" in factors:
            utilities = utilities * self.engine.levers
        if "context" in factors:
            utilities = utilities * self.engine.weights.factors(self.batch)
        return utilities

    def _success(self, objectives: dict[str, float]) -> tuple[Rates, Rates | None]:
        """The weighted sum of the objectives' rates, and that of predicted values, None without any.

        One that no model predicts adds nothing.
        """
        values = self.engine.values
        if objectives == {PRIMARY: 1.0} and not values:
            return self.rates, None
        total, brought = np.zeros(self.rates.shape), np.zeros(self.rates.shape)
        for name, weight in objectives.items():
            into = brought if name in values else total
            if name == PRIMARY:
                into += weight * self.rates
            elif name in self.engine.scorers:
                into += weight * score(self.engine, self.batch, name)
        return total, brought if values & objectives.keys() else None

    def shown(self, plan: PlacementPlan, row: int) -> Shown:
        """What the placement can show to one customer."""
        return plan.treatments.shown(self.eligible[row].failed)

    def blocked(self, rows: Rows, plan: PlacementPlan) -> Iterator[tuple[str, Mask]]:
        """By reason: what contact policy and constraints may forbid at a placement, bool (rows, actions)."""
        yield from self._policing.blocked(rows, plan.index)
        for limit in self._constraints:
            if limit.is_reached:
                yield limit.name, limit.blocks(rows, plan.index)

    def take(self, rows: Rows, chosen: Choices, plan: PlacementPlan) -> None:
        """These actions, one per row or NONE_LEFT, are shown."""
        there = chosen != NONE_LEFT
        rows, chosen = rows[there], chosen[there]
        self.left[rows, chosen] = False
        self._policing.take(rows, chosen, plan.index)
        for limit in self._constraints:
            limit.take(rows, chosen, plan.index)

    @property
    def shrinks(self) -> bool:
        """Whether a choice can forbid others than itself."""
        return bool(self._policing.limits or self._policing.excluded or self._constraints)


def score(engine: Engine, batch: Batch, objective: str = PRIMARY) -> Rates:
    """Predicted rates: float64 (requests, actions)."""
    matrix = engine.encoders[objective].encode([r.customer.values for r in batch], [r.context for r in batch])
    return engine.scorers[objective].score(matrix)


def _requested(engine: Engine, request: DecisionRequest) -> Mask:
    mask = np.full(len(engine.actions), request.candidates is None)
    for action in request.candidates or ():
        if action in engine.positions:  # a caller may know tomorrow's actions already
            mask[engine.positions[action]] = True
    return mask & ~excluded(engine, request)


def excluded(engine: Engine, request: DecisionRequest) -> Mask:
    """The actions that the request does not want: bool (actions,)."""
    mask = np.zeros(len(engine.actions), np.bool_)
    mask[[engine.positions[a] for a in request.exclude_actions if a in engine.positions]] = True
    return mask


def first_reasons(eligible: Eligible, request: DecisionRequest, engine: Engine, allowed: Mask) -> list[tuple[str, Mask]]:
    """What the request itself left out: bool (actions,) by reason."""
    if not np.count_nonzero(eligible.allowed & ~allowed):
        return []
    return [(EXCLUDED_BY_REQUEST, excluded(engine, request)), (NOT_REQUESTED, ~allowed)]
