"""What would have made rules pass: the fewest and nearest values of a customer or a context, found by trying.

For each value that the rules read there is a pool of others worth a try: literals it is compared with and their neighbours,
other categories, and the points along it where a comparison turns. One value after the other is tried, then pairs, and so on.
"""

import ast
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, islice, pairwise, product
from typing import NamedTuple, cast

import msgspec

from service.catalog.entities import CompiledRule, Condition, Scalar
from service.decision.conditions import Known, comparison_holds, failing_names, holds, known_values, names_in, shown

Changes = dict[str, float | str]

WIDTHS = (80, 40, 12, 6, 4)  # of the pools, for one value, two, ...: bounds the tries to some ten thousand, about 50 ms
REACHES = (0.0, 1.0, -1.0, 2.0, 10.0, 30.0, 100.0, 365.0, 1e3, 1e4, 1e6, 1e9)  # where a search along a number looks
STEPS = (0.0, 1.0, -1.0, 0.5, -0.5)
BISECTIONS = 60
MOST_DIGITS = 6


class Flip(msgspec.Struct, frozen=True):
    """One value that would have to be another. `was` is None where it is missing."""

    name: str  # `customer.tenure_days`
    to: float | str
    was: Scalar = None

    @property
    def text(self) -> str:
        """`customer.tenure_days = 180, was 12`."""
        return f"{self.name} = {shown(self.to)}, was {shown(self.was)}"


def smallest_flip(
    rules: Sequence[CompiledRule], customer: Mapping[str, Scalar], context: Mapping[str, Scalar]
) -> list[Flip] | None:
    """The fewest and nearest values that make every rule pass; None where nothing was found that does."""
    known = known_values(customer, context)
    parts = [p for r in rules if r.condition is not None for p in _conjuncts(cast("ast.expr", r.condition.tree), r.condition)]
    changes: Changes = {}
    for together in _sharing_names(parts):
        found = _solved(together, known)
        if found is None:
            return None
        changes |= found
    return [Flip(name, to, known.get(name)) for name, to in changes.items()]


class _Part(NamedTuple):
    """One condition of several that must all hold."""

    tree: ast.expr
    condition: Condition


def _conjuncts(tree: ast.expr, condition: Condition) -> Iterator[_Part]:
    if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And):
        for value in tree.values:
            yield from _conjuncts(value, condition)
    else:
        yield _Part(tree, condition)


def _sharing_names(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Groups of parts that have no name in common with another group: each can be solved alone."""
    groups: list[tuple[set[str], list[_Part]]] = []
    for part in parts:
        names, members = set(names_in(part.tree)), [part]
        for other in [group for group in groups if group[0] & names]:
            groups.remove(other)
            names, members = names | other[0], [*other[1], *members]
        groups.append((names, members))
    return sorted((members for _, members in groups), key=lambda members: parts.index(members[0]))


def _solved(parts: Sequence[_Part], known: Known) -> Changes | None:
    """The smallest changes after which all the parts hold."""

    def passes(changes: Changes) -> bool:
        now = {**known, **changes}
        return all(holds(part.tree, part.condition, now) for part in parts)

    if passes({}):
        return {}
    names = _by_guilt(parts, known)
    pools = {name: _pool(name, parts, known) for name in names}
    for count, width in enumerate(WIDTHS[: len(names)], 1):
        tries = (
            dict(zip(some, values, strict=True))
            for some in combinations(names, count)
            for values in product(*(pools[name][:width] for name in some))
        )
        best = min((c for c in tries if passes(c)), key=lambda changes: _cost(changes, known), default=None)
        if best is not None:
            return _pulled_together(best, known, passes)
    return None


def _by_guilt(parts: Sequence[_Part], known: Known) -> list[str]:
    """Every name that is read, those of failing comparisons first."""
    guilty = (name for p in parts for name in failing_names(p.tree, p.condition, known))
    others = (name for p in parts for name in names_in(p.tree))
    return list(dict.fromkeys([*guilty, *others]))


def _cost(changes: Changes, known: Known) -> tuple[int, float]:
    """How far the values move, relative to what they were; halves of steps only where whole ones do not do."""
    odd = sum(isinstance(to, float) and not to.is_integer() for to in changes.values())
    return odd, sum(_distance(known.get(name), to) for name, to in changes.items())


def _distance(was: Scalar, to: float | str) -> float:
    if isinstance(to, int | float):
        before = float(was) if isinstance(was, int | float) else 0.0
        return abs(to - before) / (1.0 + abs(before))
    return 1.0


def _pool(name: str, parts: Sequence[_Part], known: Known) -> list[float | str]:
    """Values to try for one name: those at which a comparison turns, then others; of each the nearest first."""
    comparisons = [(node, part.condition) for part in parts for node in _comparisons(name, part.tree)]
    texts = [t for node, c in comparisons for t in (*_literals(node), *c.categories.get(name, ())) if isinstance(t, str)]
    if texts:
        return list(dict.fromkeys([*texts, "another"]))
    numbers = {float(v) for node, c in comparisons for v in (*_literals(node), *c.values.values()) if isinstance(v, int | float)}
    own = [float(v) for v in (known.get(name), *(c.defaults.get(name) for _, c in comparisons)) if isinstance(v, int | float)]
    grid = {number + step for number in numbers for step in STEPS}
    grid |= {base + sign * reach for base in (own or [0.0]) for reach in REACHES for sign in (1, -1)}
    turns = {turn for node, c in comparisons for turn in _turns(name, node, c, known, sorted(grid))}
    before = own[0] if own else 0.0
    nearest: list[float] = sorted(grid | turns, key=lambda value: (value not in turns, abs(value - before), value))
    return [*nearest]


def _comparisons(name: str, tree: ast.expr) -> Iterator[ast.Compare]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and name in names_in(node):
            yield node


def _literals(node: ast.AST) -> list[object]:
    """Every literal of a comparison, with its sign."""
    found = []
    for part in ast.walk(node):
        if isinstance(part, ast.Constant | ast.UnaryOp):
            try:
                found.append(ast.literal_eval(part))
            except ValueError:
                continue
    return found


def _turns(name: str, node: ast.Compare, condition: Condition, known: Known, grid: Sequence[float]) -> Iterator[float]:
    """Where a comparison turns along a number: the nearest values on either side of it."""

    def true_at(value: float) -> bool:
        return comparison_holds(node, condition, {**known, name: value})

    truths = [true_at(value) for value in grid]
    for (left, before), (right, after) in islice(pairwise(zip(grid, truths, strict=True)), len(grid)):
        if before != after:
            yield from _bisected(left, right, true_at)


def _bisected(left: float, right: float, true_at: Callable[[float], bool]) -> tuple[float, float]:
    before = true_at(left)
    for _ in range(BISECTIONS):
        middle = (left + right) / 2
        left, right = (middle, right) if true_at(middle) == before else (left, middle)
    return left, right


def _pulled_together(changes: Changes, known: Known, passes: Callable[[Changes], bool]) -> Changes:
    """Each number as near to what it was, and as round, as the rules allow."""
    found = dict(changes)
    for name, to in changes.items():
        was = known.get(name)

        def true_at(value: float, name: str = name) -> bool:
            return passes({**found, name: value})

        if isinstance(to, float) and isinstance(was, int | float):
            found[name] = _rounded(float(was), to, true_at)
    return found


def _rounded(was: float, to: float, true_at: Callable[[float], bool]) -> float:
    near, far = was, to
    for _ in range(BISECTIONS):
        middle = (near + far) / 2
        near, far = (near, middle) if true_at(middle) else (middle, far)
    for digits in range(MOST_DIGITS):
        for rounded in (math.ceil(far * 10**digits) / 10**digits, math.floor(far * 10**digits) / 10**digits):
            if true_at(rounded):
                return float(rounded)
    return far
