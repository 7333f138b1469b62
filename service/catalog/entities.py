"""A catalog after validation: plain frozen records, rules compiled, every reference resolved."""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from features.contract import Feature

Scalar = float | str | bool | None
Kind = Literal["offer", "content", "service", "nothing"]
Rule = Callable[[Mapping[str, Scalar], Mapping[str, Scalar]], bool]  # (customer, context) -> may be offered


class CompiledRule(msgspec.Struct, frozen=True):
    """One rule for one action, with the action's own attributes folded in.

    `key` is equal for two actions whose rules compile to the same function (same name, same expression after folding): the
    engine evaluates each distinct key once per request. `needs` are the keys (`customer.age`) the rule reads.
    """

    name: str  # the reason code
    expression: str  # as written
    key: str
    passes: Rule
    needs: tuple[str, ...]


class Treatment(msgspec.Struct, frozen=True):
    """How an action is shown in some placements: the creative."""

    id: str
    placements: tuple[str, ...]
    content: dict[str, object]


class Action(msgspec.Struct, frozen=True):
    """Something we could do next. `lever` is the product of the levers of its issue, its group and its own.

    `rules` holds those of the issue first, then the group's, then its own. `active_from` and `active_until` are seconds since
    1970 UTC, the first included, the second not.
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


class Fallback(msgspec.Struct, frozen=True):
    """What a placement shows where nothing may be offered: an action without rules, model or exploration."""

    action_id: str
    treatment_id: str
    kind: Kind
    content: dict[str, object]


class Placement(msgspec.Struct, frozen=True):
    """Where something is shown: at most `slots` items of the accepted kinds, in one channel."""

    id: str
    channel: str
    slots: int
    accepts: tuple[Kind, ...]
    epsilon: float  # share of choices made uniformly among all that may be offered
    fallback: Fallback


class Catalog(msgspec.Struct, frozen=True):
    """A validated catalog. `attributes` declares the action attributes that are model inputs (origin `action`)."""

    actions: tuple[Action, ...]
    placements: dict[str, Placement]
    attributes: tuple[Feature, ...]
    fingerprint: str  # two documents with the same content have the same one
