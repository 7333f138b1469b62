"""Reads the contact policy and the constraints of a document."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar, cast, get_args

from service.catalog.checking import Place, unique
from service.catalog.policies import (
    RESERVATION_S,
    UNITS,
    Budget,
    Cap,
    Constraint,
    ContactPolicy,
    CoolDown,
    Exclusion,
    QuietHours,
    Selector,
    Unit,
)
from service.catalog.rulebook import RULE_NAME
from service.errors import nearest

PERIODS = ("total", "day")
MOST_CONTACTS = 1_000_000
MOST_TIMES = 100
POLICY_KEYS = ("caps", "cool_downs", "quiet_hours", "exclusions", "budgets", "reservation")
SELECTOR_KEYS = ("actions", "groups", "issues", "kinds", "channels", "placements")
CAP_KEYS = ("name", "at_most", "per", "window", "count", "where")
COOL_DOWN_KEYS = ("name", "after", "times", "within", "silent", "per", "where")
QUIET_KEYS = ("name", "from", "until", "where")
EXCLUSION_KEYS = ("name", "actions", "after", "window")
BUDGET_KEYS = ("name", "action", "at_most", "period", "count")
CONSTRAINT_KEYS = ("name", "where", "at_most", "at_most_share", "at_least_share")
LIMITS = ("at_most", "at_most_share", "at_least_share")

Entry = TypeVar("Entry")


class Known(NamedTuple):
    """What a selector may name, by its key."""

    actions: Sequence[str]
    groups: Sequence[str]
    issues: Sequence[str]
    kinds: Sequence[str]
    channels: Sequence[str]
    placements: Sequence[str]


def read_policy(place: Place | None, known: Known) -> ContactPolicy:
    """The section `contact`."""
    fields = place.fields(POLICY_KEYS) if place else {}

    def every(key: str, read: Callable[[Place, Known], Entry]) -> tuple[Entry, ...]:
        return tuple(read(item, known) for item in named(fields.get(key)))

    return ContactPolicy(
        caps=every("caps", _cap), cool_downs=every("cool_downs", _cool_down), quiet_hours=every("quiet_hours", _quiet_hours),
        exclusions=every("exclusions", _exclusion), budgets=every("budgets", _budget),
        reservation=fields["reservation"].duration() if "reservation" in fields else RESERVATION_S,
    )  # fmt: skip


def read_constraints(place: Place | None, known: Known) -> tuple[Constraint, ...]:
    """The section `constraints`."""
    return tuple(_constraint(item, known) for item in named(place))


def named(place: Place | None) -> list[Place]:
    """The mappings of a list; a name that comes twice is a mistake."""
    items = [item for item in (place.items() if place else []) if item.is_mapping()]
    return [item for _, item in unique([(str(item.value.get("name", "")), item) for item in items], "name")]


def _name(fields: Mapping[str, Place]) -> str:
    if "name" not in fields:
        return ""
    name = fields["name"].text()
    if name and RULE_NAME.match(name) is None:
        fields["name"].refuse("a name of a-z, 0-9 and `_`: it is the reason code")
    return name


def _cap(place: Place, known: Known) -> Cap:
    fields = place.fields(CAP_KEYS, ("name", "at_most", "per", "window"))
    return Cap(
        name=_name(fields), at_most=_whole(fields, "at_most", 0), per=_unit(fields), window=_duration(fields, "window"),
        count=fields["count"].text() if "count" in fields else "impressions", where=read_selector(fields.get("where"), known),
    )  # fmt: skip


def _cool_down(place: Place, known: Known) -> CoolDown:
    fields = place.fields(COOL_DOWN_KEYS, ("name", "after", "silent"))
    times = fields["times"].whole(1, MOST_TIMES) if "times" in fields else 1
    if times > 1 and "within" not in fields:
        place.refuse("`within`, since it takes several times", "none")
    return CoolDown(
        name=_name(fields), after=fields["after"].text() if "after" in fields else "", times=times,
        within=_duration(fields, "within"), silent=_duration(fields, "silent"),
        per=_unit(fields) if "per" in fields else "action", where=read_selector(fields.get("where"), known),
    )  # fmt: skip


def _quiet_hours(place: Place, known: Known) -> QuietHours:
    fields = place.fields(QUIET_KEYS, ("name", "from", "until"))
    start, end = (fields[key].hour() if key in fields else 0.0 for key in ("from", "until"))
    if "from" in fields and "until" in fields and start == end:
        place.refuse("two different hours")
    return QuietHours(_name(fields), start, end, read_selector(fields.get("where"), known))


def _exclusion(place: Place, known: Known) -> Exclusion:
    fields = place.fields(EXCLUSION_KEYS, ("name", "actions", "window"))
    actions = _among(fields["actions"], known.actions, "action") if "actions" in fields else ()
    if "actions" in fields and len(set(actions)) < 2:  # noqa: PLR2004  # one alone excludes nothing
        fields["actions"].refuse("at least two different actions")
    after = fields["after"].text() if "after" in fields else "impressions"
    return Exclusion(_name(fields), actions, after, _duration(fields, "window"))


def _budget(place: Place, known: Known) -> Budget:
    fields = place.fields(BUDGET_KEYS, ("name", "action", "at_most"))
    actions = _among(fields["action"], known.actions, "action") if "action" in fields else ()
    if "action" in fields and not isinstance(fields["action"].value, str):
        fields["action"].refuse_new("one action")
    period = fields["period"].choice(PERIODS) if "period" in fields else PERIODS[0]
    count = fields["count"].choice(("decisions", "impressions")) if "count" in fields else "impressions"
    return Budget(_name(fields), next(iter(actions), ""), _whole(fields, "at_most", 0), period == "day", count)


def _constraint(place: Place, known: Known) -> Constraint:
    fields = place.fields(CONSTRAINT_KEYS, ("name", "where"))
    given = [key for key in LIMITS if key in fields]
    if len(given) != 1:
        place.refuse(f"one of {', '.join(f'`{k}`' for k in LIMITS)}", ", ".join(given) or "none")
    return Constraint(
        name=_name(fields), where=read_selector(fields.get("where"), known),
        at_most=_whole(fields, "at_most", 0) if "at_most" in fields else None,
        at_most_share=fields["at_most_share"].number(0.0, 1.0) if "at_most_share" in fields else None,
        at_least_share=fields["at_least_share"].number(0.0, 1.0) if "at_least_share" in fields else None,
    )  # fmt: skip


def _whole(fields: Mapping[str, Place], key: str, low: int) -> int:
    return fields[key].whole(low, MOST_CONTACTS) if key in fields else low


def _duration(fields: Mapping[str, Place], key: str) -> float:
    return fields[key].duration() if key in fields else math.inf


def _unit(fields: Mapping[str, Place]) -> Unit:
    return cast("Unit", fields["per"].choice(UNITS) if "per" in fields else get_args(Unit)[0])


def read_selector(place: Place | None, known: Known, keys: Sequence[str] = SELECTOR_KEYS) -> Selector:
    """Which contacts, or choices, are meant."""
    fields = place.fields(keys) if place else {}
    return Selector(**{key: _among(item, getattr(known, key), key[:-1]) for key, item in fields.items()})


def _among(place: Place, known: Sequence[str], what: str) -> tuple[str, ...]:
    """One name, or several, each of them known."""
    names = place.texts()
    for name in names:
        if name and name not in known:
            place.refuse(f"a known {what}{nearest(name, known)}", name)
    return names
