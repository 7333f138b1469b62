"""What a catalog must keep to so that it does what it says once it serves. One that was published before need not: it goes on."""

import math
from collections.abc import Iterable, Mapping

from service.catalog.checking import LARGEST, Place
from service.catalog.entities import Catalog, Weight


def refuse_overflows(catalog: Catalog, places: Mapping[str, Place]) -> None:
    """Values that are beyond all numbers once levers and weights are on them. `places`: of the actions, by id."""
    at_most = _product(catalog.weights)
    for action in catalog.actions:
        if action.id in places and not math.isfinite(action.value * action.lever * at_most):
            factor = action.lever * _product(weight for weight in catalog.weights if action.id in weight.actions)
            if not math.isfinite(action.value * factor):
                _refuse_value(places[action.id], action.lever, factor)


def _product(weights: Iterable[Weight]) -> float:
    """Of all the factors that raise an action."""
    return math.prod([max(weight.factor, 1.0) for weight in weights])


def _refuse_value(place: Place, lever: float, factor: float) -> None:
    what = f"a value of at most {LARGEST / factor:.3g}, on which levers ({lever:g}) and weights ({factor / lever:g}) are put"
    place.entries()["value"].refuse(what)
