"""Scoring with trees that were compiled for one catalog: what depends on the actions alone is worked out once, when it is loaded.

Each tree is a set of leaves, a bit each, the true branches to the left. A question that is answered with no removes the leaves
of its true branch, and the lowest bit that is left is the leaf (QuickScorer: Lucchese et al. 2015). The actions' questions
are answered at once: in each tree the actions fall into few patterns. For a request the customer's questions are looked up,
one row of a table for each input, the leaf of each pattern is found, and the patterns' values are added up for each action.
Trees are taken together as long as their common patterns are few. An action that matches or pairs tell of is one in each of its
worlds (`worlds.py`), and a request picks the sums of those that it finds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.contract import Feature
from features.vectors import Matrix
from service.bundles.compiled_trees import CompiledTrees
from service.bundles.native_leaves import IS_BUILT, NativeLeaves
from service.bundles.numpy_leaves import NumpyLeaves
from service.bundles.onnx_scorer import action_matrix
from service.bundles.onnx_trees import Ensemble, Product, Split, Tree
from service.bundles.worlds import Worlds, worlds_of
from service.catalog.entities import Action
from service.decision.scoring import Rates
from service.pacing import breathe

MOST_LEAVES = 64  # a bit each
MOST_TABLE_BYTES = 64_000_000  # of the customers' answers: a worker has 200 MB; 300 trees over 40 inputs take 18
MOST_ROWS = 20_000  # actions in all of their worlds
EVERY_LEAF = np.uint64(0xFFFFFFFFFFFFFFFF)
TOGETHER = (2, 3, 4, 6, 8)  # trees whose patterns are added up beforehand

COMPARE = {
    "BRANCH_LEQ": np.less_equal, "BRANCH_LT": np.less, "BRANCH_GTE": np.greater_equal, "BRANCH_GT": np.greater,
    "BRANCH_EQ": np.equal, "BRANCH_NEQ": np.not_equal,
}  # fmt: skip

Bits = npt.NDArray[np.unsignedinteger[Any]]
Places = npt.NDArray[np.intp]


class _Answers(NamedTuple):
    """One input's answers: row r of `left` is what they leave where r edges are below the value, the last one if missing.

    `edges` part the input's values: float32, ascending, infinity last. `left` is (edges + 1, trees).
    """

    column: int
    edges: Matrix
    left: Bits


class CompiledScorer:
    """The same rates as ONNX Runtime's within 1e-6, in a fraction of the time. Expects trees that fit (`fits`)."""

    def __init__(
        self, ensemble: Ensemble, inputs: Sequence[Feature], actions: Sequence[Action], *, native: bool = IS_BUILT
    ) -> None:
        """`native`: whether C adds up, or numpy."""
        self.inputs = tuple(f for f in inputs if f.is_of_request)
        self._count, self._link, self._base = len(actions), ensemble.link, ensemble.base
        trees = _compiled(ensemble.trees, inputs, actions)
        self._leaves = NativeLeaves(trees) if native else NumpyLeaves(trees)

    def score(self, requests: Matrix) -> Rates:
        """Predicted rates: float32 (requests, inputs) -> float64 (requests, actions)."""
        sums = np.empty((len(requests), self._count))
        self._leaves.add_up(requests, sums)
        sums += self._base
        if self._link == "sigmoid":
            np.negative(sums, out=sums)
            np.exp(sums, out=sums)
            sums += 1.0
            return np.reciprocal(sums, out=sums)
        return np.exp(sums, out=sums) if self._link == "exp" else sums


def _compiled(trees: Sequence[Tree], inputs: Sequence[Feature], actions: Sequence[Action]) -> CompiledTrees:
    """What depends on the actions alone."""
    of_request = [column for column, feature in enumerate(inputs) if feature.is_of_request]
    of_action = [column for column, feature in enumerate(inputs) if feature.is_of_catalog]
    asked = _asked(trees)
    answers = [_answers(place, column, trees) for place, column in enumerate(of_request) if column in asked]
    word = np.min_scalar_type((1 << max(len(tree.leaves) for tree in trees)) - 1)  # as narrow as the widest tree lets it
    matrix = action_matrix([inputs[column] for column in of_action], actions)
    of_both = [column for column, feature in enumerate(inputs) if feature.matches is not None and column in asked]
    told = [feature for feature in inputs if feature.is_of_request] + [inputs[column] for column in of_both]
    worlds = Worlds(told, actions) if of_both else None
    if worlds is not None:
        of_action, matrix = of_action + of_both, np.hstack([matrix[worlds.actions], worlds.says])
    of_actions = _action_bits(trees, of_action, matrix)
    found = [np.unique(of_actions[:, tree], return_inverse=True) for tree in range(len(trees))]
    sizes = [len(distinct) for distinct, _ in found]  # the actions that answer alike in a tree share a pattern
    places = np.array([start + place for start, (_, place) in zip(_starts(sizes), found, strict=True)], np.intp)
    alike = np.array(sizes) == 1
    return CompiledTrees(
        columns=np.array([a.column for a in answers], np.int32),
        starts=np.array([0, *np.cumsum([len(a.edges) for a in answers])], np.int32),
        edges=np.concatenate([np.zeros(0, np.float32), *(a.edges for a in answers)]),
        table=np.concatenate([np.zeros((0, len(trees)), word), *(a.left.astype(word) for a in answers)]),
        tree=np.repeat(np.arange(len(trees), dtype=np.int32), sizes),
        bits=np.concatenate([distinct for distinct, _ in found]).astype(word),
        leaves=_leaf_values(trees),
        alike=places[alike, 0].astype(np.int32),
        steps=_steps(places[~alike], sum(sizes), len(actions)),
        worlds=worlds,
    )


def _leaf_values(trees: Sequence[Tree]) -> Rates:
    """float64 (trees, leaves of the largest)."""
    leaves = np.zeros((len(trees), max(len(tree.leaves) for tree in trees)))
    for row, tree in enumerate(trees):
        leaves[row, : len(tree.leaves)] = tree.leaves
    return leaves


def _steps(places: Places, zero: int, actions: int) -> tuple[Places, ...]:
    """From patterns, (trees, actions), to a sum for each action with the fewest additions: at once, or by groups of trees.

    `zero` is the place of a zero; `actions`: how many are added up for a request, of those in all worlds.
    """
    best: tuple[Places, ...] = (places,)
    fewest = len(places) * actions
    for size in TOGETHER:
        padded = np.concatenate([places, np.full((-len(places) % size, places.shape[1]), zero, np.intp)])
        found = [_distinct(group, zero + 1) for group in padded.reshape(-1, size, places.shape[1])]
        additions = sum(distinct.size for distinct, _ in found) + len(found) * actions
        if additions < fewest:
            starts = _starts([distinct.shape[1] for distinct, _ in found])
            last = np.array([start + place for start, (_, place) in zip(starts, found, strict=True)], np.intp)
            groups: Places = np.concatenate([distinct for distinct, _ in found], axis=1)
            best, fewest = (groups, last), additions
    return best


def _distinct(group: Places, places: int) -> tuple[Places, Places]:
    """The different columns of (trees, actions), and which of them each action has. `places`: how many there are."""
    code = group[0]
    for row in group[1:]:
        breathe()
        _, code = np.unique(code * places + row, return_inverse=True)
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    return group[:, first], inverse


def _starts(sizes: Sequence[int]) -> Places:
    """Where each part begins, of parts that follow one another."""
    return np.cumsum([0, *sizes[:-1]], dtype=np.intp)[: len(sizes)]


def _answers(place: int, column: int, trees: Sequence[Tree]) -> _Answers:
    """What every value of one input leaves of every tree. `place`: the input's place among those of a request."""
    breathe()
    asked = [(row, split) for row, tree in enumerate(trees) for split in tree.splits if split.feature == column]
    edges = np.unique(np.array([*(edge for _, split in asked for edge in _edges(split)), np.inf], np.float32))
    edges = edges[~np.isnan(edges)]  # nothing is below or above such a threshold
    inside = np.array([*edges, np.nan], np.float32)  # a value of each part: an edge is the largest of its own
    left = np.full((len(inside), len(trees)), EVERY_LEAF)
    for row, split in asked:
        breathe()
        left[~_is_true(split, inside), row] &= _kept(split)
    return _Answers(place, edges, left)


def _action_bits(trees: Sequence[Tree], columns: Sequence[int], actions: Matrix) -> Bits:
    """What the actions' answers leave of every tree: (actions, trees). `columns`: the model's inputs that `actions` has."""
    left = np.full((len(actions), len(trees)), EVERY_LEAF)
    place = {column: number for number, column in enumerate(columns)}
    for row, tree in enumerate(trees):
        breathe()
        for split in tree.splits:
            if split.feature in place:
                left[~_is_true(split, actions[:, place[split.feature]]), row] &= _kept(split)
    return left


def _edges(split: Split) -> tuple[np.float32, ...]:
    """The values above which the answer changes."""
    below = np.nextafter(split.threshold, np.float32(-np.inf))
    match split.mode:
        case "BRANCH_LEQ" | "BRANCH_GT":
            return (split.threshold,)
        case "BRANCH_LT" | "BRANCH_GTE":
            return (below,)
    return (below, split.threshold)


def _is_true(split: Split, values: Matrix) -> npt.NDArray[np.bool_]:
    answers: npt.NDArray[np.bool_] = COMPARE[split.mode](values, split.threshold)
    return answers | np.isnan(values) if split.missing_true else answers


def _kept(split: Split) -> np.uint64:
    """What is left of a tree where the answer is no: all but the leaves of the true branch."""
    begin, end = split.true_leaves
    return np.uint64(int(EVERY_LEAF) ^ (((1 << (end - begin)) - 1) << begin))


def too_many_worlds(ensemble: Ensemble | Product, inputs: Sequence[Feature], actions: int) -> str | None:
    """Why the trees of a model with these inputs cannot be compiled for so many actions; None where they can."""
    asked = _asked(ensemble.trees)
    rows = actions * worlds_of([f for column, f in enumerate(inputs) if f.matches is None or column in asked])
    if rows > MOST_ROWS:
        return f"Expected at most {MOST_ROWS:,} actions in all of the worlds that matches and pairs put them in, found {rows:,}"
    return None


def _asked(trees: Sequence[Tree]) -> set[int]:
    """The inputs that trees ask for."""
    return {split.feature for tree in trees for split in tree.splits}


def unfit(ensemble: Ensemble | Product, inputs: int) -> str | None:
    """Why trees cannot be compiled within the memory that a worker has; None where they can. `inputs`: of the model."""
    leaves = max((len(tree.leaves) for tree in ensemble.trees), default=0)
    if not 1 <= leaves <= MOST_LEAVES:
        return f"Expected trees of 1 to {MOST_LEAVES} leaves, found one of {leaves}"
    edges: set[tuple[int, float]] = set()
    for tree in ensemble.trees:
        breathe()
        edges |= {(split.feature, float(edge)) for split in tree.splits for edge in _edges(split)}
    table = (len(edges) + 2 * inputs) * len(ensemble.trees) * EVERY_LEAF.itemsize
    if table > MOST_TABLE_BYTES:
        return f"Expected a table of at most {MOST_TABLE_BYTES:,} bytes, found one of {table:,}"
    return None
