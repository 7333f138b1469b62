"""What would have made a rule pass: the smallest change of a customer's or a context's values, found in the rule's own tree.

A comparison that is false becomes true when one value in it moves: to a literal that it is compared with, to another
category, or, where arithmetic is in the way, as far as a search along that value has to go.
"""

import ast
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import cast

import msgspec

from service.catalog.entities import CompiledRule, Condition, Scalar
from service.decision.conditions import Known, comparison_holds, known_values, names_in, shown

Changes = dict[str, float | str]

MOST_OPTIONS = 40  # ways to make one condition true that are looked at; the smallest come first
REACHES = (0.0, 1.0, -1.0, 2.0, 10.0, 30.0, 100.0, 365.0, 1e3, 1e4, 1e6, 1e9)  # where a search along a number looks
STEPS = (0.0, 1.0, -1.0)
BISECTIONS = 60


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
    conditions = [rule.condition for rule in rules if rule.condition is not None]
    known = known_values(customer, context)
    parts = [list(islice(_ways(cast("ast.expr", c.tree), c, known, wanted=True), MOST_OPTIONS)) for c in conditions]
    best: Changes | None = None
    for option in islice(product(*parts), MOST_OPTIONS * MOST_OPTIONS):
        merged: Changes = {}
        for changes in option:
            merged |= changes
        if (best is None or _cost(merged, known) < _cost(best, known)) and _all_pass(rules, known, merged):
            best = merged
    return None if best is None else [Flip(name, to, known.get(name)) for name, to in best.items()]


def _all_pass(rules: Sequence[CompiledRule], known: Known, changes: Changes) -> bool:
    changed = {**known, **changes}
    customer = {k.removeprefix("customer."): v for k, v in changed.items() if k.startswith("customer.")}
    context = {k.removeprefix("context."): v for k, v in changed.items() if k.startswith("context.")}
    return all(rule.passes(customer, context) for rule in rules)


def _cost(changes: Changes, known: Known) -> tuple[int, float]:
    """How many values change, then how far they move relative to what they were."""
    return len(changes), sum(_distance(known.get(name), to) for name, to in changes.items())


def _distance(was: Scalar, to: float | str) -> float:
    if isinstance(was, int | float) and isinstance(to, int | float):
        return abs(to - was) / (1.0 + abs(was))
    return 1.0


def _ways(node: ast.expr, condition: Condition, known: Known, *, wanted: bool) -> Iterator[Changes]:
    """Changes after which a condition is `wanted`, smallest first as far as its own parts go."""
    match node:
        case ast.UnaryOp(op=ast.Not()):
            yield from _ways(node.operand, condition, known, wanted=not wanted)
        case ast.BoolOp():
            every = isinstance(node.op, ast.And) == wanted  # and, to be true; or, to be false: each part must follow
            found = [list(islice(_ways(value, condition, known, wanted=wanted), MOST_OPTIONS)) for value in node.values]
            yield from _together(found) if every else _sorted((c for part in found for c in part), known)
        case ast.Compare():
            yield from _compared(node, condition, known, wanted=wanted)
        case ast.Constant() if bool(node.value) == wanted:
            yield {}


def _together(parts: Sequence[Sequence[Changes]]) -> Iterator[Changes]:
    for option in islice(product(*parts), MOST_OPTIONS * MOST_OPTIONS):
        merged: Changes = {}
        for changes in option:
            merged |= changes
        yield merged


def _sorted(options: Iterator[Changes], known: Known) -> list[Changes]:
    return sorted(options, key=lambda changes: _cost(changes, known))


def _compared(node: ast.Compare, condition: Condition, known: Known, *, wanted: bool) -> Iterator[Changes]:
    """One comparison, or a chain of them."""

    def holds(changes: Changes) -> bool:
        return comparison_holds(node, condition, {**known, **changes}) == wanted

    if holds({}):
        yield {}
        return
    names = names_in(node)
    moves = {name: list(_moves(name, node, condition, known)) for name in names}
    found = [{name: to} for name in names for to in _nearest(name, moves[name], known, holds)]
    if not found:
        found = [{name: to} for name in names for to in _nearest(name, _between(moves[name]), known, holds)]
    if not found:  # several are missing, or must move together
        pools = [[(name, to) for to in moves[name][:12]] for name in names]
        found = [dict(option) for option in islice(product(*pools), 5000) if holds(dict(option))]
    yield from _sorted(iter(found), known)


def _nearest(name: str, moves: Sequence[float | str], known: Known, holds: Callable[[Changes], bool]) -> Iterator[float | str]:
    """The value nearest to what it was for which the comparison is as wanted, on each side of it."""
    was = known.get(name)
    for to in moves:
        if holds({name: to}):
            yield _pulled(name, was, to, holds) if isinstance(to, float) and isinstance(was, int | float) else to


def _pulled(name: str, was: float, to: float, holds: Callable[[Changes], bool]) -> float:
    """As near to what it was as bisection finds; a round number where one lies at hand."""
    near, far = float(was), to
    for _ in range(BISECTIONS):
        middle = (near + far) / 2
        near, far = (near, middle) if holds({name: middle}) else (middle, far)
    for digits in range(6):
        for rounded in (round(far, digits), math.ceil(far * 10**digits) / 10**digits, math.floor(far * 10**digits) / 10**digits):
            if holds({name: rounded}) and abs(rounded - was) <= abs(to - was):
                return float(rounded)
    return far


def _moves(name: str, node: ast.Compare, condition: Condition, known: Known) -> Iterator[float | str]:
    """Values to try: literals of the comparison and their neighbours, other categories, and ever wider reaches."""
    literals = [_literal(n) for n in ast.walk(node) if isinstance(n, ast.Constant | ast.UnaryOp)]
    texts = [t for t in (*literals, *condition.categories.get(name, ())) if isinstance(t, str)]
    if texts:
        yield from dict.fromkeys([*texts, "another"])
        return
    own = [v for v in (known.get(name), condition.defaults.get(name)) if isinstance(v, int | float)]
    numbers = [float(v) for v in (*literals, *condition.values.values()) if isinstance(v, int | float)]
    steps = [n + step for n in numbers for step in STEPS]
    wide = [base + sign * reach for base in (own or [0.0]) for reach in REACHES for sign in (1, -1)]
    yield from sorted({*steps, *wide}, key=lambda v: abs(v - (own[0] if own else 0.0)))


def _between(moves: Sequence[float | str]) -> list[float | str]:
    """Half a step beside every number."""
    return [move + half for move in moves if isinstance(move, float) for half in (0.5, -0.5)]


def _literal(node: ast.AST) -> object:
    try:
        return ast.literal_eval(cast("ast.expr", node))
    except ValueError:
        return None
