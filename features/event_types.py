"""Declared event types: `events.yaml` says which properties an event of a type has, and of which type they are.

A type that is not declared is kept and counted, and feeds nothing; a property that is not declared, or is of another type, is a
reason to set the event aside. `sentiment: {text: sentiment}` scores a text where the event comes in, once: the number is a
property like any other from then on, in the log and in features.
"""

import datetime as dt
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import yaml

from features.contract import Contract, ContractError, Feature, FromEvents, Journey
from features.homes import features_folder
from features.live import CHANNEL
from features.sentiment import Sentiment

PACKAGED = Path(__file__).parent / "events.yaml"
Kind = Literal["number", "text", "truth"]
Property = float | str | bool

EARLIEST = dt.datetime(1, 1, 2, tzinfo=dt.UTC).timestamp()  # a day after calendars begin, so that every zone can tell it
CLOCK_SKEW_S = 300.0  # how far ahead of ours a sender's clock may be
LONGEST_TEXT = 4096  # characters of a property, and of a value of a request's context
MOST_PROPERTIES = 64


class EventType(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One type. `channels`: where it happens; anywhere where empty.

    `sentiment`: which text is scored, and the name of the number, from -1 to 1, that this gives.
    """

    properties: dict[str, Kind] = {}
    channels: tuple[str, ...] = ()
    sentiment: dict[str, str] = {}

    @property
    def derived(self) -> dict[str, str]:
        """The properties that are worked out here, each with the text that it comes from."""
        return {number: text for text, number in self.sentiment.items()}

    def kind(self, name: str) -> Kind | None:
        """Of what every event of this type can have, sent or worked out."""
        if name == CHANNEL:
            return "text"
        return "number" if name in self.derived else self.properties.get(name)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    events: dict[str, EventType]


class EventTypes:
    """The types of a home."""

    def __init__(self, types: Mapping[str, EventType]) -> None:
        self.types = types
        self.scored = frozenset(name for name, one in types.items() if one.sentiment)  # those with texts to score
        declared = {pair for one in types.values() for pair in one.properties.items()}
        others = {name for name, kind in declared if kind != "text"}
        self.texts = frozenset(name for name, _ in declared) - others  # properties that are a text wherever they are declared

    def __contains__(self, name: str) -> bool:
        return name in self.types

    def problem(self, name: str, channel: str, properties: Mapping[str, Property]) -> str | None:
        """What contradicts the declaration, in words; None where nothing does, or where nothing is declared."""
        if len(properties) > MOST_PROPERTIES:
            return f"Expected at most {MOST_PROPERTIES} properties, got {len(properties)} - at `$.properties`"
        for key, value in properties.items():
            if isinstance(value, str) and len(value) > LONGEST_TEXT:
                return f"Expected at most {LONGEST_TEXT} characters, got {len(value)} - at `$.properties.{key}`"
            if isinstance(value, float) and not math.isfinite(value):
                return f"Expected a finite number, got `{value}` - at `$.properties.{key}`"
        declared = self.types.get(name)
        return None if declared is None else _contradiction(declared, name, channel, properties)

    def with_sentiment(self, name: str, properties: dict[str, Property], sentiment: Sentiment) -> dict[str, Property]:
        """The properties of an event of a type, and what its texts sound like."""
        if name not in self.scored:
            return properties
        texts = self.types[name].sentiment.items()
        return {**properties, **{number: sentiment.score(str(properties[text])) for text, number in texts if text in properties}}


def _contradiction(declared: EventType, name: str, channel: str, properties: Mapping[str, Property]) -> str | None:
    if declared.channels and channel not in declared.channels:
        return f"Expected a channel among {', '.join(declared.channels)} for `{name}`, got `{channel}` - at `$.channel`"
    for key, value in properties.items():
        wanted = declared.properties.get(key)
        if key in declared.derived:
            told = f"Expected `{key}` to be left out of `{name}`: it is worked out from `{declared.derived[key]}`"
            return f"{told}, got `{value}` - at `$.properties.{key}`"
        if wanted is None:
            known = ", ".join(f"`{one}`" for one in declared.properties) or "none"
            return f"Expected a declared property ({known}) of `{name}`, got `{key}` - at `$.properties.{key}`"
        if kind_of(value) != wanted:
            return f"Expected a {wanted}, got `{value}` - at `$.properties.{key}`"
    return None


def misplaced(at: float, now: float) -> str | None:
    """What is wrong with a moment that has not come yet, or that no calendar tells; None for others. Seconds since 1970 UTC."""
    if at > now + CLOCK_SKEW_S:
        return f"Expected a time at most {CLOCK_SKEW_S:g} s ahead, got {at - now:.0f} s - at `$.at`"
    return None if at >= EARLIEST else f"Expected a time from the year 1 on, got {at:.0f} s since 1970 - at `$.at`"


def kind_of(value: Property) -> Kind:
    """The declared type that a value has."""
    if isinstance(value, bool):
        return "truth"
    return "text" if isinstance(value, str) else "number"


def parse_event_types(text: str, where: str = "events.yaml") -> EventTypes:
    """The types that a document declares. Raises ContractError."""
    try:
        types = msgspec.convert(yaml.safe_load(text), _Document).events
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ContractError(f"{where}: {error}") from error
    for name, declared in types.items():
        _check_sentiment(name, declared, where)
    return EventTypes(types)


def _check_sentiment(name: str, declared: EventType, where: str) -> None:
    """Raises ContractError where what shall be scored is no text, or the number's name is taken."""
    place = f"{where}: `{name}.sentiment`"
    for text, number in declared.sentiment.items():
        if declared.properties.get(text) != "text":
            raise ContractError(f"Expected a declared text of `{name}` to score, got `{text}` - at {place}")
        if number in declared.properties or number == CHANNEL or list(declared.sentiment.values()).count(number) > 1:
            raise ContractError(f"Expected a name of its own for the sentiment of `{text}`, got `{number}` - at {place}")


def home_event_types(home: Path, contract: Contract) -> EventTypes:
    """Those of a home, or the ones that come with the package. Raises ContractError, also where a feature needs others."""
    path = features_folder(home) / "events.yaml"
    types = parse_event_types((path if path.exists() else PACKAGED).read_text(), path.name)
    check_fed(types, contract)
    return types


def check_journey(types: EventTypes, journey: Journey) -> None:
    """Raises ContractError where a move asks for an event type or a property that nobody declared, or for an impossible value."""
    for stage in journey.stages:
        for move in stage.moves:
            where = f"journey.yaml: stages.{stage.name}.on.{move.type}"
            if move.type not in types:
                raise ContractError(f"Expected a declared event type ({', '.join(types.types)}), got `{move.type}` - at {where}")
            for name, wanted in move.where.items():
                kind = "text" if name == CHANNEL else types.types[move.type].properties.get(name)
                if kind is None:
                    raise ContractError(f"Expected a declared property of `{move.type}`, got `{name}` - at {where}")
                _check_wanted(kind, wanted, f"{where}.{name}")


def _check_wanted(kind: Kind, wanted: float | str, where: str) -> None:
    """Raises ContractError where no property of this kind can have this value; a truth is 1 or 0."""
    if isinstance(wanted, str) != (kind == "text"):
        raise ContractError(f"Expected a {'text' if kind == 'text' else 'number'}, got `{wanted}` - at {where}")


def check_fed(types: EventTypes, contract: Contract) -> None:
    """Raises ContractError where a feature or the journey needs an event type or a property that is not declared.

    Nor may it need a value that the property cannot have: what is counted by its type online is compared as a text offline.
    """
    if contract.journey is not None:
        check_journey(types, contract.journey)
    for feature in contract.features:
        if feature.transactions is not None:
            check_amount(types, feature.transactions.types, feature.transactions.amount, "features.yaml: `transactions`")
    for feature in contract.live:
        if feature.events is not None:
            _check_source(types, feature, feature.events)


def _check_source(types: EventTypes, feature: Feature, source: FromEvents) -> None:
    """Raises ContractError where the events that feed a feature are not declared, or cannot have the values that it needs."""
    where = f"features.yaml: `{feature.name}`"
    for name in source.types:
        if name not in types:
            raise ContractError(f"Expected a declared event type ({', '.join(types.types)}), got `{name}` - at {where}")
    if source.property is not None:
        fitting, wanted = _fitting(feature, source)
        for kind in _kinds(types, source, source.property, where):
            if kind not in fitting:
                raise ContractError(f"Expected {wanted}, got `{source.property}`, a {kind} - at {where}")
    for name, value in source.where.items():
        for kind in _kinds(types, source, name, where):
            _check_wanted(kind, value, f"{where}.where.{name}")


def _fitting(feature: Feature, source: FromEvents) -> tuple[tuple[Kind, ...], str]:
    """Of which kinds the property may be that a feature reads, and in words."""
    if source.aggregate == "sum":
        return ("number",), "a number to sum up"
    if source.aggregate == "recent" and feature.type == "category":
        return ("text",), "a text for a category"
    if source.aggregate == "recent":
        return ("number", "truth"), "a number or a truth for a number"
    return ("number", "text", "truth"), "a property"


def _kinds(types: EventTypes, source: FromEvents, name: str, where: str) -> list[Kind]:
    """The kinds of a property among the events that a feature reads. Each type that it names must have it, or else any type."""
    if name == CHANNEL:
        return ["text"]
    found = {one: types.types[one].kind(name) for one in source.types or types.types}
    for one in source.types:
        if found[one] is None:
            raise ContractError(f"Expected a declared property of `{one}`, got `{name}` - at {where}")
    kinds = [kind for kind in found.values() if kind is not None]
    if not kinds:
        raise ContractError(f"Expected a property that some event has, got `{name}` - at {where}")
    return kinds


def check_amount(types: EventTypes, names: Iterable[str], amount: str | None, where: str) -> None:
    """Raises ContractError where one of these types is not declared, or does not have this number (none, where None)."""
    for name in names:
        if name not in types:
            raise ContractError(f"Expected a declared event type ({', '.join(types.types)}), got `{name}` - at {where}")
        kind = "number" if amount is None else types.types[name].properties.get(amount, "property that is not declared")
        if kind != "number":
            raise ContractError(f"Expected a number of `{name}`, got `{amount}`, a {kind} - at {where}")
