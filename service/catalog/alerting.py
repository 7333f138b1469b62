"""`alerts.yaml`: which events make us look, on what condition somebody has to know, how urgent it is, and who acts.

    alerts:
      - name: unhappy_detractor
        on: [survey_answered]
        when: event.score <= 6 and customer.open_complaint == 1
        severity: high
        route: service_desk
        once_per: 7d

A condition is an expression as in a catalog, over `event.*` (the declared properties, `channel`, `type`; a truth is 1 or 0) and
`customer.*` (the features). A comparison is false where a value in it is missing. Where `on` is empty, no event raises it, and
`nextbest alerts sweep` does.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

import msgspec

from features.contract import Contract
from features.event_types import EventTypes
from service.catalog.checking import Place, Problems, unique
from service.catalog.compiling import Values, compile_condition
from service.catalog.documents import read_document
from service.catalog.entities import Scalar
from service.catalog.expressions import ExpressionError, Name, parse_rule
from service.catalog.rulebook import RULE_NAME
from service.errors import AlertsInvalid, CatalogInvalid, nearest

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[str, ...] = get_args(Severity)

DOCUMENT = "alerts.yaml"
EVENT, CUSTOMER = "event.", "customer."
TYPE, CHANNEL = "event.type", "event.channel"


class AlertRule(msgspec.Struct, frozen=True):
    """One alert. `holds` takes the event's values and the customer's; `reads` are the qualified names in the condition.

    `live`: whether features that events feed are among them.
    `once_per`: seconds within which a customer raises it once; None: every time.
    """

    name: str
    on: tuple[str, ...]
    when: str
    severity: str
    route: str
    once_per: float | None
    reads: tuple[str, ...]
    live: bool
    holds: Callable[[Mapping[str, Scalar], Mapping[str, Scalar]], bool]

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the customer's features that it reads."""
        return tuple(name.removeprefix(CUSTOMER) for name in self.reads if name.startswith(CUSTOMER))


def home_alerts(home: Path, contract: Contract, types: EventTypes) -> tuple[AlertRule, ...]:
    """The alerts of a home; none without a document. Raises AlertsInvalid."""
    path = home / DOCUMENT
    return read_alerts(path, contract, types) if path.exists() else ()


def read_alerts(path: Path, contract: Contract, types: EventTypes) -> tuple[AlertRule, ...]:
    """The alerts of a file. Raises AlertsInvalid, also where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AlertsInvalid([f"{path.name}: Expected a readable document, got: {error}"]) from error
    return parse_alerts(text, contract, types, path.name)


def parse_alerts(text: str, contract: Contract, types: EventTypes, where: str = DOCUMENT) -> tuple[AlertRule, ...]:
    """The alerts that a document declares. Raises AlertsInvalid with every mistake, each with its line."""
    try:
        document = read_document(text, where)
    except CatalogInvalid as error:
        raise AlertsInvalid(error.problems) from error
    problems = Problems(where, document.lines)
    fields = Place(document.values, "", problems).fields(("alerts",), ("alerts",))
    items = fields["alerts"].items() if "alerts" in fields else []
    rules = [_alert(place, contract, types) for _, place in unique([(_name(item), item) for item in items], "name")]
    if problems.found:
        raise AlertsInvalid(problems.found)
    return tuple(rule for rule in rules if rule is not None)


def _alert(place: Place, contract: Contract, types: EventTypes) -> AlertRule | None:
    fields = place.fields(
        ("name", "on", "when", "severity", "route", "once_per"), required := ("name", "on", "when", "severity", "route")
    )
    if not fields.keys() >= set(required):
        return None
    on = tuple(_type(item, types) for item in fields["on"].items())
    severity = fields["severity"].choice(SEVERITIES)
    once_per = fields["once_per"].duration() if "once_per" in fields else None
    name, route = _word(fields["name"]), _word(fields["route"])
    if not on and once_per is None:
        place.refuse("`once_per` for an alert that `nextbest alerts sweep` raises, since `on` is empty", "none")
    when = fields["when"]
    if not types.types.keys() >= set(on):
        return None  # what the condition may name follows from its types
    try:
        names = _names(on, contract, types)
        tree = parse_rule(str(when.value), names)
    except ExpressionError as error:
        when.refuse_with(f"{error} of the expression")
        return None
    defaults = {feature.key: feature.default for feature in contract.features if feature.default is not None}
    values = Values({key: known.type for key, known in names.items()}, defaults, {})
    holds, reads = compile_condition(tree, ("event", "customer"), values)
    live = not {feature.key for feature in contract.live}.isdisjoint(reads)
    return AlertRule(name, on, str(when.value), severity, route, once_per, reads, live, holds)


def _names(on: tuple[str, ...], contract: Contract, types: EventTypes) -> dict[str, Name]:
    """What a condition may name. Raises ExpressionError where one property is a text here and a number there."""
    names = {f.key: Name("number" if f.type == "number" else "text", f.categories) for f in contract.customer}
    for one in on:
        declared = types.types.get(one)
        for key in (*declared.properties, *declared.derived) if declared else ():
            name = Name("text" if declared and declared.kind(key) == "text" else "number")
            if names.setdefault(EVENT + key, name) != name:
                raise ExpressionError(
                    f"Expected `{EVENT}{key}` to be of one type in {', '.join(on)}, got two - at line 1, column 1"
                )
    return names | {TYPE: Name("text", on), CHANNEL: Name("text")} if on else names


def _type(place: Place, types: EventTypes) -> str:
    if not isinstance(place.value, str) or place.value not in types.types:
        place.refuse(f"a declared event type{nearest(str(place.value), list(types.types))}")
    return str(place.value)


def _name(place: Place) -> str:
    entries = place.entries()
    return str(entries["name"].value) if "name" in entries else ""


def _word(place: Place) -> str:
    if not isinstance(place.value, str) or RULE_NAME.match(place.value) is None:
        place.refuse("a name of a-z, 0-9 and `_`")
    return str(place.value)
