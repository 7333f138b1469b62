"""Rules and values as people write them: a small, typed part of Python's syntax, read here and nowhere evaluated.

    customer.age >= 18 and context.channel in ("web", "app") and not segment.at_risk
    action.margin - action.cost * customer.return_rate

A comparison is false where a value in it is missing or of another type, or where it divides by zero. The text is parsed into
a syntax tree of which only whitelisted nodes are accepted; everything else is an error with its column. Names of segments are
replaced by what they stand for.
"""

import ast
import io
import tokenize
import warnings
from collections.abc import Mapping
from typing import Literal, NamedTuple

from service.errors import nearest

Type = Literal["number", "text", "truth"]

LONGEST = 2000  # characters
DEEPEST = 20  # levels
MOST_NODES = 200
MOST_EXPANDED = 1000  # with segments in place: bounds what a rule costs, about 50 us
DEEPEST_EXPANDED = 100  # levels with segments in place: at 400 Python's own readers of trees give up
LONGEST_TEXT = 200  # characters of one literal
LARGEST = 1e15  # beyond it whole numbers are no longer exact as floats
FUNCTIONS = {"min": (2, 8), "max": (2, 8), "abs": (1, 1)}  # how many arguments each takes
COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)
SCOPES = ("customer", "context", "action", "journey", "segment", "consent", "event")


class Name(NamedTuple):
    """A name that rules may use: its type, and what it may be where it is a category (empty: any text).

    `stands_for`: the checked tree that takes its place, for names that are not values themselves.
    """

    type: Type
    categories: tuple[str, ...] = ()
    stands_for: ast.expr | None = None


class ExpressionError(ValueError):
    """A rule that cannot be used: expected, found, and line and column within it, counted from 1."""


def parse_rule(source: str, names: Mapping[str, Name]) -> ast.expr:
    """The checked syntax tree of a condition. `names` are the qualified names (`customer.age`). Raises ExpressionError."""
    tree = _read(source)
    _Checker(names).truth(tree, 1)
    return _expanded(tree, names)


def parse_value(source: str, names: Mapping[str, Name]) -> ast.expr:
    """The checked syntax tree of a number. Raises ExpressionError."""
    tree = _read(source)
    found = _Checker(names).value(tree, 1)
    if found != "number":
        raise _refuse(tree, "a number", found)
    return _expanded(tree, names)


def _read(source: str) -> ast.expr:
    if len(source) > LONGEST:
        raise ExpressionError(f"Expected at most {LONGEST} characters, got {len(source)} - at line 1, column {LONGEST + 1}")
    tree = _parse(source.strip())
    if _parts(tree) > MOST_NODES:
        raise ExpressionError(
            f"Expected at most {MOST_NODES} parts, got more: name parts of the rule and combine the names - at line 1, column 1"
        )
    return tree.body


def _parts(tree: ast.AST) -> int:
    return sum(not isinstance(node, ast.expr_context) for node in ast.walk(tree))


def _expanded(tree: ast.expr, names: Mapping[str, Name]) -> ast.expr:
    """With every name that stands for something replaced by it."""
    expanded: ast.expr = _Expander(names).visit(tree)
    if _parts(expanded) > MOST_EXPANDED:
        raise ExpressionError(f"Expected at most {MOST_EXPANDED} parts with segments in place, got more - at line 1, column 1")
    if _levels(expanded) > DEEPEST_EXPANDED:
        raise ExpressionError(
            f"Expected at most {DEEPEST_EXPANDED} levels with segments in place, got more - at line 1, column 1"
        )
    return expanded


def _levels(tree: ast.AST) -> int:
    levels, row = 0, [tree]
    while row:
        levels, row = levels + 1, [child for node in row for child in ast.iter_child_nodes(node)]
    return levels


class _Expander(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, Name]) -> None:
        self._names = names

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        name = self._names[_qualified(node)]
        if name.type == "truth" and name.stands_for is None:  # a segment with a mistake of its own, told where it is written
            return ast.Constant(value=False)
        return name.stands_for or node


def _parse(source: str) -> ast.Expression:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # `"\d"` and `1or 2` are doubtful: refused here, not warned of in a log
            _check_ascii(source)
            return ast.parse(source, mode="eval")
    except SyntaxError as error:
        raise _refused(error.msg, error.lineno or 1, error.offset or 1) from error
    except tokenize.TokenError as error:
        raise _refused(str(error.args[0]), *error.args[1]) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise _refused(str(error) or "too deep", 1, 1) from error


def _refused(message: str, line: int, column: int) -> ExpressionError:
    return ExpressionError(f"Expected an expression, got something else: {message} - at line {line}, column {column}")


def _check_ascii(source: str) -> None:
    """Python reads several look-alike letters as one name; a reviewer does not."""
    if source.isascii():
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.STRING and not token.string.isascii():
            line, column = token.start
            raise ExpressionError(f"Expected ASCII outside of quotes, got `{token.string}` - at line {line}, column {column + 1}")


class _Checker:
    """Accepts what is on the list, with its type, and refuses the rest."""

    def __init__(self, names: Mapping[str, Name]) -> None:
        self._names = names

    def truth(self, node: ast.expr, depth: int) -> None:
        """A condition: and, or, not, a comparison, True, False."""
        self._check_depth(node, depth)
        match node:
            case ast.BoolOp():
                for value in node.values:
                    self.truth(value, depth + 1)
            case ast.UnaryOp(op=ast.Not()):
                self.truth(node.operand, depth + 1)
            case ast.Compare():
                self._comparison(node, depth)
            case ast.Constant(value=bool()):
                pass
            case ast.Attribute(value=ast.Name(id="segment" | "consent")):
                self._name(node)
            case _:
                raise _refuse(node, "a condition, such as `customer.age >= 18`")

    def _comparison(self, node: ast.Compare, depth: int) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, node.comparators, strict=False):
            if not isinstance(operator, COMPARISONS):
                raise _refuse(node, "a comparison (== != < <= > >= in not in)")
            kind = self.value(left, depth + 1)
            if isinstance(operator, ast.In | ast.NotIn):
                self._members(left, kind, right, depth)
                if right is not operands[-1]:
                    raise _refuse(right, "`in` as the last comparison of a chain")
            else:
                self._same_type(left, kind, operator, right, depth)

    def _members(self, left: ast.expr, kind: Type, right: ast.expr, depth: int) -> None:
        if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
            raise _refuse(right, 'a list of values, such as `("web", "app")`')
        for element in right.elts:
            literal = element.operand if isinstance(element, ast.UnaryOp) else element
            if not isinstance(literal, ast.Constant) or self.value(element, depth + 2) != kind:
                raise _refuse(element, f"a {kind} as it stands")
            self._check_category(left, element)

    def _same_type(self, left: ast.expr, kind: Type, operator: ast.cmpop, right: ast.expr, depth: int) -> None:
        found = self.value(right, depth + 1)
        if found != kind:
            raise _refuse(right, f"a {kind} to compare with a {kind}", found)
        if kind == "text" and not isinstance(operator, ast.Eq | ast.NotEq):
            raise _refuse(left, "`==`, `!=` or `in` for a category")
        self._check_category(left, right)
        self._check_category(right, left)

    def _check_category(self, name: ast.expr, literal: ast.expr) -> None:
        if isinstance(name, ast.Attribute) and isinstance(literal, ast.Constant):
            known = self._names[_qualified(name)].categories
            if known and literal.value not in known:
                raise _refuse(literal, f"a known category of `{_qualified(name)}`{nearest(str(literal.value), known)}")

    def value(self, node: ast.expr, depth: int) -> Type:
        """A number or a text: a name, a literal, arithmetic, min, max, abs."""
        self._check_depth(node, depth)
        match node:
            case ast.Attribute():
                return self._value_name(node)
            case ast.Constant():
                return _literal(node)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                self._number(node.operand, depth)
            case ast.BinOp() if isinstance(node.op, ARITHMETIC):
                self._number(node.left, depth)
                self._number(node.right, depth)
            case ast.Call():
                self._call(node, depth)
            case _:
                raise _refuse(node, "a name, a literal, + - * /, min, max or abs")
        return "number"

    def _number(self, node: ast.expr, depth: int) -> None:
        found = self.value(node, depth + 1)
        if found != "number":
            raise _refuse(node, "a number", found)

    def _call(self, node: ast.Call, depth: int) -> None:
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS or node.keywords:
            raise _refuse(node, f"one of the functions {', '.join(FUNCTIONS)}")
        fewest, most = FUNCTIONS[node.func.id]
        if not fewest <= len(node.args) <= most:
            raise _refuse(node, f"{fewest} to {most} arguments" if fewest < most else f"{most} argument", str(len(node.args)))
        for argument in node.args:
            self._number(argument, depth)

    def _value_name(self, node: ast.Attribute) -> Type:
        kind = self._name(node)
        if kind == "truth":
            raise _refuse(node, "a value: a segment or a consent is a condition of its own")
        return kind

    def _name(self, node: ast.Attribute) -> Type:
        if not isinstance(node.value, ast.Name) or node.value.id not in SCOPES:
            raise _refuse(node, "`customer.`, `context.`, `action.`, `journey.`, `segment.` or `consent.` and one name")
        qualified = _qualified(node)
        if qualified not in self._names:
            raise _refuse(node, f"a known name{nearest(qualified, list(self._names))}")
        return self._names[qualified].type

    def _check_depth(self, node: ast.expr, depth: int) -> None:
        if depth > DEEPEST:
            raise _refuse(node, f"at most {DEEPEST} levels", "more")


def _literal(node: ast.Constant) -> Type:
    value = node.value
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            raise _refuse(node, f"at most {LONGEST_TEXT} characters", str(len(value)))
        return "text"
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise _refuse(node, "a number or a text")
    return "number"


def _qualified(node: ast.Attribute) -> str:
    return f"{node.value.id}.{node.attr}" if isinstance(node.value, ast.Name) else "?"


def _refuse(node: ast.expr, expected: str, found: str | None = None) -> ExpressionError:
    where = f"line {node.lineno}, column {node.col_offset + 1}"
    return ExpressionError(f"Expected {expected}, got `{found or _shortened(node)}` - at {where}")


def _shortened(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004  # what fits into a line of errors
