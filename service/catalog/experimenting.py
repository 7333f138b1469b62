"""Reads experiments: who is in them, and what each arm changes in the document."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple, cast, get_args

from service.catalog.checking import Place, unique
from service.catalog.entities import Ablation, Arm, Catalog, Experiment, Holdout
from service.errors import nearest

ABLATIONS: tuple[str, ...] = get_args(Ablation)
EXPERIMENT_KEYS = ("id", "salt", "share", "arms")
ARM_KEYS = ("id", "weight", "ablation", "bundle", "overrides")
HOLDOUT_KEYS = ("share", "salt")
OWN_IDS = ("holdout", "not_personalised", "canary")  # experiments that the service itself logs
NOT_PERSONALISED_SHARE = 0.01
OVERRIDABLE = (
    "rules", "segments", "issues", "groups", "actions", "placements", "weights", "contact", "constraints", "lever_range",
)  # fmt: skip
BY_NAME = ("weights", "constraints", "caps", "cool_downs", "quiet_hours", "exclusions", "budgets")
LARGEST_WEIGHT = 1_000_000.0
ROUNDING = 1e-9

Build = Callable[[dict[str, Any], Place], Catalog | None]  # (the changed document, where it says so) -> its catalog


class _ReadArm(NamedTuple):
    id: str
    weight: float
    arm: Arm


def read_holdout(place: Place | None) -> Holdout | None:
    """The section `holdout`."""
    return None if place is None else _share(place, "holdout")


def read_not_personalised(place: Place | None) -> Holdout:
    """The section `not_personalised`; without it one customer in a hundred."""
    return Holdout(NOT_PERSONALISED_SHARE, "not_personalised") if place is None else _share(place, "not_personalised")


def _share(place: Place, salt: str) -> Holdout:
    fields = place.fields(HOLDOUT_KEYS, ("share",))
    share = fields["share"].number(0.0, 1.0) if "share" in fields else 0.0
    return Holdout(share, fields["salt"].text() if "salt" in fields else salt)


def read_experiments(place: Place | None, document: Mapping[str, Any], build: Build) -> tuple[Experiment, ...]:
    """The section `experiments`. They share out the customers: nobody is in two at once."""
    items = [(str(item.value.get("id", "")), item) for item in (place.items() if place else []) if item.is_mapping()]
    start, found = 0.0, []
    for _, item in unique(items, "experiment"):
        experiment = _experiment(item, start, document, build)
        start += experiment.share
        found.append(experiment)
    if place is not None and start > 1.0 + ROUNDING:
        place.refuse("shares of at most 1 together", f"{start:g}")
    return tuple(found)


def _experiment(place: Place, start: float, document: Mapping[str, Any], build: Build) -> Experiment:
    fields = place.fields(EXPERIMENT_KEYS, ("id", "share", "arms"))
    name = fields["id"].text() if "id" in fields else ""
    if name in OWN_IDS:
        fields["id"].refuse(f"an id other than {', '.join(f'`{own}`' for own in OWN_IDS)}, which are the service's own")
    arms = list(_arms(fields["arms"], document, build)) if "arms" in fields else []
    total = sum(arm.weight for arm in arms)
    if "arms" in fields and not total > 0.0:
        fields["arms"].refuse("at least one arm with a weight above 0")
    shared = tuple(_with_share(arm, total or 1.0) for arm in arms)
    share = fields["share"].number(0.0, 1.0) if "share" in fields else 0.0
    return Experiment(name, fields["salt"].text() if "salt" in fields else name, start, share, shared)


def _with_share(read: _ReadArm, total: float) -> Arm:
    return Arm(read.id, read.weight / total, read.arm.catalog, read.arm.bundle, read.arm.ablation)


def _arms(place: Place, document: Mapping[str, Any], build: Build) -> Iterator[_ReadArm]:
    items = [(str(item.value.get("id", "")), item) for item in place.at_least_one() if item.is_mapping()]
    for name, item in unique(items, "arm"):
        fields = item.fields(ARM_KEYS, ("id",))
        if "id" in fields:
            fields["id"].new_text()
        weight = fields["weight"].number(0.0, LARGEST_WEIGHT) if "weight" in fields else 1.0
        ablation = cast("Ablation", fields["ablation"].choice(ABLATIONS)) if "ablation" in fields else None
        bundle = fields["bundle"].text() if "bundle" in fields else None
        catalog = _overridden(fields["overrides"], document, build) if "overrides" in fields else None
        yield _ReadArm(name, weight, Arm(name, 0.0, catalog, bundle, ablation))


def _overridden(place: Place, document: Mapping[str, Any], build: Build) -> Catalog | None:
    """The catalog of the document with this laid over it."""
    sections = place.fields(OVERRIDABLE)
    changed = {
        key: deepcopy(value) for key, value in document.items() if key not in ("experiments", "holdout", "not_personalised")
    }
    for key, section in sections.items():
        changed[key] = _laid_over(changed.get(key), section, key)
    return build(changed, place)


def _laid_over(base: Any, over: Place, key: str) -> Any:  # noqa: ANN401  # documents nest freely
    """Mappings are merged; a list of things with ids (or names) takes a mapping by id; anything else is replaced."""
    if isinstance(over.value, Mapping) and isinstance(base, list):
        return _changed_list(base, over, "name" if key in BY_NAME else "id")
    if isinstance(over.value, Mapping) and isinstance(base, Mapping):
        return {**base, **{name: _laid_over(base.get(name), entry, name) for name, entry in over.entries().items()}}
    return over.value


def _changed_list(base: list[Any], over: Place, identity: str) -> list[Any]:
    changes = over.entries()
    known = [str(item[identity]) for item in base if isinstance(item, Mapping) and identity in item]
    for name, entry in changes.items():
        if name not in known:
            entry.refuse(f"a known {identity}{nearest(name, known)}", name)

    def changed(item: Any) -> Any:  # noqa: ANN401  # documents nest freely
        change = changes.get(str(item.get(identity))) if isinstance(item, Mapping) else None
        return item if change is None else _laid_over(item, change, "")

    return [changed(item) for item in base]
