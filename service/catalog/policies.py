"""How often we speak, when we stay silent, and what a slate may hold: rules about several contacts at once, as records."""

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

Unit = Literal["action", "group", "issue", "kind", "channel", "placement", "everything"]

UNITS: tuple[str, ...] = get_args(Unit)
DECISIONS, IMPRESSIONS, OUTCOMES = "decisions", "impressions", "outcomes"  # what a cap counts; else one type of outcome
KEPT_CONTACTS = 384  # of each customer, at least: what a cap can count
RESERVATION_S = 900.0  # how long a decision counts as an impression that may still come


class Selector(msgspec.Struct, frozen=True):
    """Some contacts, and the choices that would add to them. Empty: all."""

    actions: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    issues: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    placements: tuple[str, ...] = ()


EVERYTHING = Selector()


class Cap(msgspec.Struct, frozen=True):
    """At most so many contacts per unit in the last `window` seconds."""

    name: str
    at_most: int
    per: Unit
    window: float
    count: str
    where: Selector = EVERYTHING


class CoolDown(msgspec.Struct, frozen=True):
    """Silent for `silent` seconds after the `times`-th outcome of a type within `within` seconds."""

    name: str
    after: str
    times: int
    within: float
    silent: float
    per: Unit
    where: Selector = EVERYTHING


class QuietHours(msgspec.Struct, frozen=True):
    """No contact between two hours of the customer's day; `start` may be after `end`, over midnight."""

    name: str
    start: float  # hours, 0 to 24
    end: float
    where: Selector = EVERYTHING


class Exclusion(msgspec.Struct, frozen=True):
    """Whoever got one of these actions in the last `window` seconds is not offered the others."""

    name: str
    actions: tuple[str, ...]
    after: str
    window: float


class Budget(msgspec.Struct, frozen=True):
    """At most so many contacts of one action with all customers together, in total or per UTC day."""

    name: str
    action: str
    at_most: int
    per_day: bool
    count: str


Counted = tuple[str, str, bool, str]


def counted_as(budget: Budget) -> Counted:
    """What budgets that count the same have in common: the catalog's and an arm's may differ in what they allow alone."""
    return budget.name, budget.action, budget.per_day, budget.count


def counted_once(budgets: Iterable[Budget]) -> tuple[Budget, ...]:
    """One of those that count the same."""
    return tuple({counted_as(budget): budget for budget in budgets}.values())


class ContactPolicy(msgspec.Struct, frozen=True):
    """Everything that depends on what a customer, or all customers, were shown before."""

    caps: tuple[Cap, ...] = ()
    cool_downs: tuple[CoolDown, ...] = ()
    quiet_hours: tuple[QuietHours, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    budgets: tuple[Budget, ...] = ()
    reservation: float = RESERVATION_S

    @property
    def reads_history(self) -> bool:
        return bool(self.caps or self.cool_downs or self.exclusions)

    @property
    def longest_window(self) -> float:
        """Seconds after which no contact matters any more."""
        windows = [*(c.window for c in self.caps), *(e.window for e in self.exclusions), self.reservation]
        return max(windows + [c.silent + c.within for c in self.cool_downs])


class Purpose(msgspec.Struct, frozen=True):
    """What a customer may consent to. `given`: where they never said; `profile`: needed for knowing them at all.

    `needed_for` are the contacts that are not made without it.
    """

    name: str
    given: bool = False
    profile: bool = False
    needed_for: tuple[Selector, ...] = ()


class Constraint(msgspec.Struct, frozen=True):
    """Of the items of one answer, at most a number or a share may be of this kind; or at least a share must be."""

    name: str
    where: Selector
    at_most: int | None = None
    at_most_share: float | None = None
    at_least_share: float | None = None
