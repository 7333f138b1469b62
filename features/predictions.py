"""Predictions that are kept as features: `predictions.yaml` says what each tells of the time after a moment, and of whom.

    predictions:
      churn_risk:     {label: {none_of: purchased, within: 30d}, among: {any_of: purchased, within: 180d}}
      expected_value: {label: {sum: purchased.amount, within: 30d}}

`none_of` and `any_of` events are rates, `count` and `sum` are values; `objective` is an outcome of our decisions, or
`value:OUTCOME`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import yaml

from features.contract import NAME, SECONDS, Contract, ContractError, seconds
from features.event_types import EventTypes, check_amount, home_event_types
from features.homes import features_folder
from features.live import CHANNEL

Kind = Literal["none_of", "any_of", "count", "sum", "objective"]
KINDS: tuple[Kind, ...] = ("none_of", "any_of", "count", "sum", "objective")
VALUE = "value:"  # of an objective


class Label(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happens in the time after a moment: `within` seconds of it, events of `types`, those with the properties `where`."""

    kind: Kind
    within: float
    types: tuple[str, ...] = ()
    amount: str | None = None  # the property that a sum adds up
    objective: str | None = None
    where: dict[str, float | str] = {}

    @property
    def is_value(self) -> bool:
        """Whether it is a number of 0 and above; otherwise it is true or not."""
        return self.kind in ("count", "sum") or (self.objective or "").startswith(VALUE)


class Prediction(msgspec.Struct, frozen=True, omit_defaults=True):
    """A label, and of which customers: those with something like `among` (any_of) before the moment; everybody, where None."""

    name: str
    label: Label
    among: Label | None = None


class _DeclaredLabel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    within: str
    none_of: str | tuple[str, ...] | None = None
    any_of: str | tuple[str, ...] | None = None
    count: str | tuple[str, ...] | None = None
    sum: str | None = None
    objective: str | None = None
    where: dict[str, float | str] = {}

    def check(self, where: str) -> Label:
        """Raises ContractError where it does not say one thing about a time."""
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ContractError(f"Expected one of {', '.join(KINDS)}, got {', '.join(given) or 'none'} - at `{where}`")
        if (within := seconds(self.within)) < SECONDS["h"]:
            raise ContractError(f"Expected an hour or more, got `{self.within}` - at `{where}.within`")
        [kind], said = given, getattr(self, given[0])
        if kind == "objective":
            if self.where:
                raise ContractError(f"Expected no `where` for an objective - at `{where}`")
            return Label(kind, within, objective=said)
        amount = None
        if kind == "sum":
            said, dot, amount = said.partition(".")
            if not dot:
                raise ContractError(
                    f"Expected an event and its property, such as `purchased.amount`, got `{said}` - at `{where}.sum`"
                )
        return Label(kind, within, (said,) if isinstance(said, str) else said, amount, where=self.where)


class _DeclaredPrediction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    label: _DeclaredLabel
    among: _DeclaredLabel | None = None

    def check(self, name: str, where: str) -> Prediction:
        if NAME.match(name) is None:
            raise ContractError(f"Expected a name of letters, digits and `_`, got `{name}` - at `{where}`")
        among = None if self.among is None else self.among.check(f"{where}.among")
        if among is not None and among.kind != "any_of":
            raise ContractError(f"Expected `any_of`, got `{among.kind}` - at `{where}.among`")
        return Prediction(name, self.label.check(f"{where}.label"), among)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    predictions: dict[str, _DeclaredPrediction]


def parse_predictions(text: str, where: str = "predictions.yaml") -> dict[str, Prediction]:
    """The predictions that a document declares, by name. Raises ContractError."""
    try:
        document = msgspec.convert(yaml.safe_load(text), _Document)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ContractError(f"{where}: {error}") from error
    return {name: one.check(name, f"{where}: {name}") for name, one in document.predictions.items()}


def home_predictions(home: Path, contract: Contract) -> dict[str, Prediction]:
    """Those of a home; none without a document. Raises ContractError where they, events and features do not fit together."""
    path = features_folder(home) / "predictions.yaml"
    found = parse_predictions(path.read_text(), path.name) if path.exists() else {}
    check_predictions(found, home_event_types(home, contract), contract)
    return found


def check_predictions(predictions: Mapping[str, Prediction], types: EventTypes, contract: Contract) -> None:
    """Raises ContractError where a label names events that are not declared, or a feature a prediction that is not."""
    for one in predictions.values():
        for label in (one.label, *([] if one.among is None else [one.among])):
            where = f"predictions.yaml: `{one.name}`"
            check_amount(types, label.types, label.amount, where)
            for kind in label.types:
                for name in label.where:
                    if name != CHANNEL and name not in types.types[kind].properties:
                        raise ContractError(f"Expected a declared property of `{kind}`, got `{name}` - at {where}")
    for feature in contract.features:
        if feature.prediction is not None and feature.prediction not in predictions:
            known = ", ".join(f"`{name}`" for name in predictions) or "none"
            raise ContractError(
                f"Expected a prediction of predictions.yaml ({known}), got `{feature.prediction}` - at features.yaml: "
                f"`{feature.name}`"
            )
