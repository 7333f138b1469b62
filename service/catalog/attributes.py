"""What a catalog declares of its actions: inputs of the model that depend on the action, alone or together with the customer."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

from features.contract import ACTION_ID, Contract, Feature
from service.catalog.checking import Place
from service.catalog.expressions import Name
from service.errors import nearest

Kind = Literal["number", "category"]

NUMBER: Kind = "number"
CATEGORY: Kind = "category"
KEYS = ("type", "matches")


class Attribute(NamedTuple):
    """`matches`: the category of the customer or the context that it is compared with, by key (`customer.region`)."""

    type: Kind
    matches: str | None = None


def read_attribute(place: Place, contract: Contract) -> Attribute:
    """`number`, `category`, or `{type: category, matches: customer.region}`."""
    if not isinstance(place.value, Mapping):
        return Attribute(_kind(place))
    fields = place.fields(KEYS, ("type",))
    kind = _kind(fields["type"]) if "type" in fields else CATEGORY
    if "matches" not in fields:
        return Attribute(kind)
    if kind != CATEGORY:
        fields["type"].refuse("`category` of an attribute that matches something")
    return Attribute(kind, _matched(fields["matches"], contract))


def _kind(place: Place) -> Kind:
    return cast("Kind", place.choice((NUMBER, CATEGORY)))


def _matched(place: Place, contract: Contract) -> str | None:
    """The key of a category; what is none is a problem."""
    key = str(place.value)
    found, known = contract.find(key), [feature.key for feature in contract.features if feature.type == CATEGORY]
    if found is None:
        place.refuse(f"a category of the customer or the context, such as `customer.region`{nearest(key, known)}")
    elif found.type != CATEGORY:
        place.refuse_with(f"Expected a category{nearest(key, known)}, got the {found.type} `{key}`")
    else:
        return key
    return None


def attribute_features(names: Mapping[str, Name], declared: Mapping[str, Attribute]) -> tuple[Feature, ...]:
    """The model's inputs that depend on the action: its identity, its declared attributes, what these match, and the pairs.

    `names`: what `action.*` can be.
    """
    identity = Feature(ACTION_ID, CATEGORY, "action", categories=names[f"action.{ACTION_ID}"].categories)
    others = [Feature(name, one.type, "action", categories=names[f"action.{name}"].categories) for name, one in declared.items()]
    matched = [(name, one.matches) for name, one in declared.items() if one.matches]
    matches = [Feature(name, NUMBER, "match", matches=key) for name, key in matched]
    pairs = [Feature(name, NUMBER, "pair", matches=key) for name, key in matched]  # what they brought, a training tells
    return (identity, *others, *matches, *pairs)
