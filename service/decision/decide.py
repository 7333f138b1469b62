"""`decide(engine, batch)`: the decision for a batch of requests, from nothing but its arguments."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.vectors import vectorize
from service.decision.arbitration import NONE_LEFT, Allowed, Choices, Probabilities, draw, epsilon_greedy, greedy, uniform
from service.decision.eligibility import Eligible
from service.decision.engine import Engine, PlacementPlan
from service.decision.entities import Batch, DecisionRequest, PlacementRequest
from service.decision.records import DecisionRecord, PlacementRecord, ServedItem
from service.decision.scoring import Rates

NOT_SHOWN_HERE = "not_shown_here"  # reason code: no treatment for this placement, or a kind it does not accept
EXCLUDED_BY_REQUEST = "excluded_by_request"
NOT_REQUESTED = "not_requested"  # the request named its candidates, and this is none of them
SHOWN_ELSEWHERE = "shown_elsewhere"  # already in an earlier placement of the same answer


class ChoiceTable(NamedTuple):
    """What the pipeline would choose for the first slot of one placement, for each request: (requests, actions) each."""

    probabilities: Probabilities
    predicted_rates: Rates
    allowed: Allowed


class _Scored(NamedTuple):
    eligible: list[Eligible]
    allowed: Allowed  # (requests, actions): by rules and by the request itself
    rates: Rates
    utilities: npt.NDArray[np.float64]

    def of(self, rows: list[int]) -> "_Scored":
        return _Scored([self.eligible[row] for row in rows], self.allowed[rows], self.rates[rows], self.utilities[rows])


class _Slots(NamedTuple):
    """The choices for one placement, slot by slot: (requests, slots) each, or (slots,) for one request."""

    chosen: Choices
    probabilities: Probabilities
    explored: Allowed

    def row(self, position: int) -> "_Slots":
        return _Slots(*(column[position] for column in self))


class _Case(NamedTuple):
    """One request at one placement. `left` is what rules, request and earlier placements leave: bool, (actions,)."""

    request: DecisionRequest
    asked: PlacementRequest
    eligible: Eligible
    allowed: Allowed
    left: Allowed
    rates: Rates
    utilities: npt.NDArray[np.float64]
    slots: _Slots


def decide(engine: Engine, batch: Batch) -> list[DecisionRecord]:
    """One record per request, in order. Deterministic: the same engine and request give the same record."""
    scored = _score(engine, batch)
    decided: list[list[PlacementRecord]] = [[] for _ in batch]
    left = scored.allowed.copy()  # loses what earlier placements of the same request show
    for turn in range(max((len(r.placements) for r in batch), default=0)):
        for placement, rows in _by_placement(batch, turn).items():
            plan = engine.plans[placement]
            for row, case in zip(rows, _cases(plan, turn, [batch[r] for r in rows], scored.of(rows), left[rows]), strict=True):
                decided[row].append(_placement_record(engine, plan, case))
                shown = case.slots.chosen[case.slots.chosen != NONE_LEFT]
                left[row, shown] = False
    return [_record(engine, request, placements) for request, placements in zip(batch, decided, strict=True)]


def choice_table(engine: Engine, batch: Batch, placement: str) -> ChoiceTable:
    """How likely the whole pipeline is to choose each action for the first slot of a placement: what evaluation weighs by."""
    scored = _score(engine, batch)
    plan = engine.plans[placement]
    allowed = scored.allowed & plan.shows
    return ChoiceTable(epsilon_greedy(scored.utilities, allowed, plan.placement.epsilon), scored.rates, allowed)


def _score(engine: Engine, batch: Batch) -> _Scored:
    eligible = [engine.rules.eligible(r.customer.values, r.context, r.at) for r in batch]
    allowed = np.stack([e.allowed for e in eligible]) if batch else np.zeros((0, len(engine.actions)), np.bool_)
    for row, request in enumerate(batch):
        if request.exclude_actions or request.candidates is not None:
            allowed[row] &= _requested(engine, request)
    rates = engine.scorer.score(request_matrix(engine, batch))
    return _Scored(eligible, allowed, rates, rates * engine.worth)


def request_matrix(engine: Engine, batch: Batch) -> npt.NDArray[np.float32]:
    """What the scorer reads of each request: float32, (requests, inputs)."""
    columns: dict[str, Sequence[object]] = {}
    for feature in engine.scorer.inputs:
        name = feature.name
        if feature.scope == "customer":
            columns[feature.key] = [r.customer.values.get(name) for r in batch]
        else:
            columns[feature.key] = [r.context.get(name) for r in batch]
    return vectorize(engine.scorer.inputs, columns, len(batch))


def _requested(engine: Engine, request: DecisionRequest) -> Allowed:
    mask = np.full(len(engine.actions), request.candidates is None)
    for action in request.candidates or ():
        if action in engine.positions:  # a caller may know tomorrow's actions already
            mask[engine.positions[action]] = True
    for action in request.exclude_actions:
        if action in engine.positions:
            mask[engine.positions[action]] = False
    return mask


def _by_placement(batch: Batch, turn: int) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for row, request in enumerate(batch):
        if turn < len(request.placements):
            groups.setdefault(request.placements[turn].id, []).append(row)
    return groups


def _cases(plan: PlacementPlan, turn: int, batch: Batch, scored: _Scored, left: Allowed) -> Iterator[_Case]:
    asked = [request.placements[turn] for request in batch]
    ids = [request.decision_id for request in batch]
    slots = _choose_slots(plan, asked, ids, scored.utilities, left & plan.shows)
    for row, request in enumerate(batch):
        yield _Case(
            request, asked[row], scored.eligible[row], scored.allowed[row], left[row], scored.rates[row], scored.utilities[row],
            slots.row(row),
        )  # fmt: skip


def _choose_slots(
    plan: PlacementPlan, asked: Sequence[PlacementRequest], ids: Sequence[str], utilities: npt.NDArray[np.float64], left: Allowed
) -> _Slots:
    slots = max(p.slots for p in asked)
    shape = (len(asked), slots)
    result = _Slots(np.full(shape, NONE_LEFT), np.zeros(shape), np.zeros(shape, np.bool_))
    every = np.arange(len(asked))
    for slot in range(slots):
        left[[p.slots <= slot for p in asked]] = False
        probabilities = epsilon_greedy(utilities, left, plan.placement.epsilon)
        chosen = draw(probabilities, np.array([uniform(i, plan.placement.id, slot) for i in ids]))
        result.chosen[:, slot] = chosen
        result.probabilities[:, slot] = probabilities[every, chosen]
        result.explored[:, slot] = chosen != greedy(utilities, left)
        left[every, chosen] = False  # a row without a choice has nothing left to lose
    return result


def _placement_record(engine: Engine, plan: PlacementPlan, case: _Case) -> PlacementRecord:
    candidates = np.flatnonzero(case.left & plan.shows)
    items = tuple(_item(engine, plan, case, slot) for slot, chosen in enumerate(case.slots.chosen) if chosen != NONE_LEFT)
    return PlacementRecord(
        id=plan.placement.id,
        slots=case.asked.slots,
        items=items or (_fallback_item(plan),),
        fallback=not items,
        candidates=tuple(engine.actions[i].id for i in candidates),
        predicted_rates=tuple(case.rates[candidates].tolist()),
        utilities=tuple(case.utilities[candidates].tolist()),
        dropped=_dropped(engine, plan, case),
    )


def _item(engine: Engine, plan: PlacementPlan, case: _Case, slot: int) -> ServedItem:
    chosen = int(case.slots.chosen[slot])
    action, treatment = engine.actions[chosen], plan.treatments[chosen]
    return ServedItem(
        rank=slot + 1,
        action_id=action.id,
        treatment_id=treatment.id if treatment else "",
        kind=action.kind,
        predicted_rate=float(case.rates[chosen]),
        utility=float(case.utilities[chosen]),
        choice_probability=float(case.slots.probabilities[slot]),
        explored=bool(case.slots.explored[slot]),
    )


def _fallback_item(plan: PlacementPlan) -> ServedItem:
    fallback = plan.placement.fallback
    return ServedItem(1, fallback.action_id, fallback.treatment_id, fallback.kind, 0.0, 0.0, 1.0, explored=False)


def _dropped(engine: Engine, plan: PlacementPlan, case: _Case) -> dict[str, tuple[str, ...]]:
    """Every action that could not be chosen, under the first reason that removed it."""
    excluded = np.zeros(len(engine.actions), np.bool_)
    excluded[[engine.positions[a] for a in case.request.exclude_actions if a in engine.positions]] = True
    refused = case.eligible.allowed & ~case.allowed
    dropped = dict(case.eligible.dropped)
    for reason, mask in (
        (EXCLUDED_BY_REQUEST, refused & excluded),
        (NOT_REQUESTED, refused & ~excluded),
        (SHOWN_ELSEWHERE, case.allowed & ~case.left),
        (NOT_SHOWN_HERE, case.left & ~plan.shows),
    ):
        if mask.any():
            dropped[reason] = tuple(engine.actions[i].id for i in np.flatnonzero(mask))
    return dropped


def _record(engine: Engine, request: DecisionRequest, placements: list[PlacementRecord]) -> DecisionRecord:
    return DecisionRecord(
        decision_id=request.decision_id,
        customer_id=request.customer_id,
        at=request.at,
        customer=request.customer.values,
        context=request.context,
        placements=tuple(placements),
        versions=engine.versions,
        degraded=request.degraded,
        exclude_actions=request.exclude_actions,
        requested_candidates=request.candidates,
    )
