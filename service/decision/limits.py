"""Allowances that shrink while a slate is filled: at most so many items of a unit, for each request of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from service.catalog.entities import Action, Placement
from service.catalog.policies import Selector, Unit

Mask = npt.NDArray[np.bool_]
Units = npt.NDArray[np.intp]
Rows = npt.NDArray[np.intp]

NO_UNIT = -1


@dataclass(frozen=True)
class Scope:
    """Which choices something speaks of, and how it parts them into units.

    All arrays have one more place at the end, for an action or placement that the catalog does not have any more.
    `of_action`: bool (actions + 1,); `of_placement`: bool (placements + 1,); `unit`: its number by action or by placement.
    """

    of_action: Mask
    of_placement: Mask
    unit: Units
    by_placement: bool
    units: int

    @cached_property
    def _is_everything(self) -> bool:
        return bool(self.of_action.all() and self.of_placement.all())

    @property
    def reads_placements(self) -> bool:
        """Whether it matters where something was shown."""
        return self.by_placement or not self._is_everything

    def unit_of(self, action: Units, placement: Units) -> Units:
        """The unit of choices or contacts, NO_UNIT where they are not spoken of."""
        units = self.unit[placement] if self.by_placement else self.unit[action]
        if self._is_everything:
            return units
        return np.where(self.of_action[action] & self.of_placement[placement], units, NO_UNIT)


class ScopeMaker:
    """Works out scopes for one catalog."""

    def __init__(self, actions: Sequence[Action], placements: Sequence[Placement]) -> None:
        self._actions = actions
        self._placements = placements

    def scope(self, where: Selector, per: Unit = "everything") -> Scope:
        """The choices that a selector means, parted by a unit."""
        of_action = [_is_meant(a, where) for a in self._actions]
        of_placement = [_is_here(p, where) for p in self._placements]
        anything = not (where.actions or where.groups or where.issues or where.kinds)
        anywhere = not (where.channels or where.placements)
        names, by_placement = self._names(per)
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        unknown = 0 if per == "everything" else NO_UNIT
        return Scope(
            of_action=np.array([*of_action, anything]), of_placement=np.array([*of_placement, anywhere]),
            unit=np.array([*(numbers[name] for name in names), unknown], np.intp), by_placement=by_placement,
            units=max(1, len(numbers)),
        )  # fmt: skip

    def _names(self, per: Unit) -> tuple[list[str], bool]:
        """The unit's name for each action, or for each placement."""
        match per:
            case "channel":
                return [p.channel for p in self._placements], True
            case "placement":
                return [p.id for p in self._placements], True
            case "everything":
                return [""] * len(self._actions), False
            case "action":
                return [a.id for a in self._actions], False
        return [str(getattr(a, per)) for a in self._actions], False


def _is_meant(action: Action, where: Selector) -> bool:
    pairs = (
        (where.actions, action.id), (where.groups, action.group), (where.issues, action.issue), (where.kinds, action.kind)
    )  # fmt: skip
    return all(not wanted or found in wanted for wanted, found in pairs)


def _is_here(placement: Placement, where: Selector) -> bool:
    pairs = ((where.channels, placement.channel), (where.placements, placement.id))
    return all(not wanted or found in wanted for wanted, found in pairs)


class Limit:
    """So many are left of each unit, for each request: `left` is int (requests, units). Shrinks with every `take`."""

    def __init__(self, name: str, scope: Scope, left: npt.NDArray[np.int64], *, shrinks: bool = True) -> None:
        self.name = name
        self._scope = scope
        self._left = left
        self._shrinks = shrinks
        self._least: int | None = None  # of what is left, where somebody has looked

    @property
    def is_reached(self) -> bool:
        """Whether nothing is left of some unit, for some request."""
        if self._least is None:
            self._least = int(self._left.min(initial=1))
        return self._least <= 0

    def blocks(self, rows: Rows, placement: int) -> Mask:
        """The actions of which no more may be chosen at a placement: bool (rows, actions)."""
        scope = self._scope
        if not scope.of_placement[placement]:
            return np.zeros((len(rows), len(scope.of_action) - 1), np.bool_)
        if scope.by_placement:
            here: Mask = self._left[rows, scope.unit[placement]] <= 0
            return here[:, None] & scope.of_action[None, :-1]
        used_up: Mask = self._left[rows][:, scope.unit[:-1]] <= 0
        return used_up & scope.of_action[:-1]

    def take(self, rows: Rows, chosen: Units, placement: int) -> None:
        """One more of these actions (one per row) was chosen."""
        if not self._shrinks:
            return
        units = self._scope.unit_of(chosen, np.full(len(chosen), placement))
        counted = units != NO_UNIT
        self._left[rows[counted], units[counted]] -= 1
        self._least = None
