"""The trees inside an ONNX model, read from its bytes without the onnx package, which serving does not carry.

Wire format: https://protobuf.dev/programming-guides/encoding; the numbers of fields are those of onnx.proto; what the operator
does: https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleRegressor.html
"""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from features.protobuf import MalformedValue, read_varint
from service.pacing import breathe

VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5  # wire types
GRAPH, NODE = 7, 1  # of a model, of a graph
INPUT, OUTPUT, OPERATOR, ATTRIBUTE = 1, 2, 4, 5  # of a node
NAME, FLOAT, INT, TEXT, FLOATS, INTS, TEXTS = 1, 2, 3, 4, 7, 8, 9  # of an attribute

ENSEMBLE = "TreeEnsembleRegressor"
VALUE = [ENSEMBLE, "Neg", "Exp", "Constant", "Add", ENSEMBLE, "Exp", "Div"]  # an amount over 1 + exp(-margin)
ONE = {"value_float": [1.0]}
LINKS = {"Sigmoid": "sigmoid", "Exp": "exp", "Identity": "identity"}
SAID = {"n_targets": [1], "aggregate_function": ["SUM"], "post_transform": ["NONE"]}  # no other sum is read
MOST_AT_ONCE = 1000  # values: 0.2 ms, in which nobody else is given way
LEAF = "LEAF"
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


class Split(NamedTuple):
    """One question of a tree. `true_leaves`: from which leaf to which its first branch leads, counted from the left."""

    feature: int
    mode: str
    threshold: np.float32
    missing_true: bool
    true_leaves: tuple[int, int]


class Tree(NamedTuple):
    """Its questions in any order, and the values of its leaves from left to right: the true branch is the left one."""

    splits: tuple[Split, ...]
    leaves: tuple[float, ...]


class Ensemble(NamedTuple):
    """rate = link(base + the sum over all trees), where `link` is sigmoid, exp or identity."""

    trees: tuple[Tree, ...]
    base: float
    link: str


class Product(NamedTuple):
    """rate = the first times the second: how often there is a value, and how large it is then."""

    factors: tuple[Ensemble, Ensemble]

    @property
    def trees(self) -> tuple[Tree, ...]:
        """Those of both."""
        return self.factors[0].trees + self.factors[1].trees


def read_trees(model: bytes) -> Ensemble | Product | None:
    """The ensemble that a model is, or the product of two; None where it is anything else, or more than that."""
    try:
        return _model([_node(data) for data in _submessages(_graph(model), NODE)])
    except (MalformedValue, KeyError, ValueError, struct.error):  # ValueError: columns of different lengths, or no UTF-8
        return None


class _Node(NamedTuple):
    inputs: list[str]
    outputs: list[str]
    operator: str
    attributes: dict[str, Any]


def _model(nodes: Sequence[_Node]) -> Ensemble | Product | None:
    """One ensemble; or a margin and an amount, as a value is written."""
    if [node.operator for node in nodes] != VALUE:
        return _ensemble(nodes, "rate")
    margin, against, odds, one, whole, _, amount, value = nodes
    wired = (against.inputs, odds.inputs, whole.inputs, value.inputs, value.outputs)
    if wired != (margin.outputs, against.outputs, odds.outputs + one.outputs, amount.outputs + whole.outputs, ["rate"]):
        return None
    first, second = _ensemble(nodes[:1], *margin.outputs), _ensemble(nodes[5:7], *amount.outputs)
    if first is None or second is None or one.attributes != ONE:
        return None
    return Product((first._replace(link="sigmoid"), second))


def _ensemble(nodes: Sequence[_Node], output: str) -> Ensemble | None:
    """One node of trees from `inputs`, and at most one function after it, to an output."""
    if not 1 <= len(nodes) <= 2 or nodes[0].operator != ENSEMBLE or nodes[0].inputs != ["inputs"]:  # noqa: PLR2004  # as above
        return None
    told, link = nodes[0].attributes, "identity"
    if [told.get(key, default) for key, default in SAID.items()] != list(SAID.values()):
        return None
    if len(nodes) > 1:
        if nodes[1].inputs != nodes[0].outputs or nodes[1].operator not in LINKS:
            return None
        link = LINKS[nodes[1].operator]
    if nodes[-1].outputs != [output] or not set(told["nodes_modes"]) <= {LEAF, *MODES}:
        return None
    return Ensemble(tuple(_trees(told)), sum(told.get("base_values", [])), link)


def _trees(told: dict[str, list[Any]]) -> Iterator[Tree]:
    nodes: dict[tuple[int, int], tuple[Any, ...]] = {}
    missing = told.get("nodes_missing_value_tracks_true") or [0] * len(told["nodes_treeids"])
    columns = (told[f"nodes_{name}"] for name in ("featureids", "modes", "values", "truenodeids", "falsenodeids"))
    for tree, number, *rest in zip(told["nodes_treeids"], told["nodes_nodeids"], *columns, missing, strict=True):
        breathe()
        nodes[tree, number] = tuple(rest)
    leaves: dict[tuple[int, int], float] = {}
    for tree, number, weight in zip(told["target_treeids"], told["target_nodeids"], told["target_weights"], strict=True):
        leaves[tree, number] = leaves.get((tree, number), 0.0) + weight
    roots: dict[int, int] = {}
    for tree, number in nodes:
        roots.setdefault(tree, number)  # the first one that is told
    for tree, root in roots.items():
        breathe()
        yield _tree(tree, root, nodes, leaves)


def _tree(tree: int, root: int, nodes: dict[tuple[int, int], tuple[Any, ...]], leaves: dict[tuple[int, int], float]) -> Tree:
    """Walk it, true branches first. Raises KeyError where a branch leads nowhere, MalformedValue where one leads back."""
    splits: list[Split] = []
    values: list[float] = []
    open_: list[tuple[int, int]] = []  # (node, at which leaf its true branch begins), of which the true branch is being walked
    waiting: list[tuple[int, bool]] = [(root, False)]
    while waiting:
        number, walked = waiting.pop()
        feature, mode, threshold, true, false, missing = nodes[tree, number]
        if mode == LEAF:
            values.append(leaves.get((tree, number), 0.0))
        elif walked:
            _, begin = open_.pop()
            splits.append(Split(feature, mode, np.float32(threshold), bool(missing), (begin, len(values))))
            waiting.append((false, False))
        else:
            if len(values) + len(waiting) > len(nodes):
                raise MalformedValue("Expected branches that lead on, got one that leads back")
            open_.append((number, len(values)))
            waiting += [(number, True), (true, False)]
    return Tree(tuple(splits), tuple(values))


def _graph(model: bytes) -> bytes:
    return next(_submessages(model, GRAPH), b"")


def _node(data: bytes) -> _Node:
    inputs, outputs, operator, attributes = list[str](), list[str](), "", dict[str, Any]()
    for number, value in _fields(data):
        if number == INPUT:
            inputs.append(value.decode())
        elif number == OUTPUT:
            outputs.append(value.decode())
        elif number == OPERATOR:
            operator = value.decode()
        elif number == ATTRIBUTE:
            name, values = _attribute(value)
            attributes[name] = values
    return _Node(inputs, outputs, operator, attributes)


class _Run(NamedTuple):
    """Values of a list in fields one after the other, as a thousand nodes have a thousand of each: read together in a third."""

    many: re.Pattern[bytes]
    one: re.Pattern[bytes]  # with its value as the only group
    read: Callable[[bytes], Any]

    @classmethod
    def of(cls, one: bytes, read: Callable[[bytes], Any]) -> "_Run":
        return cls(re.compile(b"(?:%b){2,%d}" % (one, MOST_AT_ONCE), re.DOTALL), re.compile(one, re.DOTALL), read)

    def values(self, spelt: bytes) -> list[Any]:
        """In their order; each that differs is read once, and few do."""
        found = self.one.findall(spelt)
        known = {one: self.read(one) for one in set(found)}
        return [known[one] for one in found]


RUNS = (
    _Run.of(rb"\x3d(.{4})", lambda spelt: struct.unpack("<f", spelt)[0]),  # FLOATS, FOUR
    _Run.of(rb"\x40([\x80-\xff]{0,2}[\x00-\x7f])", lambda spelt: read_varint(spelt, 0)[0]),  # INTS, VARINT of three bytes at most
    _Run.of(
        b"\x4a(%b)" % b"|".join(b"%c%b" % (len(mode), mode.encode()) for mode in (LEAF, *MODES)), lambda spelt: spelt[1:].decode()
    ),
)


def _attribute(data: bytes) -> tuple[str, list[Any]]:
    """Its name and values, of whichever kind; lists come one by one or packed."""
    name, values, position = "", list[Any](), 0
    while position < len(data):
        breathe()
        found = next(((run, many) for run in RUNS if (many := run.many.match(data, position))), None)
        if found is not None:
            run, many = found
            values += run.values(many[0])
            position = many.end()
            continue
        number, value, position = _field(data, position)
        if number == NAME:
            name = value.decode()
        elif number in (FLOAT, FLOATS):
            values += struct.unpack(f"<{len(value) // 4}f", value)
        elif number in (TEXT, TEXTS):
            values.append(value.decode())
        elif number in (INT, INTS):
            values += [value] if isinstance(value, int) else _packed(value)
    return name, values


def _packed(data: bytes) -> list[int]:
    values, position = list[int](), 0
    while position < len(data):
        value, position = read_varint(data, position)
        values.append(value)
    return values


def _submessages(data: bytes, wanted: int) -> Iterator[bytes]:
    return (value for number, value in _fields(data) if number == wanted)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers with their values. Raises MalformedValue."""
    position = 0
    while position < len(data):
        number, value, position = _field(data, position)
        yield number, value


def _field(data: bytes, position: int) -> tuple[int, Any, int]:
    """A field's number, its value, a whole number as int and everything else as bytes, and where the next one begins."""
    tag, position = read_varint(data, position)
    kind = tag & 7
    if kind == VARINT:
        value, position = read_varint(data, position)
        return tag >> 3, value, position
    if kind == BYTES:
        length, position = read_varint(data, position)
    elif kind in (EIGHT, FOUR):
        length = 8 if kind == EIGHT else 4
    else:
        raise MalformedValue(f"Expected a field of a known kind, got {kind}")
    if not 0 <= length <= len(data) - position:
        raise MalformedValue(f"Expected {length} bytes, got {len(data) - position}")
    return tag >> 3, data[position : position + length], position + length
