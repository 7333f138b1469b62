"""The JSON Schema of a catalog document: for editors that complete and check the YAML while it is written.

It knows the shape; what needs the whole document (names that must exist, rules) is for `nextbest catalog check`.
"""

from typing import Any

from service.catalog.attributes import CATEGORY, NUMBER
from service.catalog.consenting import DENIED, GIVEN, PROFILE
from service.catalog.entities import FACTORS
from service.catalog.experimenting import ABLATIONS
from service.catalog.placing import KINDS, MOST_SLOTS
from service.catalog.policies import UNITS
from service.catalog.validate import FORMAT, LAYER_KEYS, WEIGHT_RANGE

Schema = dict[str, Any]

NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 128}
REASON: Schema = {"type": "string", "pattern": "^[a-z][a-z0-9_]*$", "description": "The name is the reason code in the log."}
EXPRESSION: Schema = {
    "type": ["string", "boolean"],
    "description": "A condition such as `customer.age >= 18 and context.channel in ('web', 'app')`.",
}
DURATION: Schema = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(s|min|h|d)\s*$", "description": "`30 min`, `24h`, `7d`"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
CONTENT: Schema = {"type": "object", "description": "Handed to the front end as it is."}


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


def _list(items: Schema, **more: Any) -> Schema:  # noqa: ANN401  # keywords of JSON Schema
    return {"type": "array", "items": items, **more}


def _mapping(values: Schema, **more: Any) -> Schema:  # noqa: ANN401  # keywords of JSON Schema
    return {"type": "object", "additionalProperties": values, **more}


def _some(items: Schema) -> Schema:
    """One, or a list of them."""
    return {"anyOf": [items, _list(items)]}


def _layers() -> dict[str, Schema]:
    named = _mapping(EXPRESSION, propertyNames=REASON)
    rules = {"anyOf": [named, _list({"anyOf": [REASON, named]})], "description": "Names of `rules`, or `name: expression`."}
    return dict.fromkeys(LAYER_KEYS, rules)


def _where(*keys: str) -> Schema:
    known = {key: _some({"enum": list(KINDS)}) if key == "kinds" else _some(NAME) for key in keys}
    return {"type": "object", "properties": known, "additionalProperties": False}


def catalog_schema() -> Schema:
    """JSON Schema, draft 2020-12."""
    lever: Schema = {"type": "number", "exclusiveMinimum": 0, "description": "Within `lever_range`, by default 0.1 to 10."}
    document = _object(
        ("catalog", "issues", "groups", "actions", "placements"),
        catalog={"const": FORMAT},
        note={"type": "string"},
        time_zone={"type": "string", "description": "`Europe/Berlin`: of customers whose zone is not known."},
        lever_range=_list({"type": "number", "exclusiveMinimum": 0}, minItems=2, maxItems=2),
        attributes=_mapping(_attribute(), propertyNames=REASON),
        rules=_mapping(EXPRESSION, propertyNames=REASON),
        segments=_mapping(EXPRESSION, propertyNames=REASON),
        issues=_list(_object(("id",), id=NAME, lever=lever, **_layers())),
        groups=_list(_object(("id", "issue"), id=NAME, issue=NAME, lever=lever, **_layers())),
        actions=_list(_action(lever), minItems=1),
        placements=_list(_placement(), minItems=1),
        weights=_list(_object(
            ("name", "when", "factor"), name=REASON, when=EXPRESSION,
            factor={"type": "number", "minimum": WEIGHT_RANGE[0], "maximum": WEIGHT_RANGE[1]},
            where=_where("actions", "groups", "issues", "kinds"),
        )),
        consent=_consent(),
        contact=_contact(),
        constraints=_list(_constraint()),
        experiments=_list(_experiment()),
        holdout=_object(("share",), share=SHARE, salt=NAME),
        not_personalised=_object(("share",), share=SHARE, salt=NAME),
    )  # fmt: skip
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "nextbest catalog", **document}


def _attribute() -> Schema:
    kinds: Schema = {"enum": [NUMBER, CATEGORY]}
    category = {"type": "string", "description": "A category that values are compared with, such as `customer.region`."}
    return {"anyOf": [kinds, _object(("type",), type=kinds, matches=category)]}


def _action(lever: Schema) -> Schema:
    number: Schema = {"type": "number", "minimum": 0}
    formula: Schema = {"type": "string", "description": "A formula such as `action.margin - action.cost * customer.return_rate`."}
    value = {"anyOf": [number, formula, _object(("formula", "otherwise"), formula=formula, otherwise=number)]}
    moment: Schema = {"type": "string", "description": "A date, or an RFC 3339 time."}
    return _object(
        ("id", "group", "kind", "value", "treatments"),
        id=NAME, group=NAME, kind={"enum": list(KINDS)}, value=value, lever=lever, priority={"type": "number"},
        active=_object((), **{"from": moment, "until": moment}), mandatory={"type": "boolean"},
        attributes=_mapping({"type": ["number", "string"]}),
        treatments=_list(_object(("id", "placements"), id=NAME, placements=_list(NAME, minItems=1), content=CONTENT, **_layers()),
                         minItems=1),
        **_layers(),
    )  # fmt: skip


def _placement() -> Schema:
    explore = _object(
        (), epsilon=SHARE, softmax=_object(("temperature",), temperature={"type": "number", "exclusiveMinimum": 0}),
        floor=_object(("share", "below"), share=SHARE, below={"type": "integer", "minimum": 1}),
    )  # fmt: skip
    kinds: Schema = {"enum": list(KINDS)}
    return _object(
        ("id", "channel", "fallback"),
        id=NAME, channel=NAME, slots={"type": "integer", "minimum": 1, "maximum": MOST_SLOTS}, accepts=_list(kinds, minItems=1),
        explore=explore, fallback=_object(("action", "kind"), action=NAME, treatment=NAME, kind=kinds, content=CONTENT),
        factors=_list({"enum": list(FACTORS)}), objectives=_mapping({"type": "number", "minimum": 0}),
        repeats={"type": "boolean"},
    )  # fmt: skip


def _consent() -> Schema:
    where = _where("actions", "groups", "issues", "kinds", "channels", "placements")
    needed = {"anyOf": [{"const": PROFILE}, where, _list(where, minItems=1)], "description": "What is not done without it."}
    return _mapping(_object(("needed_for",), unless_said={"enum": [DENIED, GIVEN]}, needed_for=needed), propertyNames=REASON)


def _contact() -> Schema:
    where = _where("actions", "groups", "issues", "kinds", "channels", "placements")
    per: Schema = {"enum": list(UNITS)}
    hour: Schema = {"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d$"}
    counted: Schema = {"type": "string", "description": "decisions, impressions, clicks, outcomes, or a type of outcome"}
    return _object(
        (),
        reservation=DURATION,
        caps=_list(_object(("name", "at_most", "per", "window"), name=REASON, at_most=COUNT, per=per, window=DURATION,
                           count=counted, where=where)),
        cool_downs=_list(_object(("name", "after", "silent"), name=REASON, after=NAME, times={"type": "integer", "minimum": 1},
                                 within=DURATION, silent=DURATION, per=per, where=where)),
        quiet_hours=_list(_object(("name", "from", "until"), name=REASON, **{"from": hour}, until=hour, where=where)),
        exclusions=_list(_object(("name", "actions", "window"), name=REASON, actions=_list(NAME, minItems=2), after=NAME,
                                 window=DURATION)),
        budgets=_list(_object(("name", "action", "at_most"), name=REASON, action=NAME, at_most=COUNT,
                              period={"enum": ["total", "day"]}, count={"enum": ["decisions", "impressions"]})),
    )  # fmt: skip


def _constraint() -> Schema:
    limits = {"at_most": COUNT, "at_most_share": SHARE, "at_least_share": SHARE}
    shape = _object(("name", "where"), name=REASON, where=_where("actions", "groups", "issues", "kinds"), **limits)
    return {**shape, "oneOf": [{"required": [limit]} for limit in limits]}


def _experiment() -> Schema:
    arm = _object(
        ("id",), id=NAME, weight={"type": "number", "minimum": 0}, ablation={"enum": list(ABLATIONS)}, bundle=NAME,
        overrides={"type": "object", "description": "A part of this document; things of a list by their ids."},
    )  # fmt: skip
    return _object(("id", "share", "arms"), id=NAME, salt=NAME, share=SHARE, arms=_list(arm, minItems=1))
