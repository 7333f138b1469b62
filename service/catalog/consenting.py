"""Reads the section `consent` of a document: which purposes there are, and what is not done without consent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from service.catalog.checking import Place
from service.catalog.contacting import Known, read_selector
from service.catalog.entities import Action, CompiledRule, Placement, Treatment
from service.catalog.policies import Purpose, Selector
from service.catalog.rulebook import CONSENT_FEATURE, RULE_NAME

PURPOSE_KEYS = ("unless_said", "needed_for")
PROFILE = "profile"  # needed for knowing the customer at all
GIVEN, DENIED = "given", "denied"


def read_purposes(place: Place | None, known: Known, features: Mapping[str, object]) -> tuple[Purpose, ...]:
    """The purposes of a catalog; `features`: names that are taken."""
    entries = place.entries() if place else {}
    purposes = tuple(_purpose(name, item, known, features) for name, item in entries.items() if _is_named(name, item))
    profile = [p.name for p in purposes if p.profile]
    if place is not None and len(profile) > 1:
        place.refuse(f"one purpose at most that is needed for `{PROFILE}`", ", ".join(profile))
    return purposes


def _is_named(name: str, place: Place) -> bool:
    if RULE_NAME.match(name) is None:
        place.refuse("a purpose named with a-z, 0-9 and `_`", name)
        return False
    return True


def _purpose(name: str, place: Place, known: Known, features: Mapping[str, object]) -> Purpose:
    if f"{CONSENT_FEATURE}{name}" in features:
        place.refuse("a purpose that no feature is named after", f"{CONSENT_FEATURE}{name}")
    fields = place.fields(PURPOSE_KEYS, ("needed_for",))
    given = "unless_said" in fields and fields["unless_said"].choice((DENIED, GIVEN)) == GIVEN
    needed = fields.get("needed_for")
    if needed is None or needed.value == PROFILE:
        return Purpose(name, given, profile=needed is not None)
    wanted = needed.at_least_one() if isinstance(needed.value, list) else [needed]
    return Purpose(name, given, needed_for=tuple(_selector(item, known) for item in wanted))


def _selector(place: Place, known: Known) -> Selector:
    if not isinstance(place.value, Mapping):
        place.refuse(f"`{PROFILE}`, or what it is needed for, such as `kinds: [offer]`")
        return Selector()
    return read_selector(place, known)


def profile_purposes(document: Mapping[str, Any]) -> frozenset[str]:
    """Of a catalog's document that was published: the purposes without which a customer is not known."""
    purposes = document.get("consent") or {}
    return frozenset(name for name, told in purposes.items() if told.get("needed_for") == PROFILE)


def selects_action(where: Selector, action: Action) -> bool:
    """Whether an action is among those selected, wherever it is shown."""
    pairs = (
        (where.actions, action.id), (where.groups, action.group), (where.issues, action.issue), (where.kinds, action.kind)
    )  # fmt: skip
    return all(not wanted or found in wanted for wanted, found in pairs)


def with_consents(
    action: Action, purposes: Sequence[Purpose], placements: Mapping[str, Placement], rules: Mapping[str, CompiledRule]
) -> Action:
    """An action with the rules that consent adds, before its own; `rules` by purpose.

    A treatment whose placements need different consents comes in parts, under the same id.
    """
    anywhere = [p.name for p in purposes if any(not _says_where(w) and selects_action(w, action) for w in p.needed_for)]
    treatments = tuple(part for t in action.treatments for part in _parts(t, action, purposes, placements, rules))
    return msgspec.structs.replace(action, rules=(*(rules[p] for p in anywhere), *action.rules), treatments=treatments)


def _parts(
    treatment: Treatment,
    action: Action,
    purposes: Sequence[Purpose],
    placements: Mapping[str, Placement],
    rules: Mapping[str, CompiledRule],
) -> Iterator[Treatment]:
    parts: dict[tuple[str, ...], list[str]] = {}
    for name in treatment.placements:
        needed = _needed_at(placements[name], action, purposes) if name in placements else ()
        parts.setdefault(needed, []).append(name)
    for needed, names in parts.items():
        own = (*(rules[p] for p in needed), *treatment.rules)
        yield msgspec.structs.replace(treatment, placements=tuple(names), rules=own)


def _needed_at(placement: Placement, action: Action, purposes: Sequence[Purpose]) -> tuple[str, ...]:
    """The purposes without which an action is not shown at a placement, beside those it needs anywhere."""
    return tuple(
        p.name for p in purposes
        if any(_says_where(w) and _selects_placement(w, placement) and selects_action(w, action) for w in p.needed_for)
    )  # fmt: skip


def _says_where(where: Selector) -> bool:
    return bool(where.channels or where.placements)


def _selects_placement(where: Selector, placement: Placement) -> bool:
    return (not where.channels or placement.channel in where.channels) and (
        not where.placements or placement.id in where.placements
    )


def fallbacks_in_need(
    purposes: Sequence[Purpose], placements: Mapping[str, Placement], actions: Mapping[str, Action]
) -> Iterator[tuple[str, str]]:
    """Placements whose fallback would be shown without the consent it needs, and the purpose."""
    for placement in placements.values():
        fallback = placement.fallback
        if fallback.kind == "nothing":
            continue
        action = actions.get(fallback.action_id)
        for purpose in purposes:
            if any(_selects_fallback(w, placement, action) for w in purpose.needed_for):
                yield placement.id, purpose.name


def _selects_fallback(where: Selector, placement: Placement, action: Action | None) -> bool:
    """A fallback that is no action of the catalog has an id and a kind, and no group or issue."""
    fallback = placement.fallback
    pairs = (
        (where.actions, fallback.action_id), (where.kinds, fallback.kind),
        (where.groups, action.group if action else ""), (where.issues, action.issue if action else ""),
    )  # fmt: skip
    return _selects_placement(where, placement) and all(not wanted or found in wanted for wanted, found in pairs)
