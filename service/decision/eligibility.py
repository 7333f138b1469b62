"""Which actions may be offered to a customer now, and which rule removed the others.

Actions share rules, and customers share outcomes of rules: each distinct rule is evaluated once per request, and what a set
of failed rules leaves is worked out once.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, reduce
from operator import or_
from typing import NamedTuple

import numpy as np

from service.catalog.compiling import compile_failing
from service.catalog.entities import Action, CompiledRule, Placement, Scalar, Treatment
from service.decision.limits import Mask

ACTIVE_DATES = "active_dates"  # reason code: outside the action's dates
NOT_SHOWN_HERE = "not_shown_here"  # reason code: no treatment for this placement, or a kind it does not accept
NOTHING_MISSING: frozenset[str] = frozenset()
REMEMBERED = 4096  # distinct outcomes kept; beyond them the memory starts anew: 100 bytes and one row of bools each
PAID_AFTER = 400  # requests after which it has paid to compile the rules into one function
MOST_TOGETHER = 400  # rules that are: meanwhile nobody is answered, 1.8 ms for 100 of them and 12 ms for 400

Failing = Callable[[Mapping[str, Scalar], Mapping[str, Scalar]], int]  # (customer, context) -> the rules that fail, a bit each


class Eligible(NamedTuple):
    """What the rules leave: bool (actions,), and the action ids that each failed rule removed first. `failed`: a bit a rule."""

    allowed: Mask
    dropped: dict[str, tuple[str, ...]]
    failed: int


class Shown(NamedTuple):
    """What a placement can show of each action: bool (actions,), the treatments, and why not."""

    mask: Mask
    treatments: tuple[Treatment | None, ...]
    dropped: dict[str, Mask]


class RuleTable:
    """The rules of a catalog, turned inside out: from rules per action to actions per rule. Sets of actions are bit sets."""

    def __init__(self, actions: Sequence[Action]) -> None:
        self._ids = tuple(a.id for a in actions)
        self._rules: list[CompiledRule] = []
        self._needs: list[tuple[tuple[str, bool, str], ...]] = []  # of each rule: qualified name, whether a customer's, name
        self._position: dict[str, int] = {}
        self._runs = self._runs_of(actions)
        self._spans = [(a.active_from, a.active_until) for a in actions]
        self._boundaries = sorted({edge for span in self._spans for edge in span if edge is not None})
        self._inactive: dict[int, int] = {}  # actions outside their dates, by how many boundaries are passed
        self._asked = 0
        self._failing: Failing | None = None  # the rules that have a body, as one function
        self._others: Sequence[tuple[int, CompiledRule]] = ()  # those that have none, with their bits
        self._remembered: dict[tuple[int, frozenset[str], int], Eligible] = {}
        self._names = lru_cache(REMEMBERED)(self._spelt_out)  # what a rule removes first is often all that it removes

    def _index(self, rule: CompiledRule) -> int:
        index = self._position.setdefault(rule.key, len(self._rules))
        if index == len(self._rules):
            self._rules.append(rule)
            self._needs.append(tuple((name, *_where(name)) for name in rule.needs))
            self._asked, self._failing = 0, None
        return index

    def _runs_of(self, actions: Sequence[Action]) -> list[tuple[int, dict[int, int]]]:
        """Which actions have a rule, by rule, and those rules as bits.

        Rules are looked at in the order of their bits, which is that of an action's own unless others have two of them the other
        way round: what comes after such a turn lies in a run of its own, which is looked at afterwards.
        """
        runs: list[dict[int, int]] = []
        for bit, action in enumerate(actions):
            run, before = 0, -1
            for rule in action.rules:
                index = self._index(rule)
                run, before = run + (index < before), index
                if run == len(runs):
                    runs.append({})
                runs[run][index] = runs[run].get(index, 0) | 1 << bit
        return [(reduce(or_, (1 << index for index in owners), 0), owners) for owners in runs]

    def bits(self, rules: Iterable[CompiledRule]) -> int:
        """Take in rules that are no action's own; a set of them, a bit each, as in `Eligible.failed`."""
        return reduce(or_, (1 << self._index(rule) for rule in rules), 0)

    def eligible(self, customer: Mapping[str, Scalar], context: Mapping[str, Scalar], at: float) -> Eligible:
        """The actions that every rule allows. `at`: seconds since 1970 UTC. The result is shared: do not write to it."""
        failed = self._failed(customer, context)
        missing = [
            name
            for bit in bits_of(failed)
            for name, of_customer, feature in self._needs[bit]
            if (customer if of_customer else context).get(feature) is None
        ]
        case = (failed, frozenset(missing) if missing else NOTHING_MISSING, bisect_right(self._boundaries, at))
        found = self._remembered.get(case)
        if found is None:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            if case[2] not in self._inactive:
                self._inactive[case[2]] = reduce(or_, (1 << n for n, span in enumerate(self._spans) if not _active(span, at)), 0)
            found = self._remembered[case] = self._work_out(failed, case[1], self._inactive[case[2]])
        return found

    def _failed(self, customer: Mapping[str, Scalar], context: Mapping[str, Scalar]) -> int:
        """The rules that fail, a bit each."""
        if self._failing is None:
            self._asked += 1
            if self._asked == PAID_AFTER and len(self._rules) <= MOST_TOGETHER:
                bodied = {bit: rule for bit, rule in enumerate(self._rules) if rule.body}
                self._others = [(bit, rule) for bit, rule in enumerate(self._rules) if not rule.body]
                self._failing = compile_failing(bodied)
            return _failed(enumerate(self._rules), customer, context)
        return self._failing(customer, context) | _failed(self._others, customer, context)

    def _work_out(self, failed: int, missing: frozenset[str], inactive: int) -> Eligible:
        removed, dropped = inactive, {}
        if inactive:
            dropped[ACTIVE_DATES] = self._names(inactive)
        first: dict[int, int] = {}  # by rule: the actions of whose rules that fail it is the first
        for rules, owners in self._runs:
            for bit in bits_of(failed & rules):
                newly = owners[bit] & ~removed
                if newly:
                    first[bit] = first.get(bit, 0) | newly
                    removed |= newly
        for bit in sorted(first):
            reason = _reason(self._rules[bit], missing)
            dropped[reason] = dropped.get(reason, ()) + self._names(first[bit])
        size = len(self._ids)
        bits = np.frombuffer(removed.to_bytes((size + 7) // 8, "little"), np.uint8)
        allowed = np.unpackbits(bits, count=size, bitorder="little") == 0
        allowed.setflags(write=False)
        return Eligible(allowed, dropped, failed)

    def _spelt_out(self, bits: int) -> tuple[str, ...]:
        return tuple(self._ids[bit] for bit in bits_of(bits))


def _failed(
    rules: Iterable[tuple[int, CompiledRule]], customer: Mapping[str, Scalar], context: Mapping[str, Scalar]
) -> int:  # fmt: skip
    failed = 0
    for bit, rule in rules:
        if not rule.passes(customer, context):
            failed |= 1 << bit
    return failed


class TreatmentTable:
    """The treatments of one placement: the first whose rules pass is shown."""

    def __init__(self, placement: Placement, actions: Sequence[Action], rules: RuleTable) -> None:
        self._options = [_options(placement, action, rules) for action in actions]
        self._ruled = reduce(or_, (bits for options in self._options for _, bits in options), 0)
        self._rules = rules
        self._remembered: dict[int, Shown] = {}

    def shown(self, failed: int) -> Shown:
        """What can be shown where these rules failed. The result is shared: do not write to it."""
        case = failed & self._ruled
        found = self._remembered.get(case)
        if found is None:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            found = self._remembered[case] = self._work_out(case)
        return found

    def _work_out(self, failed: int) -> Shown:
        treatments = tuple(next((t for t, bits in options if not failed & bits), None) for options in self._options)
        mask = np.array([t is not None for t in treatments], np.bool_)
        mask.setflags(write=False)
        return Shown(mask, treatments, {reason: np.array(hit) for reason, hit in self._reasons(treatments, failed).items()})

    def _reasons(self, treatments: Sequence[Treatment | None], failed: int) -> dict[str, list[bool]]:
        found: dict[str, list[bool]] = {}
        for position, (treatment, options) in enumerate(zip(treatments, self._options, strict=True)):
            if treatment is None:
                rules = options[0][0].rules if options else ()
                reason = next((rule.name for rule in rules if self._rules.bits([rule]) & failed), NOT_SHOWN_HERE)
                found.setdefault(reason, [False] * len(treatments))[position] = True
        return found


def bits_of(bits: int) -> Iterator[int]:
    """The numbers of the bits that are set, lowest first."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _options(placement: Placement, action: Action, rules: RuleTable) -> list[tuple[Treatment, int]]:
    """The treatments that fit, each with the bits of its rules."""
    if action.kind not in placement.accepts:
        return []
    return [(t, rules.bits(t.rules)) for t in action.treatments if placement.id in t.placements]


def _reason(rule: CompiledRule, missing: frozenset[str]) -> str:
    """`is_loyal`, or `is_loyal (missing customer.tenure_days)`."""
    absent = [name for name in rule.needs if name in missing]
    return f"{rule.name} (missing {', '.join(absent)})" if absent else rule.name


def _where(name: str) -> tuple[bool, str]:
    """Whether a value is the customer's (or else the context's), and its name there."""
    scope, _, feature = name.partition(".")
    return scope == "customer", feature


def _active(span: tuple[float | None, float | None], at: float) -> bool:
    start, end = span
    return (start is None or start <= at) and (end is None or at < end)
