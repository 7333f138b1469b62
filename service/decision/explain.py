"""Why this and not that: for every action of the catalog, the stage that dropped it and why, or its factors and rank."""

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np

from service.catalog.entities import LAYERS, PRIMARY, Action, CompiledRule, Scalar
from service.decision.again import request_of
from service.decision.board import EXCLUDED_BY_REQUEST, NOT_REQUESTED, SHOWN_ELSEWHERE, Board
from service.decision.conditions import failing_parts
from service.decision.counterfactual import smallest_change
from service.decision.eligibility import ACTIVE_DATES, NOT_SHOWN_HERE
from service.decision.engine import Engine
from service.decision.experiments import HOLDOUT
from service.decision.records import DecisionRecord, PlacementRecord
from service.decision.scoring import Predicts
from service.decision.situations import Change

Stage = Literal[
    "dates", "eligibility", "applicability", "suitability", "request", "placement", "contact_policy", "slate", "arbitration",
    "shown", "holdout",
]  # fmt: skip

OF_THE_REQUEST = (EXCLUDED_BY_REQUEST, NOT_REQUESTED)
OF_THE_PLACEMENT = (SHOWN_ELSEWHERE, NOT_SHOWN_HERE)


class Factors(msgspec.Struct, frozen=True):
    """What a utility is the product of. `weights` names the context weights that apply.

    Where the bundle predicts a value, `rate` is that expected value, and `value`, which it is not multiplied by, is 1. Of an
    uplift, `rate` is what the action changes against `nothing`.
    """

    rate: float
    context: float
    value: float
    lever: float
    utility: float
    weights: dict[str, float]
    predicts: Predicts = "rate"


class ActionExplained(msgspec.Struct, frozen=True, omit_defaults=True):
    """One action at one placement: how far it came, and what stopped it or what it was worth."""

    action_id: str
    stage: Stage
    reason: str = ""
    details: tuple[str, ...] = ()
    rank: int | None = None  # by utility among the candidates, 1 is the best
    factors: Factors | None = None
    changes: tuple[Change, ...] | None = None  # the smallest that would have shown it; None where nobody asked, or none is known


class PlacementExplained(msgspec.Struct, frozen=True):
    """Every action of the catalog at one placement, candidates by rank first."""

    id: str
    dropped_by_stage: dict[str, int]
    actions: tuple[ActionExplained, ...]


class Explanation(msgspec.Struct, frozen=True):
    """A decision, and why it was made."""

    decision: DecisionRecord
    placements: tuple[PlacementExplained, ...]


def explain(engine: Engine, record: DecisionRecord, *, changes_for: frozenset[str] | None = frozenset()) -> Explanation:
    """Explain a logged decision with the engine that made it.

    `changes_for`: the actions whose smallest change is looked for; None: all that were not shown.
    """
    arm = engine.of(record.experiment)
    if record.experiment is not None and record.experiment.id == HOLDOUT:
        held = tuple(ActionExplained(a.id, "holdout", HOLDOUT) for a in arm.actions)
        return Explanation(record, tuple(PlacementExplained(p.id, {HOLDOUT: len(held)}, held) for p in record.placements))
    explainer = _Explainer(arm, record, changes_for)
    return Explanation(record, tuple(explainer.placement(p) for p in record.placements))


class _Explainer:
    """Explains the placements of one decision."""

    def __init__(self, engine: Engine, record: DecisionRecord, changes_for: frozenset[str] | None) -> None:
        self._engine = engine
        self._request = request_of(record)
        self._board = Board(engine, [self._request])
        self._changes_for = changes_for
        self._stages = _stages(engine)

    def placement(self, record: PlacementRecord) -> PlacementExplained:
        served = {item.action_id for item in record.items} if not record.fallback else set()
        order = np.argsort([-u for u in record.utilities], kind="stable").tolist()
        ranks = {record.candidates[position]: rank for rank, position in enumerate(order, 1)}
        reasons = {action: reason for reason, ids in record.dropped.items() for action in ids}
        explained = [
            self._action(record, a, ranks.get(a.id), reasons.get(a.id, ""), a.id in served) for a in self._engine.actions
        ]
        explained.sort(key=lambda one: one.rank if one.rank is not None else len(explained) + 1)
        stages = [one.stage for one in explained if one.rank is None]
        return PlacementExplained(record.id, {stage: stages.count(stage) for stage in dict.fromkeys(stages)}, tuple(explained))

    def _action(self, record: PlacementRecord, action: Action, rank: int | None, reason: str, shown: bool) -> ActionExplained:  # noqa: FBT001  # a plain fact of the row
        changes = None
        if not shown and (self._changes_for is None or action.id in self._changes_for):
            found = smallest_change(self._engine, self._request, record.id, action.id)
            changes = None if found is None else tuple(found)
        if rank is not None:
            stage: Stage = "shown" if shown else "arbitration"
            return ActionExplained(action.id, stage, rank=rank, factors=self._factors(record.id, action), changes=changes)
        return ActionExplained(action.id, self._stage(reason), reason, self._details(record.id, action, reason), changes=changes)

    def _factors(self, placement: str, action: Action) -> Factors:
        position, plan = self._engine.positions[action.id], self._engine.plans[placement]
        values, context = self._engine.worth.values([self._request]), self._engine.weights.factors([self._request])
        predicts = self._engine.versions.predicts
        return Factors(
            rate=float(self._board.rates[0, position]), context=float(context[0, position]),
            value=1.0 if PRIMARY in self._engine.values else float(values[0, position]), lever=action.lever,
            utility=float(self._board.utilities(plan)[0, position]),
            weights=self._engine.weights.holding(self._request.customer.values, self._request.context, action.id),
            predicts=predicts,
        )  # fmt: skip

    def _stage(self, reason: str) -> Stage:
        if reason == ACTIVE_DATES:
            return "dates"
        if reason in OF_THE_REQUEST:
            return "request"
        if reason in OF_THE_PLACEMENT:
            return "placement"
        return self._stages.get(reason.partition(" (")[0], "contact_policy")

    def _details(self, placement: str, action: Action, reason: str) -> tuple[str, ...]:
        """For a rule: the comparisons that failed, with the values that were found."""
        name = reason.partition(" (")[0]
        rules = [*action.rules, *(r for t in action.treatments if placement in t.placements for r in t.rules)]
        failed = [rule for rule in rules if rule.name == name and not self._passes(rule)]
        parts = (part for rule in failed for part in failing_parts(rule, self._request.customer.values, self._request.context))
        return tuple(dict.fromkeys(parts))

    def _passes(self, rule: CompiledRule) -> bool:
        customer: Mapping[str, Scalar] = self._request.customer.values
        return rule.passes(customer, self._request.context)


def _stages(engine: Engine) -> dict[str, Stage]:
    """Which stage a reason of the catalog belongs to."""
    stages: dict[str, Stage] = {c.name: "slate" for c in engine.catalog.constraints}
    for layer in reversed(LAYERS):  # a name that is used in several layers stands for the first
        rules = (r for a in engine.actions for r in (*a.rules, *(r for t in a.treatments for r in t.rules)))
        stages |= {rule.name: rule.layer for rule in rules if rule.layer == layer}
    return stages
