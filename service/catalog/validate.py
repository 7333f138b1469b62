"""From a document to a catalog: every mistake is found, and with one mistake there is no catalog."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from features.contract import ACTION_ID, Contract
from service.catalog.attributes import NUMBER, Attribute, attribute_features, read_attribute
from service.catalog.bounds import refuse_alike, refuse_beyond_kept, refuse_one_split, refuse_overflows, refuse_shared_names
from service.catalog.checking import Place, Problems, unique
from service.catalog.consenting import fallbacks_in_need, read_purposes, selects_action, with_consents
from service.catalog.contacting import SELECTOR_KEYS, Known, named, read_constraints, read_policy, read_selector
from service.catalog.documents import read_document
from service.catalog.entities import Action, Catalog, CompiledValue, Kind, Placement, Treatment, Weight
from service.catalog.experimenting import read_experiments, read_holdout, read_not_personalised
from service.catalog.expressions import Name
from service.catalog.hashed import hash16, hash32
from service.catalog.placing import KINDS, read_content, read_placement
from service.catalog.policies import Purpose, Selector
from service.catalog.rulebook import RULE_NAME, RuleBook, Rules
from service.errors import CatalogInvalid, nearest
from service.pacing import breathe

FORMAT = 1
LEVER_RANGE = (0.1, 10.0)  # unless the document declares another; beyond it a lever is a rule in disguise
WIDEST_LEVER_RANGE = (0.001, 1000.0)
WEIGHT_RANGE = (0.01, 100.0)
TOP_LEVEL = (
    "catalog", "note", "attributes", "rules", "segments", "issues", "groups", "actions", "placements", "weights", "contact",
    "constraints", "experiments", "holdout", "not_personalised", "lever_range", "time_zone", "consent",
)  # fmt: skip
LAYER_KEYS = ("eligibility", "applicability", "suitability")
ISSUE_KEYS = ("id", "lever", *LAYER_KEYS)
GROUP_KEYS = ("id", "issue", "lever", *LAYER_KEYS)
ACTION_KEYS = (
    "id", "group", "kind", "value", "lever", "priority", "active", "attributes", "mandatory", *LAYER_KEYS, "treatments",
)  # fmt: skip
TREATMENT_KEYS = ("id", "placements", "content", *LAYER_KEYS)
FORMULA_KEYS = ("formula", "otherwise")
WEIGHT_KEYS = ("name", "when", "factor", "where")
WEIGHED_BY = ("actions", "groups", "issues", "kinds")


class _Level(NamedTuple):
    """An issue or a group: what its actions inherit."""

    lever: float
    rules: Rules
    issue: str


class _ReadWeight(NamedTuple):
    name: str
    rules: Rules
    factor: float
    where: Selector


def read_catalog(path: Path, contract: Contract) -> tuple[dict[str, Any], Catalog]:
    """The document of a YAML file and the catalog it describes. Raises CatalogInvalid, also where the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CatalogInvalid([f"{path.name}: Expected UTF-8, got other bytes - at byte {error.start}"]) from error
    except OSError as error:
        raise CatalogInvalid([f"Expected a readable catalog, got `{error.strerror}` - at `{path}`"]) from error
    return parse_catalog(text, contract, path.name)


def parse_catalog(text: str, contract: Contract, where: str = "catalog") -> tuple[dict[str, Any], Catalog]:
    """A YAML document and the catalog it describes. Raises CatalogInvalid with every mistake and its line."""
    document = read_document(text, where)
    problems = Problems(where, document.lines, is_new=True)
    return document.values, _checked(_Builder(document.values, contract, problems), problems)


def load_catalog(document: Mapping[str, Any], contract: Contract) -> Catalog:
    """The catalog that a stored document describes. Raises CatalogInvalid with every mistake and its path.

    What is refused since it was published (`Problems.is_new`) goes on.
    """
    problems = Problems("catalog", {})
    return _checked(_Builder(document, contract, problems), problems)


def _checked(builder: "_Builder", problems: Problems) -> Catalog:
    catalog = builder.build()
    if problems.found:
        raise CatalogInvalid(problems.found)
    return catalog


def fingerprint(document: Mapping[str, object]) -> str:
    """16 hexadecimal digits: equal for equal content. The order of keys and the note do not count, the order of lists does."""
    content = {key: value for key, value in document.items() if key != "note"}
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:16]


class _Builder:
    """Builds a catalog top down: attributes, rules, issues, groups, placements, actions, and what speaks of all of them."""

    def __init__(self, document: Mapping[str, Any], contract: Contract, problems: Problems) -> None:
        self._document = document
        self._contract = contract
        self._problems = problems
        self._book = RuleBook(contract)
        self._attributes: dict[str, Attribute] = {}
        self._placements: dict[str, Placement] = {}
        self._purposes: tuple[Purpose, ...] = ()
        self._levers = LEVER_RANGE

    def build(self) -> Catalog:
        """What can be made of the document; whether it may be used is for the problems to say."""
        top = Place(self._document, "", self._problems).fields(
            TOP_LEVEL, ("catalog", "issues", "groups", "actions", "placements")
        )
        if "catalog" in top and top["catalog"].value != FORMAT:
            top["catalog"].refuse(f"format {FORMAT}")
        self._levers = _lever_range(top.get("lever_range"))
        declared = _entries(top, "attributes").items()
        self._attributes = {n: read_attribute(p, self._contract) for n, p in declared if _is_free(n, p)}
        self._book.declare(_entries(top, "rules"), _entries(top, "segments"))
        issues = {n: self._issue(p, n) for n, p in _named(top, "issues", "issue")}
        groups = {n: self._group(p, issues) for n, p in _named(top, "groups", "group")}
        placed = list(_named(top, "placements", "placement"))
        self._placements = {n: read_placement(n, p) for n, p in placed}
        listed = list(_named(top, "actions", "action"))
        names = self._action_names([n for n, _ in listed], [p for _, p in listed])
        known = Known([n for n, _ in listed], list(groups), list(issues), KINDS, self._channels(), list(self._placements))
        weights = [_weight(item, known, self._book) for item in named(top.get("weights"))]
        taken = {f.name: f for f in self._contract.features}
        self._purposes = read_purposes(top.get("consent"), known, taken)
        self._book.settle(names, [purpose.name for purpose in self._purposes])
        actions = tuple(self._action(n, p, groups) for n, p in listed)
        if self._purposes:
            consents = {purpose.name: self._book.consent(purpose.name) for purpose in self._purposes}
            actions = tuple(with_consents(action, self._purposes, self._placements, consents) for action in actions)
        self._check_fallbacks(top, {action.id: action for action in actions})
        self._book.check_all()
        for key in ("actions", "placements"):
            if key in top:
                top[key].at_least_one()
        catalog = Catalog(
            actions=actions, placements=self._placements, attributes=attribute_features(names, self._attributes),
            fingerprint=fingerprint(self._document), weights=tuple(w for read in weights for w in self._weights(read, actions)),
            contact=read_policy(top.get("contact"), known), constraints=read_constraints(top.get("constraints"), known),
            purposes=self._purposes,
            experiments=read_experiments(top.get("experiments"), self._document, self._overridden),
            holdout=read_holdout(top.get("holdout")), not_personalised=read_not_personalised(top.get("not_personalised")),
            time_zone=_time_zone(top.get("time_zone")),
        )  # fmt: skip
        if self._problems.is_new:
            refuse_overflows(catalog, dict(listed))
            refuse_alike(dict(listed), hash32)
            refuse_alike(dict(placed), hash16)
            refuse_beyond_kept(catalog, top.get("contact"))
            refuse_one_split(catalog, top)
            refuse_shared_names(catalog, top)
        return catalog

    def _overridden(self, document: dict[str, Any], place: Place) -> Catalog | None:
        """The catalog of an experiment's arm; its mistakes are those of the overrides."""
        problems = Problems("with these overrides", {}, is_new=self._problems.is_new)
        catalog = _Builder(document, self._contract, problems).build()
        for problem in problems.found:
            place.refuse_with(problem)
        lacking = [name for name in self._placements if name not in catalog.placements]
        for name in lacking:
            place.entries()["placements"].refuse_with(
                f"Expected every placement of the document, since requests may ask for each, got none with id `{name}`"
            )
        return None if problems.found else catalog

    def _channels(self) -> list[str]:
        return list(dict.fromkeys(p.channel for p in self._placements.values()))

    def _issue(self, place: Place, name: str) -> _Level:
        fields = place.fields(ISSUE_KEYS, ("id",))
        return _Level(self._lever(fields), self._book.layers(fields), name)

    def _group(self, place: Place, issues: Mapping[str, _Level]) -> _Level:
        fields = place.fields(GROUP_KEYS, ("id", "issue"))
        above = _find(fields.get("issue"), issues, "issue")
        return _Level(self._lever(fields) * above.lever, above.rules + self._book.layers(fields), above.issue)

    def _lever(self, fields: Mapping[str, Place]) -> float:
        return fields["lever"].number(*self._levers) if "lever" in fields else 1.0

    def _action_names(self, ids: list[str], actions: list[Place]) -> dict[str, Name]:
        """What `action.*` can be in a rule."""
        names = {f"action.{ACTION_ID}": Name("text", tuple(ids))}
        for name, declared in self._attributes.items():
            used = {
                text for a in actions if isinstance(own := a.value.get("attributes"), Mapping)
                if isinstance(text := own.get(name), str)
            }  # fmt: skip
            names[f"action.{name}"] = Name("number") if declared.type == NUMBER else Name("text", tuple(sorted(used)))
        return names

    def _action(self, name: str, place: Place, groups: Mapping[str, _Level]) -> Action:
        breathe()
        fields = place.fields(ACTION_KEYS, ("id", "group", "kind", "value", "treatments"))
        group = _find(fields.get("group"), groups, "group")
        kind = cast("Kind", fields["kind"].choice(KINDS) if "kind" in fields else KINDS[0])
        attributes = self._action_attributes(fields.get("attributes"))
        start, end = _dates(fields.get("active"))
        value, formula = self._value(fields.get("value"), attributes)
        own = {ACTION_ID: name, **attributes}
        return Action(
            id=name, kind=kind, issue=group.issue, group=str(fields["group"].value) if "group" in fields else "",
            value=value, lever=self._lever(fields) * group.lever,
            priority=fields["priority"].number() if "priority" in fields else 0.0,
            active_from=start, active_until=end, attributes=attributes,
            rules=self._book.compiled(group.rules + self._book.layers(fields), own),
            treatments=self._treatments(fields.get("treatments"), kind, own), formula=formula,
            mandatory=fields["mandatory"].truth() if "mandatory" in fields else False,
        )  # fmt: skip

    def _check_fallbacks(self, top: Mapping[str, Place], actions: Mapping[str, Action]) -> None:
        """A fallback has no rules: what needs consent must not be one."""
        for placement, purpose in fallbacks_in_need(self._purposes, self._placements, actions):
            top["placements"].refuse_with(
                f"Expected a fallback that needs no consent, such as one of kind `nothing`, got one that needs `{purpose}` "
                f"- of placement `{placement}`"
            )

    def _value(self, place: Place | None, attributes: Mapping[str, float | str]) -> tuple[float, CompiledValue | None]:
        """A number, a formula, or a formula with what stands in where something in it is missing."""
        if place is None:
            return 0.0, None
        if isinstance(place.value, Mapping):
            fields = place.fields(FORMULA_KEYS, FORMULA_KEYS)
            otherwise = fields["otherwise"].number(0.0) if "otherwise" in fields else 0.0
            return otherwise, self._book.value(fields["formula"], attributes, otherwise) if "formula" in fields else None
        if isinstance(place.value, str):
            return 0.0, self._book.value(place, attributes, None)
        return place.number(0.0), None

    def _action_attributes(self, place: Place | None) -> dict[str, float | str]:
        attributes: dict[str, float | str] = {}
        for name, value in (place.entries() if place else {}).items():
            if name not in self._attributes:
                value.refuse(f"a declared attribute{nearest(name, list(self._attributes))}", name)
            elif self._attributes[name].type == NUMBER:
                attributes[name] = value.number()
            else:
                attributes[name] = value.text()
        return attributes

    def _treatments(self, place: Place | None, kind: Kind, action: Mapping[str, float | str]) -> tuple[Treatment, ...]:
        items = [(_id(item), item) for item in (place.at_least_one() if place else []) if _is_named(item)]
        return tuple(self._treatment(name, item, kind, action) for name, item in unique(items, "treatment"))

    def _treatment(self, name: str, place: Place, kind: Kind, action: Mapping[str, float | str]) -> Treatment:
        fields = place.fields(TREATMENT_KEYS, ("id", "placements"))
        shown = fields["placements"].at_least_one() if "placements" in fields else []
        for item in shown:
            found = self._placements.get(str(item.value))
            if found is None:
                item.refuse(f"a known placement{nearest(str(item.value), list(self._placements))}")
            elif kind not in found.accepts:
                item.refuse(f"a placement that accepts `{kind}`")
        rules = self._book.compiled(self._book.layers(fields), action)
        return Treatment(name, tuple(str(item.value) for item in shown), read_content(fields.get("content")), rules)

    def _weights(self, read: _ReadWeight, actions: Iterable[Action]) -> list[Weight]:
        """One record for all actions for which the condition is the same."""
        together: dict[str, Weight] = {}
        for action in actions:
            if selects_action(read.where, action):
                for rule in self._book.compiled(read.rules, {ACTION_ID: action.id, **action.attributes}):
                    before = together.get(rule.key, Weight(read.name, rule, read.factor, frozenset()))
                    together[rule.key] = msgspec.structs.replace(before, actions=before.actions | {action.id})
        return list(together.values())


def _weight(place: Place, known: Known, book: RuleBook) -> _ReadWeight:
    fields = place.fields(WEIGHT_KEYS, ("name", "when", "factor"))
    name = fields["name"].text() if "name" in fields else ""
    rules = (book.condition(name, fields["when"]),) if "when" in fields else ()
    factor = fields["factor"].number(*WEIGHT_RANGE) if "factor" in fields else 1.0
    where = read_selector(fields.get("where"), known, [key for key in SELECTOR_KEYS if key in WEIGHED_BY])
    return _ReadWeight(name, rules, factor, where)


def _entries(top: Mapping[str, Place], key: str) -> dict[str, Place]:
    return top[key].entries() if key in top else {}


def _named(top: Mapping[str, Place], key: str, what: str) -> list[tuple[str, Place]]:
    items = top[key].items() if key in top else []
    return list(unique([(_id(item), item) for item in items if _is_named(item)], what))


def _is_named(place: Place) -> bool:
    if not isinstance(place.value, Mapping):
        place.refuse("a mapping with an `id`")
        return False
    return True


def _is_free(name: str, place: Place) -> bool:
    if name == ACTION_ID or not RULE_NAME.match(name):
        place.refuse(f"an attribute named with a-z, 0-9 and `_`, other than `{ACTION_ID}`", name)
        return False
    return True


def _id(place: Place) -> str:
    """The id, or nothing where there is none: reading the fields tells that."""
    entries = place.entries()
    return entries["id"].text() if "id" in entries else ""


def _lever_range(place: Place | None) -> tuple[float, float]:
    if place is None:
        return LEVER_RANGE
    bounds = [item.number(*WIDEST_LEVER_RANGE) for item in place.items()]
    if len(bounds) != 2 or not bounds[0] <= 1.0 <= bounds[1]:  # noqa: PLR2004  # a lower and an upper one
        place.refuse("two numbers around 1, such as `[0.5, 2]`")
        return LEVER_RANGE
    return bounds[0], bounds[1]


def _time_zone(place: Place | None) -> str:
    if place is None:
        return "UTC"
    try:
        return ZoneInfo(place.text() or "?").key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        place.refuse("a time zone such as `Europe/Berlin`")
        return "UTC"


def _find(place: Place | None, known: Mapping[str, _Level], what: str) -> _Level:
    if place is not None and isinstance(place.value, str) and place.value in known:
        return known[place.value]
    if place is not None:
        place.refuse(f"a known {what}{nearest(str(place.value), list(known))}")
    return _Level(1.0, (), "")


def _dates(place: Place | None) -> tuple[float | None, float | None]:
    fields = place.fields(("from", "until")) if place else {}
    start = fields["from"].moment() if "from" in fields else None
    end = fields["until"].moment() if "until" in fields else None
    if place is not None and start is not None and end is not None and end <= start:
        place.refuse("`until` after `from`")
    return start, end
