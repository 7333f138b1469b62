"""The ordered list of model inputs: name, type, origin, default, maximum age, and its fingerprint.

One document, `features.yaml`, declares what is known about a customer (four kinds of data), what a request says of its
context, and what only the moment of the request can tell. Feast's definitions, the Redis reader, the rules and the models
are all derived from it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml

Origin = Literal["profile", "activity", "value", "attitude", "context", "request_time", "action", "slot", "match", "pair"]
Value = float | str | None  # a feature's value as people write it; None is missing

NOT_OF_REQUEST = ("action", "slot", "match", "pair")
OF_CATALOG = ("action", "slot")
CUSTOMER_VIEWS: tuple[str, ...] = ("profile", "activity", "value", "attitude")
ACTION_ID = "id"  # the action's identity as a category: `action.id`
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
UNREADABLE = "\x85\u2028\u2029"  # line breaks to YAML: PyYAML 6.0 writes them bare and reads back spaces
NAME = re.compile(r"[a-z][a-z0-9_]*\Z", re.ASCII | re.IGNORECASE)


class ContractError(ValueError):
    """The feature document cannot be used; the message names what was expected, what was found, and where."""


STEPS = (60, 300, 900, 3600, 6 * 3600, 86_400, 3 * 86_400, 7 * 86_400, 30 * 86_400)  # seconds in which a window may move
MOST_STEPS = 32  # to a window
Aggregate = Literal["count", "sum", "since_last", "recent", "distinct"]
LIVE_VIEW = "live"  # where Feast finds the features that events feed
Tells = Literal["stage", "days_in_stage", "previous_stage"]
DAYS_IN_STAGE = "days_in_stage"
TRANSACTIONS_VIEW, PREDICTIONS_VIEW = "transactions", "predictions"  # what is worked out in batch: each has its own moment
BATCH_VIEWS = (*CUSTOMER_VIEWS, TRANSACTIONS_VIEW, PREDICTIONS_VIEW)
VIEWS = (*BATCH_VIEWS, LIVE_VIEW)
Measure = Literal[
    "recency_days", "tenure_days", "frequency", "monetary_value", "purchases_12m", "spend_12m", "recency_score",
    "frequency_score", "monetary_score", "rfm_segment", "p_alive", "expected_purchases", "expected_spend", "lifetime_value",
]  # fmt: skip
SEGMENTS = ("new", "champions", "loyal", "promising", "needs_attention", "at_risk", "hibernating")


class FromEvents(msgspec.Struct, frozen=True, omit_defaults=True):
    """How events feed a feature. `types`: of which events, all where empty; `where`: only those with these properties.

    `count` and `sum` (of a property) are over a `window` in seconds, or decay with a `half_life` in seconds; `distinct` counts a
    property's different values in a window; `recent` is a property's value in the event before so many (`position`, 1 is the
    last); `since_last` is in days. The property `channel` is every event's.
    """

    aggregate: Aggregate
    types: tuple[str, ...] = ()
    property: str | None = None
    window: float | None = None
    half_life: float | None = None
    position: int = 1
    where: dict[str, float | str] = {}


class Move(msgspec.Struct, frozen=True, omit_defaults=True):
    """To which stage an event of a type leads, where it has these properties; it may be the stage it comes from."""

    type: str
    to: str
    where: dict[str, float | str] = {}


class Stage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One stage of a journey: the first move that fits an event counts. `after` so many seconds without one, it is `then`."""

    name: str
    moves: tuple[Move, ...] = ()
    after: float | None = None
    then: str = ""


class Journey(msgspec.Struct, frozen=True):
    """The stages that a customer can be in, and how one leads to another: `features/journey.py` reads and follows it."""

    start: str
    stages: tuple[Stage, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The stages, in the order of the document."""
        return tuple(stage.name for stage in self.stages)

    @property
    def fingerprint(self) -> str:
        """Changes whenever a customer could be in another stage than before."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]


class FromJourney(msgspec.Struct, frozen=True):
    """What of the customer's journey a feature tells. `of`: the journey's fingerprint, since another one is another input."""

    tells: Tells
    of: str


class FromTransactions(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which events are transactions, and what is measured of them: `features/transactions.py` says how.

    `horizon` of what is expected, in seconds; `margin`: the share of an amount that counts; `discount`: by the year.
    """

    measure: Measure
    types: tuple[str, ...]
    amount: str
    horizon: float
    margin: float = 1.0
    discount: float = 0.0


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One model input.

    `max_age` is in seconds: an older value counts as missing. `default` stands in for a missing value; None leaves it
    missing (NaN for the model, false in every comparison of a rule). `categories` is the vocabulary of a category, in the
    order of its codes.

    `matches`, of the origins `match` and `pair`: the category of customer or context (`customer.region`) that is looked at
    together with the action's attribute of this name. A match says whether the two are the same; a pair, what such pairs brought
    in the rows that a model was learned from: `rates`, by the attribute's value and then by the category (`features/vectors.py`).

    Of the origin `slot` there is one, `SLOT`: where in a placement's list the action stood. Whoever decides asks what it would
    bring in the first slot, the default.
    """

    name: str
    type: Literal["number", "category"]
    origin: Origin
    default: float | str | None = None
    max_age: float | None = None
    categories: tuple[str, ...] = ()
    events: FromEvents | None = None
    journey: FromJourney | None = None
    transactions: FromTransactions | None = None
    prediction: str | None = None
    matches: str | None = None
    rates: dict[str, dict[str, float]] = {}

    @property
    def is_live(self) -> bool:
        """Whether events feed it, by counting them or by the stage they lead to."""
        return self.events is not None or self.journey is not None

    @property
    def view(self) -> str:
        """Under which name Feast keeps it: the kind of data, or what it is worked out from."""
        if self.transactions is not None:
            return TRANSACTIONS_VIEW
        if self.prediction is not None:
            return PREDICTIONS_VIEW
        return LIVE_VIEW if self.is_live else self.origin

    @property
    def scope(self) -> str:
        """Which of `customer`, `context`, `action` a rule writes before the name; others are of both together."""
        if self.origin in NOT_OF_REQUEST:
            return self.origin
        return "customer" if self.origin in CUSTOMER_VIEWS else "context"

    @property
    def is_of_request(self) -> bool:
        """Whether the request tells it, whatever the action."""
        return self.origin not in NOT_OF_REQUEST

    @property
    def is_of_catalog(self) -> bool:
        """Whether it is known before any request: an attribute of the action, or the slot, which is the first for all."""
        return self.origin in OF_CATALOG

    @property
    def key(self) -> str:
        """The qualified name, such as `customer.recency`: unique within a contract."""
        return self.name if self.origin == "slot" else f"{self.scope}.{self.name}"


SLOT = Feature("slot", "number", "slot", default=1.0)
MOST_SLOTS = 20  # told apart: what stands further down counts as this one


class Contract(msgspec.Struct, frozen=True):
    """All declared inputs but what depends on the action, in the order in which a model sees them; and the journey, if any."""

    features: tuple[Feature, ...]
    journey: Journey | None = None

    @property
    def customer(self) -> tuple[Feature, ...]:
        """The features kept per customer in Redis, view by view."""
        batch = tuple(f for view in BATCH_VIEWS for f in self.features if f.view == view)
        return batch + self.live

    @property
    def live(self) -> tuple[Feature, ...]:
        """Those of them that events feed."""
        return tuple(f for f in self.features if f.is_live)

    @property
    def batch(self) -> "Contract":
        """Without the features that events feed."""
        return Contract(tuple(f for f in self.features if not f.is_live))

    @property
    def fingerprint(self) -> str:
        """Changes whenever order, name, type, default, age or vocabulary of an input changes."""
        return fingerprint(self.features)

    @property
    def canonical(self) -> bytes:
        """The features as JSON: what the fingerprint is made of."""
        return canonical(self.features)

    def find(self, key: str) -> Feature | None:
        """The feature with this qualified name, if there is one."""
        return next((f for f in self.features if f.key == key), None)


def fingerprint(features: Iterable[Feature]) -> str:
    """16 hexadecimal digits of SHA-256 over the canonical JSON of the inputs, order included."""
    return hashlib.sha256(canonical(features)).hexdigest()[:16]


def canonical(features: Iterable[Feature]) -> bytes:
    """The canonical JSON of some inputs, in their order."""
    return msgspec.json.encode(list(features))


def seconds(text: str) -> float:
    """`"30 min"`, `"24h"`, `"7d"` as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", text.strip())
    if match is None:
        raise ContractError(f"Expected a duration such as `30 min`, `24h` or `7d`, got `{text}`")
    return float(match[1]) * SECONDS[match[2]]


def step_of(window: float) -> float:
    """Seconds in which a window moves: so that it has at most 32 steps."""
    return float(next((step for step in STEPS if window / step <= MOST_STEPS), STEPS[-1]))


def _check_window(window: float, where: str) -> None:
    step = step_of(window)
    if not 0 < window <= STEPS[-1] * MOST_STEPS or window % step:
        raise ContractError(
            f"Expected a window of whole steps (of {step:g} s where it is that long), from {STEPS[0]} s to "
            f"{STEPS[-1] * MOST_STEPS / SECONDS['d']:g}d, got {window:g} s - at `{where}.window`"
        )


def _check_half_life(text: str, where: str) -> None:
    if seconds(text) <= 0:
        raise ContractError(
            f"Expected a half-life longer than 0 s (a window has {STEPS[0]} s to {STEPS[-1] * MOST_STEPS / SECONDS['d']:g}d), "
            f"got `{text}` - at `{where}.half_life`"
        )


class _DeclaredEvents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How events feed a feature, as people write it: durations are text, one type needs no list."""

    aggregate: Aggregate
    type: str | tuple[str, ...] = ()
    property: str | None = None
    window: str | None = None
    half_life: str | None = None
    position: Annotated[int, msgspec.Meta(ge=1, le=20)] | None = None
    where: dict[str, float | str] = {}

    def check(self, kind: str, where: str) -> FromEvents:
        """Raises ContractError where the aggregate and what it is given do not fit."""
        windowed = self.aggregate in ("count", "sum", "distinct")
        given = [name for name in ("window", "half_life") if getattr(self, name) is not None]
        if windowed and (len(given) != 1 or (self.aggregate == "distinct" and given != ["window"])):
            wanted = "`window`" if self.aggregate == "distinct" else "either `window` or `half_life`"
            raise ContractError(f"Expected {wanted} for `{self.aggregate}`, got {', '.join(given) or 'none'} - at `{where}`")
        if not windowed and given:
            raise ContractError(f"Expected no `{given[0]}` for `{self.aggregate}` - at `{where}`")
        if (self.property is not None) != (self.aggregate in ("sum", "recent", "distinct")):
            wanted = "no `property`" if self.property is not None else "a `property`"
            raise ContractError(f"Expected {wanted} for `{self.aggregate}` - at `{where}`")
        if self.position is not None and self.aggregate != "recent":
            raise ContractError(f"Expected no `position` for `{self.aggregate}` - at `{where}`")
        if kind == "category" and self.aggregate != "recent":
            raise ContractError(f"Expected `recent` for a category, got `{self.aggregate}` - at `{where}.aggregate`")
        if self.window is not None:
            _check_window(seconds(self.window), where)
        if self.half_life is not None:
            _check_half_life(self.half_life, where)
        return FromEvents(
            aggregate=self.aggregate, types=(self.type,) if isinstance(self.type, str) else self.type, property=self.property,
            window=None if self.window is None else seconds(self.window),
            half_life=None if self.half_life is None else seconds(self.half_life), position=self.position or 1, where=self.where,
        )  # fmt: skip


class _DeclaredTransactions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The events that are transactions, as people write it."""

    type: str | tuple[str, ...]
    amount: str
    horizon: str = "365d"
    margin: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    discount: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0

    def measured(self, measure: Measure, where: str) -> FromTransactions:
        """Raises ContractError where there is no horizon to look to, or no event to count."""
        types = (self.type,) if isinstance(self.type, str) else self.type
        if not types or (horizon := seconds(self.horizon)) < SECONDS["d"]:
            raise ContractError(
                f"Expected a type of event and a horizon of a day or more, got {types}, `{self.horizon}` - at `{where}`"
            )
        return FromTransactions(measure, types, self.amount, horizon, self.margin, self.discount)


class _DeclaredFeature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A feature as people write it: the age is text with a unit."""

    name: str
    type: Literal["number", "category"]
    origin: Literal["profile", "activity", "value", "attitude", "context", "request_time"]
    default: float | str | None = None
    max_age: str | None = None
    categories: Annotated[tuple[str, ...], msgspec.Meta(max_length=100_000)] = ()
    events: _DeclaredEvents | None = None
    journey: Tells | None = None
    transactions: Measure | None = None
    prediction: str | None = None

    def check(self, where: str, document: "_Document", journey: Journey | None) -> Feature:
        told = None if self.journey is None else self._told(journey, self.journey, where)
        measured = self._derived(where, document.transactions)
        categories = self._vocabulary(told, journey)
        self._check_values(categories, where)
        self._check_origin(where)
        return Feature(
            name=self.name, type=self.type, origin=self.origin, default=self.default,
            max_age=None if self.max_age is None else seconds(self.max_age), categories=categories,
            events=None if self.events is None else self.events.check(self.type, f"{where}.events"), journey=told,
            transactions=measured, prediction=self.prediction,
        )  # fmt: skip

    def _vocabulary(self, told: FromJourney | None, journey: Journey | None) -> tuple[str, ...]:
        """The categories as they were written, or those that follow from what the feature tells."""
        if self.transactions == "rfm_segment":
            return self.categories or SEGMENTS
        if told is not None and journey is not None and told.tells != DAYS_IN_STAGE:
            return self.categories or journey.names
        return self.categories

    def _check_values(self, categories: tuple[str, ...], where: str) -> None:
        if NAME.match(self.name) is None:
            raise ContractError(f"Expected a name of letters, digits and `_`, got `{self.name}` - at `{where}.name`")
        if self.type == "category" and not categories:
            raise ContractError(f"Expected `categories` for a category, got none - at `{where}`")
        if self.type == "number" and isinstance(self.default, str):
            raise ContractError(f"Expected `number`, got `{self.default}` - at `{where}.default`")
        if self.type == "category" and self.default is not None and self.default not in categories:
            raise ContractError(f"Expected one of the categories, got `{self.default}` - at `{where}.default`")
        if len(set(categories)) != len(categories):
            raise ContractError(f"Expected different categories, got one twice - at `{where}.categories`")
        if self.max_age is not None and seconds(self.max_age) <= 0:
            raise ContractError(f"Expected a `max_age` longer than 0 s, got `{self.max_age}` - at `{where}.max_age`")

    def _check_origin(self, where: str) -> None:
        is_live = self.events is not None or self.journey is not None
        derived = is_live or self.transactions is not None or self.prediction is not None
        if derived and self.origin not in CUSTOMER_VIEWS:
            raise ContractError(
                f"Expected an origin among {', '.join(CUSTOMER_VIEWS)}, got `{self.origin}` - at `{where}.origin`"
            )
        if self.origin in CUSTOMER_VIEWS and self.max_age is None and not is_live:
            raise ContractError(f"Expected `max_age` for a customer feature, got none - at `{where}`")

    def _told(self, journey: Journey | None, tells: Tells, where: str) -> FromJourney:
        """What a feature tells of the journey that a home has."""
        if journey is None:
            raise ContractError(f"Expected a journey.yaml beside the features, found none - at `{where}.journey`")
        wanted = "number" if tells == DAYS_IN_STAGE else "category"
        if self.type != wanted:
            raise ContractError(f"Expected a {wanted} for `{tells}`, got a {self.type} - at `{where}.type`")
        for name in ("events", "max_age"):
            if getattr(self, name) is not None:
                raise ContractError(f"Expected no `{name}` beside `journey`: it knows when a stage is over - at `{where}.{name}`")
        for category in self.categories:
            if category not in journey.names:
                known = ", ".join(journey.names)
                raise ContractError(f"Expected stages of the journey ({known}), got `{category}` - at `{where}.categories`")
        return FromJourney(tells, journey.fingerprint)

    def _derived(self, where: str, transactions: _DeclaredTransactions | None) -> FromTransactions | None:
        """What it measures of transactions. Raises ContractError where that, or a prediction, does not fit."""
        given = [name for name in ("events", "journey", "transactions", "prediction") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ContractError(f"Expected one source of values, got `{'`, `'.join(given)}` - at `{where}`")
        wanted = "category" if self.transactions == "rfm_segment" else "number"
        if given in (["transactions"], ["prediction"]) and self.type != wanted:
            raise ContractError(f"Expected `{wanted}`, got `{self.type}` - at `{where}.type`")
        if self.transactions == "rfm_segment" and self.categories and set(self.categories) != set(SEGMENTS):
            raise ContractError(f"Expected the segments {', '.join(SEGMENTS)}, or no `categories` - at `{where}.categories`")
        if self.transactions is None:
            return None
        if transactions is None:
            raise ContractError(f"Expected a section `transactions` that says which events are meant, got none - at `{where}`")
        return transactions.measured(self.transactions, "transactions")


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    features: tuple[_DeclaredFeature, ...]
    transactions: _DeclaredTransactions | None = None


def parse_contract(text: str, where: str = "features.yaml", journey: Journey | None = None) -> Contract:
    """The contract that a feature document declares; `journey`: the one that its features may tell of. Raises ContractError."""
    try:
        document = msgspec.convert(yaml.safe_load(text), _Document)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ContractError(f"{where}: {error}") from error
    features = tuple(f.check(f"{where}: features[{i}]", document, journey) for i, f in enumerate(document.features))
    keys = [f.key for f in features]
    for key in keys:
        if keys.count(key) > 1:
            raise ContractError(f"{where}: Expected different names, got `{key}` twice")
    for one, other in clashing(keys):
        raise ContractError(f"{where}: Expected names that differ in more than their case, got `{one}` and `{other}`")
    return Contract(features, journey)


def clashing(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of different names that are one to whoever ignores upper and lower case, as DuckDB does with columns."""
    known: dict[str, str] = {}
    for name in names:
        if (first := known.setdefault(name.lower(), name)) != name:
            yield first, name


def read_contract(path: Path, journey: Journey | None = None) -> Contract:
    """The contract declared in a file. Raises ContractError, also where the file is missing."""
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ContractError(f"Expected a feature document, found none - at `{path}`") from error
    return parse_contract(text, path.name, journey)


def contract_document(contract: Contract) -> str:
    """The YAML document that declares this contract: the inverse of `parse_contract`, given the same journey."""
    rows = []
    for feature in contract.features:
        row = msgspec.to_builtins(feature)
        if feature.max_age is not None:
            row["max_age"] = duration(feature.max_age)
        row["categories"] = list(feature.categories)
        if feature.events is not None:
            row["events"] = _events_row(feature.events)
        if feature.journey is not None:
            row["journey"] = feature.journey.tells
        if feature.transactions is not None:
            row["transactions"] = feature.transactions.measure
        rows.append({k: v for k, v in row.items() if v not in (None, [])})
    readable = not any(mark in category for f in contract.features for category in f.categories for mark in UNREADABLE)
    sections = {**_transactions_section(contract), "features": rows}
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=readable, width=120)


def _transactions_section(contract: Contract) -> dict[str, object]:
    """Which events are transactions: one answer for all features."""
    for one in (f.transactions for f in contract.features if f.transactions is not None):
        named = {"type": list(one.types), "amount": one.amount, "horizon": duration(one.horizon)}
        return {"transactions": {**named, "margin": one.margin, "discount": one.discount}}
    return {}


def _events_row(source: FromEvents) -> dict[str, object]:
    row: dict[str, object] = {"aggregate": source.aggregate, "type": list(source.types), "property": source.property}
    row |= {name: duration(age) for name in ("window", "half_life") if (age := getattr(source, name)) is not None}
    row |= {"position": source.position if source.aggregate == "recent" else None, "where": dict(source.where)}
    return {key: value for key, value in row.items() if value not in (None, [], {})}


def duration(age: float) -> str:
    """In the longest unit of which it is a whole number: the inverse of `seconds`."""
    unit = next((unit for unit in ("d", "h", "min") if age and age % SECONDS[unit] == 0), None)
    return f"{age:f}s" if unit is None else f"{age / SECONDS[unit]:.0f}{unit}"
