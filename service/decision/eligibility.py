"""Which actions may be offered to a customer now, and which rule removed the others.

Actions share rules, and customers share outcomes of rules: each distinct rule is evaluated once per request, and what a set
of failed rules leaves is worked out once.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import NamedTuple

import numpy as np

from service.catalog.entities import Action, CompiledRule, Scalar
from service.decision.arbitration import Allowed

ACTIVE_DATES = "active_dates"  # reason code: outside the action's dates
REMEMBERED = 4096  # distinct outcomes kept; beyond them the memory starts anew: 100 bytes and one row of bools each


class Eligible(NamedTuple):
    """What the rules leave: bool (actions,), and the action ids that each failed rule removed first."""

    allowed: Allowed
    dropped: dict[str, tuple[str, ...]]


class EligibilityTable:
    """The rules of a catalog, turned inside out: from rules per action to actions per rule. Sets of actions are bit sets."""

    def __init__(self, actions: Sequence[Action]) -> None:
        self._ids = tuple(a.id for a in actions)
        self._rules: list[CompiledRule] = []
        self._owners: list[int] = []
        self._index_rules(actions)
        self._spans = [(a.active_from, a.active_until) for a in actions]
        self._boundaries = sorted({edge for span in self._spans for edge in span if edge is not None})
        self._remembered: dict[tuple[int, int], Eligible] = {}

    def _index_rules(self, actions: Sequence[Action]) -> None:
        position: dict[str, int] = {}
        for bit, action in enumerate(actions):
            for rule in action.rules:
                index = position.setdefault(rule.key, len(self._rules))
                if index == len(self._rules):
                    self._rules.append(rule)
                    self._owners.append(0)
                self._owners[index] |= 1 << bit

    @property
    def needs(self) -> frozenset[str]:
        """Every key that some rule reads."""
        return frozenset(key for rule in self._rules for key in rule.needs)

    def eligible(self, customer: Mapping[str, Scalar], context: Mapping[str, Scalar], at: float) -> Eligible:
        """The actions that every rule allows. `at`: seconds since 1970 UTC. The result is shared: do not write to it."""
        failed = 0
        for bit, rule in enumerate(self._rules):
            if not rule.passes(customer, context):
                failed |= 1 << bit
        case = (failed, bisect_right(self._boundaries, at))
        found = self._remembered.get(case)
        if found is None:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            found = self._remembered[case] = self._work_out(failed, at)
        return found

    def _work_out(self, failed: int, at: float) -> Eligible:
        inactive = reduce(or_, (1 << bit for bit, span in enumerate(self._spans) if not _active(span, at)), 0)
        removed, dropped = inactive, {}
        if inactive:
            dropped[ACTIVE_DATES] = self._names(inactive)
        for bit, rule in enumerate(self._rules):
            newly = self._owners[bit] & ~removed if failed >> bit & 1 else 0
            if newly:
                dropped[rule.name] = dropped.get(rule.name, ()) + self._names(newly)
                removed |= newly
        allowed = np.array([not removed >> bit & 1 for bit in range(len(self._ids))], np.bool_)
        allowed.setflags(write=False)
        return Eligible(allowed, dropped)

    def _names(self, bits: int) -> tuple[str, ...]:
        return tuple(name for bit, name in enumerate(self._ids) if bits >> bit & 1)


def _active(span: tuple[float | None, float | None], at: float) -> bool:
    start, end = span
    return (start is None or start <= at) and (end is None or at < end)
