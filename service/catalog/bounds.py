"""What a catalog must keep to so that it does what it says once it serves. One that was published before need not: it goes on."""

import math
from collections.abc import Callable, Iterable, Mapping

from service.catalog.checking import LARGEST, Place
from service.catalog.entities import Catalog, Weight
from service.catalog.policies import KEPT_CONTACTS

OWN_REASONS = (
    "active_dates", "excluded_by_request", "holdout", "no_contact_history", "not_requested", "not_shown_here", "shown_elsewhere",
)  # fmt: skip


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


def refuse_alike(places: Mapping[str, Place], hashed: Callable[[str], int]) -> None:
    """Ids that look the same to who counts contacts: a cap of one would count the other."""
    first: dict[int, str] = {}
    for name, place in places.items():
        other = first.setdefault(hashed(name), name)
        if other != name:
            place.entries()["id"].refuse(f"an id that contacts tell from `{other}` by its hash: change one of the two")


def refuse_one_split(catalog: Catalog, top: Mapping[str, Place]) -> None:
    """Salts that are the same: who is in the one part would decide who is in the other. `top`: the sections."""
    parts = {"not_personalised": catalog.not_personalised, "holdout": catalog.holdout}
    salts = {name: part.salt for name, part in parts.items() if part is not None}
    salts |= {experiment.id: experiment.salt for experiment in catalog.experiments if experiment.id not in parts}
    first: dict[str, str] = {}
    for name, salt in salts.items():
        other = first.setdefault(salt, name)
        if other != name:
            place = top[name if name in parts else "experiments"]
            place.refuse(f"a salt for `{name}` that `{other}` does not have: they have to be independent", salt)


def refuse_shared_names(catalog: Catalog, top: Mapping[str, Place]) -> None:
    """Contact policy and constraints called as a rule or a reason of the service: a reason has to say which it is."""
    taken = {rule.name: "no rule has" for action in catalog.actions for rule in action.rules}
    taken |= {rule.name: "no rule has" for action in catalog.actions for t in action.treatments for rule in t.rules}
    taken |= dict.fromkeys(OWN_REASONS, "the service itself has not")
    policy = top["contact"].entries() if "contact" in top and isinstance(top["contact"].value, Mapping) else {}
    for section, place in {**policy, "constraints": top.get("constraints")}.items():
        for entry in place.items() if place is not None and isinstance(place.value, list) else ():
            name = entry.value.get("name") if isinstance(entry.value, Mapping) else None
            here = f"nothing in `{section}` has"
            if isinstance(name, str) and taken.setdefault(name, here) != here:
                entry.entries()["name"].refuse(f"a name that {taken[name]}")


def refuse_beyond_kept(catalog: Catalog, contact: Place | None) -> None:
    """Caps that nobody would ever reach, since fewer contacts of a customer are kept. `contact`: the section."""
    names = {cap.name for cap in catalog.contact.caps if cap.at_most > KEPT_CONTACTS}
    for cap in contact.entries()["caps"].items() if contact is not None and names else ():
        if isinstance(cap.value, Mapping) and cap.value.get("name") in names:
            most = f"a number of at most {KEPT_CONTACTS}, which is how many contacts of a customer are kept"
            cap.entries()["at_most"].refuse(most)
