"""Reads the placements of a document: where something is shown, and how it is chosen."""

from collections.abc import Mapping
from typing import cast, get_args

from service.catalog.checking import Place
from service.catalog.entities import FACTORS, PRIMARY, Exploration, Factor, Fallback, Kind, Placement

KINDS: tuple[str, ...] = get_args(Kind)
MOST_SLOTS = 50
MOST_WEIGHT = 1000.0
PLACEMENT_KEYS = ("id", "channel", "slots", "accepts", "explore", "fallback", "factors", "objectives", "repeats")
EXPLORE_KEYS = ("epsilon", "softmax", "floor")
SOFTMAX_KEYS = ("temperature",)
FLOOR_KEYS = ("share", "below")
FALLBACK_KEYS = ("action", "treatment", "kind", "content")


def read_placement(name: str, place: Place) -> Placement:
    """One placement; a placement without a fallback is a mistake."""
    fields = place.fields(PLACEMENT_KEYS, ("id", "channel", "fallback"))
    accepts = tuple(item.choice(KINDS) for item in fields["accepts"].at_least_one()) if "accepts" in fields else KINDS
    return Placement(
        id=name,
        channel=fields["channel"].text() if "channel" in fields else "",
        slots=fields["slots"].whole(1, MOST_SLOTS) if "slots" in fields else 1,
        accepts=cast("tuple[Kind, ...]", accepts),
        fallback=_fallback(fields.get("fallback")),
        explore=_exploration(fields.get("explore")),
        factors=_factors(fields.get("factors")),
        objectives=_objectives(fields.get("objectives")),
        repeats=fields["repeats"].truth() if "repeats" in fields else False,
    )


def _exploration(place: Place | None) -> Exploration:
    fields = place.fields(EXPLORE_KEYS) if place else {}
    softmax = fields["softmax"].fields(SOFTMAX_KEYS, SOFTMAX_KEYS) if "softmax" in fields else {}
    floor = fields["floor"].fields(FLOOR_KEYS, FLOOR_KEYS) if "floor" in fields else {}
    temperature = softmax["temperature"].number(0.0) if "temperature" in softmax else 0.0
    if "temperature" in softmax and temperature == 0.0:
        softmax["temperature"].refuse("a temperature above 0")
    found = Exploration(
        epsilon=_share(fields, "epsilon"), temperature=temperature, floor_share=_share(floor, "share"),
        floor_below=floor["below"].whole(1, 10**9) if "below" in floor else 0,
    )  # fmt: skip
    if place is not None and max(found.epsilon, found.floor_share) <= 1.0 < found.epsilon + found.floor_share:
        place.refuse("`epsilon` and `floor.share` of at most 1 together", f"{found.epsilon + found.floor_share:g}")
    return found


def _share(fields: Mapping[str, Place], key: str) -> float:
    return fields[key].number(0.0, 1.0) if key in fields else 0.0


def _factors(place: Place | None) -> tuple[Factor, ...]:
    if place is None:
        return FACTORS
    return cast("tuple[Factor, ...]", tuple(dict.fromkeys(item.choice(FACTORS) for item in place.items())))


def _objectives(place: Place | None) -> dict[str, float]:
    if place is None:
        return {PRIMARY: 1.0}
    weights = {name: entry.number(0.0, MOST_WEIGHT) for name, entry in place.entries().items()}
    if not any(weights.values()):
        place.refuse("at least one objective with a weight above 0")
    return weights


def _fallback(place: Place | None) -> Fallback:
    fields = place.fields(FALLBACK_KEYS, ("action", "kind")) if place else {}
    action = fields["action"].text() if "action" in fields else ""
    treatment = fields["treatment"].text() if "treatment" in fields else action
    kind = cast("Kind", fields["kind"].choice(KINDS) if "kind" in fields else KINDS[0])
    return Fallback(action, treatment, kind, read_content(fields.get("content")))


def read_content(place: Place | None) -> dict[str, object]:
    """Whatever a front end needs: handed through as it is."""
    return {key: entry.value for key, entry in place.entries().items()} if place else {}
