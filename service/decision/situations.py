"""A request and the catalog that answers it, and what becomes of the two when one thing about them changes."""

from typing import Literal, NamedTuple

import msgspec

from features.request_time import request_time_values
from service.catalog.entities import Catalog, Exploration, Scalar, Treatment
from service.decision.engine import Engine, build_engine
from service.decision.entities import CustomerState, DecisionRequest

Kind = Literal["value", "lever", "moment", "request", "treatment", "policy", "mandatory", "repeats", "slots", "history"]


class Change(msgspec.Struct, frozen=True):
    """One thing that would have to be different. `name` and `to` say what; `text` says it to people."""

    kind: Kind
    name: str
    to: float | str | None
    text: str


class Situation(NamedTuple):
    """A request, and the catalog that answers it without chance."""

    engine: Engine
    request: DecisionRequest


def without_chance(engine: Engine) -> Engine:
    """The same engine, exploring nothing and without experiments."""
    placements = {n: msgspec.structs.replace(p, explore=Exploration()) for n, p in engine.catalog.placements.items()}
    return _rebuilt(engine, msgspec.structs.replace(engine.catalog, placements=placements))


def _rebuilt(engine: Engine, catalog: Catalog) -> Engine:
    plain = msgspec.structs.replace(catalog, experiments=(), holdout=None, not_personalised=None)
    return build_engine(plain, engine.contract, engine.scorers, engine.versions, values=engine.values)


def applied(situation: Situation, placement: str, action: str, change: Change) -> Situation:
    """The situation with one change made, for an action at a placement."""
    engine, request = situation
    asked = _changed_request(request, placement, action, change)
    catalog = _changed_catalog(engine.catalog, placement, action, change)
    return Situation(engine if catalog is engine.catalog else _rebuilt(engine, catalog), asked)


def _changed_request(request: DecisionRequest, placement: str, action: str, change: Change) -> DecisionRequest:
    match change.kind:
        case "value":
            return _with_value(request, change.name, change.to)
        case "moment":
            return _at(request, float(change.to or request.at))
        case "request":
            return _asking(request, change.name, action)
        case "history":
            return msgspec.structs.replace(request, customer=msgspec.structs.replace(request.customer, contacts=b""))
        case "slots":
            slots = int(change.to or 1)
            asked = tuple(msgspec.structs.replace(p, slots=slots) if p.id == placement else p for p in request.placements)
            return msgspec.structs.replace(request, placements=asked)
    return msgspec.structs.replace(request, exhausted=tuple(n for n in request.exhausted if n != change.name))


def _changed_catalog(catalog: Catalog, placement: str, action: str, change: Change) -> Catalog:
    match change.kind:
        case "policy":
            return _without_policy(catalog, change.name)
        case "repeats":
            return _with_placement(catalog, placement, repeats=True)
        case "lever" | "treatment" | "mandatory":
            return _with_action(catalog, placement, action, change)
    return catalog


def _with_value(request: DecisionRequest, name: str, to: Scalar) -> DecisionRequest:
    scope, _, feature = name.partition(".")
    if scope == "context":
        return msgspec.structs.replace(request, context={**request.context, feature: to})
    known = request.customer
    state = CustomerState({**known.values, feature: to}, known.stale, known.contacts)
    return msgspec.structs.replace(request, customer=state)


def _at(request: DecisionRequest, moment: float) -> DecisionRequest:
    """Another moment, with the hours and the weekday that go with it, where the context has them.

    The local hour moves by the time that passes: which zone it was told in is not known here.
    """
    context = dict(request.context)
    then = request_time_values(moment)
    context |= {name: then[name] for name in ("hour", "weekday") if isinstance(context.get(name), int | float)}
    local = context.get("local_hour")
    if isinstance(local, int | float):
        context["local_hour"] = (local + (moment - request.at) / 3600.0) % 24.0
    return msgspec.structs.replace(request, at=moment, context=context)


def _asking(request: DecisionRequest, name: str, action: str) -> DecisionRequest:
    if name == "candidates":
        return msgspec.structs.replace(request, candidates=(*(request.candidates or ()), action))
    wanted = tuple(a for a in request.exclude_actions if a != action)
    return msgspec.structs.replace(request, exclude_actions=wanted)


def _without_policy(catalog: Catalog, name: str) -> Catalog:
    contact = catalog.contact
    kept = msgspec.structs.replace(
        contact,
        caps=tuple(rule for rule in contact.caps if rule.name != name),
        cool_downs=tuple(rule for rule in contact.cool_downs if rule.name != name),
        quiet_hours=tuple(rule for rule in contact.quiet_hours if rule.name != name),
        exclusions=tuple(rule for rule in contact.exclusions if rule.name != name),
        budgets=tuple(rule for rule in contact.budgets if rule.name != name),
    )
    constraints = tuple(c for c in catalog.constraints if c.name != name)
    return msgspec.structs.replace(catalog, contact=kept, constraints=constraints)


def _with_placement(catalog: Catalog, placement: str, **changes: object) -> Catalog:
    changed = msgspec.structs.replace(catalog.placements[placement], **changes)
    return msgspec.structs.replace(catalog, placements={**catalog.placements, placement: changed})


def _with_action(catalog: Catalog, placement: str, action: str, change: Change) -> Catalog:
    """A lever, a treatment, or the mandatory mark."""
    old = next(a for a in catalog.actions if a.id == action)
    if change.kind == "lever":
        new = msgspec.structs.replace(old, lever=old.lever * float(change.to or 1.0))
    elif change.kind == "treatment":
        new = msgspec.structs.replace(old, treatments=(*old.treatments, Treatment("added", (placement,), {})))
        here = catalog.placements[placement]
        catalog = _with_placement(catalog, placement, accepts=tuple(dict.fromkeys((*here.accepts, old.kind))))
    else:
        new = msgspec.structs.replace(old, mandatory=True)
    return msgspec.structs.replace(catalog, actions=tuple(new if a.id == action else a for a in catalog.actions))
