"""What a success of each action is worth to us, for this customer, now: values, formulas, context weights, levers."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from features.contract import Contract
from service.catalog.entities import Action, CompiledValue, Scalar, Weight
from service.decision.entities import Batch

Values = npt.NDArray[np.float64]

REMEMBERED = 1024  # distinct sets of weights that apply
HARMLESS = 1e100  # of values whose products with levers, weights and rates nobody has to look at: a float ends at 1.8e308


class _Formula:
    """One formula for all actions that have it."""

    def __init__(self, value: CompiledValue, actions: Sequence[Action], positions: Sequence[int], contract: Contract) -> None:
        self._value = value
        self._positions = np.array(positions, np.intp)
        self._otherwise = np.array([_otherwise(actions[i].formula) for i in positions])
        owned = [{**actions[i].attributes} for i in positions]
        needed = {name.partition(".")[2] for name in value.names if name.startswith("action.")}
        self._action = {name: np.array([_number(own.get(name)) for own in owned]) for name in needed}
        self._read = [name.partition(".") for name in value.names if not name.startswith("action.")]
        self._defaults = {f.key: _number(f.default) for f in contract.features}

    def fill(self, worth: Values, batch: Batch) -> None:
        """Write its columns of float64 (requests, actions)."""
        columns: dict[str, dict[str, Values]] = {"customer": {}, "context": {}}
        for scope, _, name in self._read:
            values = [_number((r.customer.values if scope == "customer" else r.context).get(name)) for r in batch]
            default = self._defaults.get(f"{scope}.{name}", np.nan)
            column = np.array(values)
            columns[scope][name] = np.where(np.isnan(column), default, column)[:, None]
        with np.errstate(all="ignore"):  # what is not finite is missing
            found = self._value.formula(columns["customer"], columns["context"], self._action)
        spread = np.broadcast_to(found, (len(batch), len(self._positions)))
        worth[:, self._positions] = np.where(np.isfinite(spread), spread, self._otherwise)


def _otherwise(formula: CompiledValue | None) -> float:
    return formula.otherwise if formula else 0.0


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < np.inf else np.nan


class WorthTable:
    """Values of a catalog's actions: numbers, or formulas over customer, context and action."""

    def __init__(self, actions: Sequence[Action], contract: Contract) -> None:
        self._fixed = np.array([a.value for a in actions], np.float64)
        together: dict[str, list[int]] = {}
        for position, action in enumerate(actions):
            if action.formula is not None:
                together.setdefault(action.formula.source, []).append(position)
        self._formulas = [_Formula(_formula(actions[p[0]]), actions, p, contract) for p in together.values()]
        self.is_bounded = not self._formulas and all(a.value <= HARMLESS for a in actions)
        """No value is anywhere near to what a float can hold."""

    def values(self, batch: Batch) -> Values:
        """What a success is worth: float64, (requests, actions) or, where it is the same for everybody, (1, actions)."""
        if not self._formulas:
            return self._fixed[None, :]
        worth = np.repeat(self._fixed[None, :], len(batch), axis=0)
        for formula in self._formulas:
            formula.fill(worth, batch)
        return worth


def _formula(action: Action) -> CompiledValue:
    if action.formula is None:
        raise ValueError(f"Expected a formula, got none - at action `{action.id}`")
    return action.formula


class WeightTable:
    """Context weights: the product of the factors whose conditions hold."""

    def __init__(self, weights: Sequence[Weight], actions: Sequence[Action]) -> None:
        self._weights = weights
        self._factors = [np.array([w.factor if a.id in w.actions else 1.0 for a in actions]) for w in weights]
        self._neutral = np.ones(len(actions))
        self._remembered: dict[int, Values] = {}

    def factors(self, batch: Batch) -> Values:
        """float64, (requests, actions) or, where there are no weights, (1, actions)."""
        if not self._weights:
            return self._neutral[None, :]
        return np.stack([self._product(self._holding(r.customer.values, r.context)) for r in batch])

    def _holding(self, customer: Mapping[str, Scalar], context: Mapping[str, Scalar]) -> int:
        """The weights that apply, a bit each."""
        return sum(1 << bit for bit, weight in enumerate(self._weights) if weight.rule.passes(customer, context))

    def _product(self, holding: int) -> Values:
        found = self._remembered.get(holding)
        if found is None:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            factors = [f for bit, f in enumerate(self._factors) if holding >> bit & 1]
            found = self._remembered[holding] = np.prod([self._neutral, *factors], axis=0)
        return found

    def holding(self, customer: Mapping[str, Scalar], context: Mapping[str, Scalar], action: str) -> dict[str, float]:
        """The weights that apply to an action, by name: for an explanation."""
        return {w.name: w.factor for w in self._weights if action in w.actions and w.rule.passes(customer, context)}
