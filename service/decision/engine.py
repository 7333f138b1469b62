"""A catalog and its scorers, compiled once into what a decision needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import numpy.typing as npt

from features.contract import Contract
from features.vectors import RowEncoder
from service.catalog.entities import PRIMARY, Ablation, Action, Catalog, Exploration, Placement, Treatment
from service.catalog.policies import Budget
from service.decision.contact_policy import ContactTable
from service.decision.eligibility import RuleTable, TreatmentTable
from service.decision.experiments import PLAIN_ARM, Assigned, Assignment, Canary
from service.decision.limits import Mask
from service.decision.records import Versions
from service.decision.scoring import FlatScorer, Scorer
from service.decision.slates import ConstraintTable
from service.decision.worth import WeightTable, WorthTable


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """What one placement can show. `index` is its number among the placements; `thin` is bool (actions,): little evidence."""

    placement: Placement
    index: int
    treatments: TreatmentTable
    thin: Mask


@dataclass(frozen=True, slots=True, repr=False)
class Engine:
    """Immutable: a new catalog or bundle makes a new engine. Build it with `build_engine`.

    `actions` fixes the order of every array over actions: highest priority first, then the catalog's own order, so that the
    first of several equal utilities is the one that marketers rank higher. `names` are their ids; `levers`, `mandatory` and
    `last_rates`, what the bundle saw of each action in training, are (actions,). `arms` holds the engine of every arm of every
    experiment. `values` are the objectives of which a value is predicted, and no rate; `budgets` those of the catalog and of its
    arms. `stands_in_for` is the bundle of an arm that could not be used, where the champion decides. Engines of the same `kin`
    differ in what their placements make of the rest, and in their versions.
    """

    actions: tuple[Action, ...]
    names: npt.NDArray[np.object_]
    plans: dict[str, PlacementPlan]
    rules: RuleTable
    scorers: Mapping[str, Scorer]
    encoders: Mapping[str, RowEncoder]
    worth: WorthTable
    weights: WeightTable
    levers: npt.NDArray[np.float64]
    mandatory: Mask
    contact: ContactTable
    constraints: ConstraintTable
    positions: dict[str, int]
    versions: Versions
    contract: Contract
    catalog: Catalog
    assignment: Assignment
    contents: Mapping[tuple[str, str], dict[str, object]]
    last_rates: npt.NDArray[np.float64]
    arms: Mapping[Assigned, "Engine"] = field(default_factory=dict)
    values: frozenset[str] = frozenset()
    budgets: tuple[Budget, ...] = ()
    stands_in_for: str | None = None
    kin: object = field(default_factory=object)

    def content(self, action_id: str, treatment_id: str) -> dict[str, object]:
        """The creative of a treatment; empty where there is none."""
        return self.contents.get((action_id, treatment_id), {})

    def of(self, arm: Assigned | None) -> "Engine":
        """The engine that answers the customers of an arm."""
        return self.arms.get(arm, self) if arm is not None else self

    @property
    def scorer(self) -> Scorer:
        """The one whose rates are told as predicted rates."""
        return self.scorers[PRIMARY]


def by_priority(catalog: Catalog) -> tuple[Action, ...]:
    """The order of every array over actions."""
    return tuple(sorted(catalog.actions, key=lambda action: -action.priority))


def build_engine(
    catalog: Catalog,
    contract: Contract,
    scorer: Scorer | Mapping[str, Scorer],
    versions: Versions,
    evidence: Mapping[str, int] | None = None,
    *,
    last_rates: Mapping[str, float] | None = None,
    values: frozenset[str] = frozenset(),
) -> Engine:
    """Compile. A scorer's columns are the actions in the order of `by_priority(catalog)`; `evidence`: rows it learned from.

    `last_rates`: of each action that the bundle knows, and under the empty name of any other. `values`: objectives whose scorer
    predicts a value.
    """
    actions, placements = by_priority(catalog), tuple(catalog.placements.values())
    rules = RuleTable(actions)
    scorers = scorer if isinstance(scorer, Mapping) else {PRIMARY: scorer}
    known = np.array([(evidence or {}).get(a.id, 0) for a in actions])
    return Engine(
        actions=actions,
        names=np.array([a.id for a in actions], np.object_),
        plans={
            p.id: PlacementPlan(p, index, TreatmentTable(p, actions, rules), known < p.explore.floor_below)
            for index, p in enumerate(placements)
        },
        rules=rules,
        scorers=scorers,
        encoders={objective: RowEncoder(one.inputs) for objective, one in scorers.items()},
        worth=WorthTable(actions, contract),
        weights=WeightTable(catalog.weights, actions),
        levers=np.array([a.lever for a in actions], np.float64),
        mandatory=np.array([a.mandatory for a in actions], np.bool_),
        contact=ContactTable(catalog.contact, actions, placements),
        constraints=ConstraintTable(catalog.constraints, actions, placements),
        positions={a.id: i for i, a in enumerate(actions)},
        versions=versions,
        contract=contract,
        catalog=catalog,
        assignment=Assignment(catalog.experiments, catalog.holdout, catalog.not_personalised),
        contents={(a.id, t.id): t.content for a in actions for t in a.treatments},
        last_rates=np.array([(last_rates or {}).get(a.id, (last_rates or {}).get("", 0.0)) for a in actions], np.float64),
        values=values,
        budgets=catalog.budgets,
    )


def without_models(engine: Engine) -> Engine:
    """The same engine without its models: actions rank by their last known rates, and where there are none by priority."""
    flat: Scorer = FlatScorer(engine.last_rates.tolist())
    plans = {
        name: replace(plan, thin=np.full(len(engine.actions), plan.placement.explore.floor_below > 0))
        for name, plan in engine.plans.items()
    }
    rates = engine.versions.bundle or engine.versions.rates
    versions = Versions(engine.versions.catalog, None, engine.versions.contract, rates=rates, predicts=engine.versions.predicts)
    arms = {arm: without_models(own) for arm, own in engine.arms.items()}
    encoders = {PRIMARY: RowEncoder(flat.inputs)}
    return replace(
        engine, plans=plans, scorers={PRIMARY: flat}, encoders=encoders, versions=versions, arms=arms, kin=object(),
        values=engine.values & {PRIMARY},
    )  # fmt: skip


def with_arms(engine: Engine, arms: Mapping[Assigned, Engine]) -> Engine:
    """The engine that sends customers of its experiments to these, and those who are not personalised to one without models."""
    near = {
        arm: replace(own, kin=engine.kin, plans=_with_shared_plans(engine, own)) if _are_kin(engine, own) else own
        for arm, own in arms.items()
    }
    return replace(engine, arms={**near, PLAIN_ARM: without_models(engine)})


def with_canaries(engine: Engine, canaries: Sequence[Canary]) -> Engine:
    """The engine that sends customers to these canaries, whose arms it has."""
    return replace(engine, assignment=engine.assignment.with_canaries(canaries))


def without_canaries(engine: Engine, bundle: str | None = None) -> Engine:
    """The engine after a canary, or each of them, has failed: its customers are the champion's, and their records say so."""
    canaries = [msgspec.structs.replace(c, failed=c.failed or bundle in (None, c.bundle)) for c in engine.assignment.canaries]
    failed = {canary.arm for canary in canaries if canary.failed}
    kept = {arm: own for arm, own in engine.arms.items() if arm not in failed}
    return replace(with_canaries(engine, canaries), arms=kept)


def _with_shared_plans(engine: Engine, own: Engine) -> dict[str, PlacementPlan]:
    """The plans of an arm: where one makes the same of its placement as the other engine's, that one."""
    pairs = ((name, plan, engine.plans[name]) for name, plan in own.plans.items())
    return {name: b if a.placement == b.placement and (a.thin == b.thin).all() else a for name, a, b in pairs}


def _are_kin(one: Engine, other: Engine) -> bool:
    """Whether a batch can be laid out for both together: then rules have the same bits, and models say the same."""
    return _laid_out(one) == _laid_out(other) and one.actions == other.actions


def _laid_out(engine: Engine) -> tuple[object, ...]:
    catalog = engine.catalog
    placements = [(p.id, p.channel, p.accepts) for p in catalog.placements.values()]
    scorers = {objective: id(scorer) for objective, scorer in engine.scorers.items()}
    return placements, scorers, catalog.weights, catalog.contact, catalog.constraints


def ablated(catalog: Catalog, ablation: Ablation | None) -> Catalog:
    """The catalog with a stage of the pipeline taken out, so that the stage's worth can be measured.

    `random`: of the rules only the eligibility layer, and chance; `eligibility_only`: all rules, and chance;
    `predicted_rate_only`: utility is the predicted rate; `no_levers`: utility without levers.
    """
    if ablation is None:
        return catalog
    placements = {name: _ablated_placement(p, ablation) for name, p in catalog.placements.items()}
    actions = catalog.actions
    if ablation in ("random", "eligibility_only"):
        actions = tuple(msgspec.structs.replace(a, mandatory=False) for a in actions)
    if ablation == "random":
        actions = tuple(_only_eligibility(a) for a in actions)
    return msgspec.structs.replace(catalog, placements=placements, actions=actions)


def _ablated_placement(placement: Placement, ablation: Ablation) -> Placement:
    if ablation in ("random", "eligibility_only"):
        return msgspec.structs.replace(placement, explore=Exploration(epsilon=1.0))
    if ablation == "predicted_rate_only":
        return msgspec.structs.replace(placement, factors=("rate",), objectives={PRIMARY: 1.0})
    return msgspec.structs.replace(placement, factors=tuple(f for f in placement.factors if f != "lever"))


def _only_eligibility(action: Action) -> Action:
    treatments = tuple(_plain_treatment(t) for t in action.treatments)
    rules = tuple(rule for rule in action.rules if rule.layer == "eligibility")
    return msgspec.structs.replace(action, rules=rules, treatments=treatments)


def _plain_treatment(treatment: Treatment) -> Treatment:
    rules = tuple(rule for rule in treatment.rules if rule.layer == "eligibility")
    return msgspec.structs.replace(treatment, rules=rules)


def arm_catalogs(catalog: Catalog) -> dict[Assigned, tuple[Catalog, str | None]]:
    """For every arm of every experiment: its catalog, and its bundle where it names one."""
    return {
        Assigned(experiment.id, arm.id): (ablated(arm.catalog or catalog, arm.ablation), arm.bundle)
        for experiment in catalog.experiments
        for arm in experiment.arms
    }


def actions_named(engine: Engine, mask: Mask) -> tuple[str, ...]:
    """The ids of some actions."""
    return tuple(engine.names[mask].tolist())
