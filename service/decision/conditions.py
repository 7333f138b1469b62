"""Rules as trees, read one comparison at a time: what holds, what does not, and with which values."""

import ast
import math
from collections.abc import Iterator, Mapping
from typing import cast

import numpy as np

from service.catalog.entities import CompiledRule, Condition, Scalar

Known = Mapping[str, Scalar]  # by qualified name: `customer.age`

NEGATED = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}  # fmt: skip


def known_values(customer: Mapping[str, Scalar], context: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """All values of a request by their qualified names."""
    return {f"customer.{k}": v for k, v in customer.items()} | {f"context.{k}": v for k, v in context.items()}


def names_in(node: ast.AST) -> list[str]:
    """Names of the customer and the context, each once."""
    found = (ast.unparse(n) for n in ast.walk(node) if isinstance(n, ast.Attribute))
    return list(dict.fromkeys(name for name in found if not name.startswith("action.")))


def holds(node: ast.expr, condition: Condition, known: Known) -> bool:
    """A condition, as a compiled rule would have it."""
    match node:
        case ast.UnaryOp():
            return not holds(node.operand, condition, known)
        case ast.BoolOp():
            parts = (holds(value, condition, known) for value in node.values)
            return all(parts) if isinstance(node.op, ast.And) else any(parts)
        case ast.Compare():
            return comparison_holds(node, condition, known)
    return bool(cast("ast.Constant", node).value)


def comparison_holds(node: ast.Compare, condition: Condition, known: Known) -> bool:
    """The comparison, as a compiled rule would have it: false where something is missing."""
    operands = [_value(n, condition, known) for n in (node.left, *node.comparators)]
    if any(v is None for v in operands):
        return False
    pairs = zip(operands, node.ops, operands[1:], strict=False)
    return all(_compare(op, left, right) for left, op, right in pairs)


def _compare(operator: ast.cmpop, left: object, right: object) -> bool:
    if isinstance(operator, ast.In | ast.NotIn):
        return (left in cast("tuple[object, ...]", right)) == isinstance(operator, ast.In)
    if isinstance(left, str) != isinstance(right, str):
        return False
    match operator:
        case ast.Eq():
            return left == right
        case ast.NotEq():
            return left != right
    low, high = cast("float", left), cast("float", right)
    return {ast.Lt: low < high, ast.LtE: low <= high, ast.Gt: low > high, ast.GtE: low >= high}[type(operator)]


def _value(node: ast.expr, condition: Condition, known: Known) -> object:  # noqa: PLR0911  # one return per kind of node
    match node:
        case ast.Attribute():
            return _known(ast.unparse(node), condition, known)
        case ast.Tuple() | ast.List() | ast.Set():
            return tuple(_value(element, condition, known) for element in node.elts)
        case ast.UnaryOp():
            inner = _value(node.operand, condition, known)
            return None if inner is None else -cast("float", inner) if isinstance(node.op, ast.USub) else inner
        case ast.BinOp():
            return _arithmetic(node, condition, known)
        case ast.Call(func=ast.Name(id=function)):
            arguments = [_value(a, condition, known) for a in node.args]
            if any(a is None for a in arguments):
                return None
            return _called(function, cast("list[float]", arguments))
    value = cast("ast.Constant", node).value
    return value if isinstance(value, str) else float(cast("float", value))


def _called(function: str, arguments: list[float]) -> float:
    if function == "abs":
        return abs(arguments[0])
    return min(arguments) if function == "min" else max(arguments)


def _arithmetic(node: ast.BinOp, condition: Condition, known: Known) -> float | None:
    left, right = (_value(side, condition, known) for side in (node.left, node.right))
    if left is None or right is None or (isinstance(node.op, ast.Div) and right == 0.0):
        return None
    a, b = cast("float", left), cast("float", right)
    with np.errstate(all="ignore"):
        match node.op:
            case ast.Add():
                return a + b
            case ast.Sub():
                return a - b
            case ast.Mult():
                return a * b
    return a / b


def _known(name: str, condition: Condition, known: Known) -> float | str | None:
    """A value as a rule sees it: the action's own, the customer's, or the default; None where it is missing."""
    if name.startswith("action."):
        return condition.values.get(name)
    value = known.get(name)
    if value is None:
        value = condition.defaults.get(name)
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        return float(value) if abs(value) < math.inf else None
    return value


def shown(value: Scalar) -> str:
    """A value as an explanation says it."""
    if value is None:
        return "missing"
    return f"{value:g}" if isinstance(value, float) else str(value)


def failing_parts(rule: CompiledRule, customer: Mapping[str, Scalar], context: Mapping[str, Scalar]) -> list[str]:
    """The comparisons of a rule that are not as they must be, each with what was found: `customer.age >= 18, was 17`."""
    condition = rule.condition
    if condition is None:
        return [rule.expression]
    known = known_values(customer, context)
    return list(dict.fromkeys(_failing(cast("ast.expr", condition.tree), condition, known)))


def failing_names(tree: ast.expr, condition: Condition, known: Known) -> list[str]:
    """The names in the comparisons that are not as they must be."""
    parts = _parts_at_fault(tree, condition, known, wanted=True)
    return [name for node, _ in parts for name in names_in(node)]


def _failing(node: ast.expr, condition: Condition, known: Known) -> Iterator[str]:
    for part, wanted in _parts_at_fault(node, condition, known, wanted=True):
        yield _told(part, known, wanted=wanted) if isinstance(part, ast.Compare) else str(not wanted)


def _parts_at_fault(node: ast.expr, condition: Condition, known: Known, *, wanted: bool) -> Iterator[tuple[ast.expr, bool]]:
    """Comparisons and constants that keep a condition from being `wanted`, each with what it would have to be."""
    match node:
        case ast.UnaryOp(op=ast.Not()):
            yield from _parts_at_fault(node.operand, condition, known, wanted=not wanted)
        case ast.BoolOp():
            parts = [list(_parts_at_fault(value, condition, known, wanted=wanted)) for value in node.values]
            every = isinstance(node.op, ast.And) == wanted
            if every or all(parts):
                yield from (found for part in parts for found in part)
        case ast.Compare():
            if comparison_holds(node, condition, known) != wanted:
                yield node, wanted
        case _ if bool(cast("ast.Constant", node).value) != wanted:
            yield node, wanted


def _told(node: ast.Compare, known: Known, *, wanted: bool) -> str:
    """What should have been, with the values that were."""
    text = ast.unparse(node)
    if not wanted:
        text = _negated(node) if len(node.ops) == 1 else f"not ({text})"
    found = [f"{name} = {shown(known.get(name))}" for name in names_in(node)]
    if [ast.unparse(node.left)] == names_in(node):
        return f"{text}, was {shown(known.get(names_in(node)[0]))}"
    return f"{text}, where {', '.join(found)}" if found else text


def _negated(node: ast.Compare) -> str:
    flipped = ast.Compare(node.left, [NEGATED[type(node.ops[0])]()], node.comparators)
    return ast.unparse(flipped)
