"""A catalog after validation: plain frozen records, rules compiled, every reference resolved."""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from features.contract import Feature
from service.catalog.policies import Budget, Constraint, ContactPolicy, Purpose

Scalar = float | str | bool | None
Kind = Literal["offer", "content", "service", "nothing"]
Layer = Literal["eligibility", "applicability", "suitability"]
Factor = Literal["rate", "context", "value", "lever"]
Ablation = Literal["random", "eligibility_only", "predicted_rate_only", "no_levers"]

Rule = Callable[[Mapping[str, Scalar], Mapping[str, Scalar]], bool]  # (customer, context) -> may be offered
Columns = Mapping[str, npt.NDArray[np.float64]]
Formula = Callable[[Columns, Columns, Columns], npt.NDArray[np.float64]]  # (customer, context, action) -> values

LAYERS: tuple[Layer, ...] = ("eligibility", "applicability", "suitability")
FACTORS: tuple[Factor, ...] = ("rate", "context", "value", "lever")
PRIMARY = "primary"  # the objective of the champion, whatever it is called


class Condition(msgspec.Struct, frozen=True):
    """A rule as data: its checked syntax tree (`ast.expr`), and what stands for names that are not the customer's.

    `values` holds the action's own values, `defaults` what stands in for missing ones, by qualified name; `categories` what
    a category can be.
    """

    tree: object
    values: Mapping[str, float | str]
    defaults: Mapping[str, float | str]
    categories: Mapping[str, tuple[str, ...]]


class CompiledRule(msgspec.Struct, frozen=True):
    """One rule for one action, with the action's own attributes folded in.

    `key` is equal for two actions whose rules compile to the same function (same name, same expression after folding): the
    engine evaluates each distinct key once per request. `needs` are the keys (`customer.age`) the rule reads and for which no
    default stands in. `body` is what `passes` was compiled from, empty where it is a function that somebody wrote.
    """

    name: str  # the reason code
    expression: str  # as written
    key: str
    passes: Rule
    needs: tuple[str, ...]
    layer: Layer = "eligibility"
    condition: Condition | None = None  # the same as a tree, for explanations
    body: str = ""


class CompiledValue(msgspec.Struct, frozen=True):
    """What a success is worth, as a formula over columns: customer and context (requests, 1), action (actions,).

    `otherwise` is the value where something in the formula is missing. Equal sources are evaluated together.
    """

    source: str
    formula: Formula
    names: tuple[str, ...]  # all that it reads, such as `customer.return_rate`
    needs: tuple[str, ...]  # those of them for which no default stands in
    otherwise: float


class Treatment(msgspec.Struct, frozen=True):
    """How an action is shown in some placements: the creative. The first whose rules pass is used."""

    id: str
    placements: tuple[str, ...]
    content: dict[str, object]
    rules: tuple[CompiledRule, ...] = ()


class Action(msgspec.Struct, frozen=True):
    """Something we could do next. `lever` is the product of the levers of its issue, its group and its own.

    `rules` holds, layer by layer, those of the issue first, then the group's, then its own. `active_from` and `active_until`
    are seconds since 1970 UTC, the first included, the second not. `value` is what `worth` says where there is no formula.
    """

    id: str
    kind: Kind
    issue: str
    group: str
    value: float
    lever: float
    priority: float  # last known worth: ranks actions where no model can
    active_from: float | None
    active_until: float | None
    attributes: dict[str, float | str]
    rules: tuple[CompiledRule, ...]
    treatments: tuple[Treatment, ...]
    formula: CompiledValue | None = None
    mandatory: bool = False  # comes first wherever it may be offered


class Fallback(msgspec.Struct, frozen=True):
    """What a placement shows where nothing may be offered: an action without rules, model or exploration."""

    action_id: str
    treatment_id: str
    kind: Kind
    content: dict[str, object]


class Exploration(msgspec.Struct, frozen=True):
    """How a placement chooses among what may be offered.

    `temperature` above 0: softmax of utility / temperature; else the best. Then `epsilon` of the choices are uniform over all,
    and `floor_share` of them uniform over the actions the model learned from fewer than `floor_below` rows.
    """

    epsilon: float = 0.0
    temperature: float = 0.0
    floor_share: float = 0.0
    floor_below: int = 0


class Placement(msgspec.Struct, frozen=True):
    """Where something is shown: at most `slots` items of the accepted kinds, in one channel."""

    id: str
    channel: str
    slots: int
    accepts: tuple[Kind, ...]
    fallback: Fallback
    explore: Exploration = Exploration()
    factors: tuple[Factor, ...] = FACTORS
    objectives: dict[str, float] = msgspec.field(default_factory=lambda: {PRIMARY: 1.0})
    repeats: bool = False  # may show again what an earlier placement of the same answer shows


class Weight(msgspec.Struct, frozen=True):
    """A context weight: multiplies the utility of some actions where its condition holds."""

    name: str
    rule: CompiledRule
    factor: float
    actions: frozenset[str]


class Arm(msgspec.Struct, frozen=True):
    """One arm of an experiment: `share` of its customers; its own catalog and bundle, or the common ones where None."""

    id: str
    share: float
    catalog: "Catalog | None" = None
    bundle: str | None = None
    ablation: Ablation | None = None


class Experiment(msgspec.Struct, frozen=True):
    """So many customers by `share` of all, from `start` on the line of hashes, parted into arms."""

    id: str
    salt: str
    start: float
    share: float
    arms: tuple[Arm, ...]


class Holdout(msgspec.Struct, frozen=True):
    """Customers who get every placement's fallback, always: what all the rest is measured against."""

    share: float
    salt: str


class Catalog(msgspec.Struct, frozen=True):
    """A validated catalog. `attributes` declares what of actions are model inputs (origins `action`, `match`, `pair`)."""

    actions: tuple[Action, ...]
    placements: dict[str, Placement]
    attributes: tuple[Feature, ...]
    fingerprint: str  # two documents with the same content have the same one
    weights: tuple[Weight, ...] = ()
    contact: ContactPolicy = ContactPolicy()
    constraints: tuple[Constraint, ...] = ()
    purposes: tuple[Purpose, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    holdout: Holdout | None = None
    not_personalised: Holdout | None = None
    time_zone: str = "UTC"

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Those of the contact policy and of the arms', each once. Of one name there may be several, on one counter."""
        arms = (arm.catalog for experiment in self.experiments for arm in experiment.arms if arm.catalog is not None)
        return tuple(dict.fromkeys(budget for catalog in (self, *arms) for budget in catalog.contact.budgets))
