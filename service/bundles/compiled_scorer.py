"""Scoring with trees that were compiled for one catalog: what depends on the actions alone is worked out once, when it is loaded.

Each tree is a set of leaves, a bit each, the true branches to the left. A question that is answered with no removes the leaves
of its true branch, and the lowest bit that is left is the leaf (QuickScorer: Lucchese et al. 2015). The actions' questions
are answered at once: in each tree the actions fall into few patterns. For a request the customer's questions are looked up,
one row of a table for each input, the leaf of each pattern is found, and the patterns' values are added up for each action.
Trees are taken together as long as their common patterns are few. An action that matches or pairs tell of is one in each of its
worlds (`worlds.py`), and a request picks the sums of those that it finds.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.contract import Feature
from features.vectors import Matrix
from service.bundles.native_leaves import IS_BUILT, NativeLeaves, Trees
from service.bundles.onnx_scorer import action_matrix
from service.bundles.onnx_trees import Ensemble, Product, Split, Tree
from service.bundles.worlds import Worlds, worlds_of
from service.catalog.entities import Action
from service.decision.scoring import Rates
from service.pacing import breathe

MOST_LEAVES = 64  # a bit each
MOST_TABLE_BYTES = 64_000_000  # of the customers' answers: a worker has 200 MB; 300 trees over 40 inputs take 18
MOST_KEPT_BYTES = 16_000_000  # of sums by world: of 100 actions and 300 trees a world takes 40,000
MOST_ROWS = 20_000  # actions in all of their worlds
EVERY_LEAF = np.uint64(0xFFFFFFFFFFFFFFFF)
TOGETHER = (2, 3, 4, 6, 8)  # trees whose patterns are added up beforehand
SEVERAL = 8  # requests from which on an input's edges are searched and not all compared, and leaves are removed input by input
AT_ONCE = 16  # requests whose leaves are added up together: what they need then stays within a core's cache
SPAN = 128  # requests of which leaves are removed together: their own, and one input's part of the table, stay there, too
LONG = 16_384  # sums from which on they grow row by row; of 1,600 sums of 50 terms each that takes 50 us, and at once 20

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
        of_request = [column for column, feature in enumerate(inputs) if feature.is_of_request]
        of_action = [column for column, feature in enumerate(inputs) if feature.is_of_catalog]
        trees = ensemble.trees
        asked = _asked(trees)
        answers = [_answers(place, column, trees) for place, column in enumerate(of_request) if column in asked]
        widths = [len(a.edges) for a in answers]
        self._parted = [(a.column, a.edges) for a in answers]
        self._columns = np.array([a.column for a in answers], np.intp)
        self._edges = np.concatenate([np.zeros(0, np.float32), *(a.edges for a in answers)])
        self._edge_columns, self._edge_starts = np.repeat(self._columns, widths), _starts(widths)
        self._word = np.min_scalar_type(
            (1 << max(len(tree.leaves) for tree in trees)) - 1
        )  # as narrow as the widest tree lets it
        self._table = np.concatenate([np.zeros((0, len(trees)), self._word), *(a.left.astype(self._word) for a in answers)])
        self._starts, self._missing = _starts([width + 1 for width in widths]), np.array(widths, np.intp)
        self._trees = len(trees)
        matrix = action_matrix([inputs[column] for column in of_action], actions)
        of_both = [column for column, feature in enumerate(inputs) if feature.matches is not None and column in asked]
        self._worlds = Worlds([*self.inputs, *(inputs[column] for column in of_both)], actions) if of_both else None
        if self._worlds is not None:
            of_action, matrix = of_action + of_both, np.hstack([matrix[self._worlds.actions], self._worlds.says])
        self._patterns = _Patterns(trees, self._word, _action_bits(trees, of_action, matrix), self._worlds)
        self._native = self._in_c(widths) if native else None

    def _in_c(self, widths: Sequence[int]) -> NativeLeaves:
        """`widths`: how many edges each input has."""
        starts = np.array([0, *np.cumsum(widths)], np.int32)
        own = self._patterns
        bits, _ = own.one
        trees = Trees(
            self._columns.astype(np.int32), starts, self._edges, self._table, own.tree.astype(np.int32), bits[:, 0],
            own.leaves.reshape(self._trees, -1), own.alike.astype(np.int32),
        )  # fmt: skip
        return NativeLeaves(trees, [step.places for step in own.steps], self._worlds, own.kept)

    def score(self, requests: Matrix) -> Rates:
        """Predicted rates: float32 (requests, inputs) -> float64 (requests, actions)."""
        sums = np.empty((len(requests), self._count))
        if self._native is not None:
            self._native.add_up(requests, sums)
        else:
            self._add_up(requests, sums)
        sums += self._base
        if self._link == "sigmoid":
            np.negative(sums, out=sums)
            np.exp(sums, out=sums)
            sums += 1.0
            return np.reciprocal(sums, out=sums)
        return np.exp(sums, out=sums) if self._link == "exp" else sums

    def _add_up(self, requests: Matrix, sums: Rates) -> None:
        rows = self._rows(requests)
        for start in range(0, len(requests), SPAN):
            left, some = self._left(rows[start : start + SPAN]), sums[start : start + SPAN]
            if self._worlds is None:
                for place in range(0, len(left), AT_ONCE):
                    self._patterns.add_up(left[place : place + AT_ONCE], some[place : place + AT_ONCE])
            else:
                self._add_up_by_world(left, self._worlds.known(requests[start : start + SPAN]), some)

    def _add_up_by_world(self, left: Bits, known: Sequence[bytes], sums: Rates) -> None:
        """As without worlds, requests beside others that find the actions in the same ones."""
        order = sorted(range(len(known)), key=known.__getitem__)
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            found = np.empty((len(rows), self._count))
            self._patterns.add_up(left[rows], found, [known[row] for row in rows])
            sums[rows] = found

    def _rows(self, requests: Matrix) -> Places:
        """The rows of the table that say what the requests answer: (requests, inputs that are asked for)."""
        if len(requests) < SEVERAL:
            below = self._edges < requests.take(self._edge_columns, axis=1)
            rows = np.add.reduceat(below, self._edge_starts, axis=1, dtype=np.intp)
        else:
            rows = np.empty((len(requests), len(self._parted)), np.intp)
            for place, (column, edges) in enumerate(self._parted):
                rows[:, place] = edges.searchsorted(requests[:, column])
        missing = np.isnan(requests.take(self._columns, axis=1))
        if missing.any():
            rows = np.where(missing, self._missing, rows)
        rows += self._starts
        return rows

    def _left(self, rows: Places) -> Bits:
        """The leaves that the requests' own answers leave: (requests, trees)."""
        if not rows.shape[1]:
            return np.full((len(rows), self._trees), EVERY_LEAF.astype(self._word))
        left: Bits
        if len(rows) < SEVERAL:
            left = np.bitwise_and.reduce(self._table.take(rows, axis=0), axis=1)
            return left
        left = self._table.take(rows[:, 0], axis=0)
        for column in range(1, rows.shape[1]):
            left &= self._table.take(rows[:, column], axis=0)
        return left


class _Patterns:
    """The actions' answers: in each tree, the actions that answered alike share a pattern."""

    def __init__(self, trees: Sequence[Tree], word: np.dtype[Any], of_actions: Bits, worlds: Worlds | None) -> None:
        """`of_actions`: the leaves that each action's answers leave, (actions, trees); or those of its worlds each."""
        found = [np.unique(of_actions[:, tree], return_inverse=True) for tree in range(len(trees))]
        sizes = [len(distinct) for distinct, _ in found]
        places = np.array([start + place for start, (_, place) in zip(_starts(sizes), found, strict=True)], np.intp)
        width = max(len(tree.leaves) for tree in trees)
        leaves = np.zeros((len(trees), width))
        for row, tree in enumerate(trees):
            leaves[row, : len(tree.leaves)] = tree.leaves
        self.tree = np.repeat(np.arange(len(trees)), sizes)
        self.leaves = leaves.ravel()
        narrow = np.min_scalar_type(self.leaves.size)
        bits, first = np.concatenate([distinct for distinct, _ in found]).astype(word), (self.tree * width).astype(narrow)
        self.one = bits[:, None], first[:, None]
        self._several = bits[:, None].repeat(AT_ONCE, axis=1), first[:, None].repeat(AT_ONCE, axis=1)
        alike = np.array(sizes) == 1
        self.alike = places[alike, 0]
        self.steps = _steps(places[~alike], sum(sizes), len(of_actions) if worlds is None else worlds.count)
        self._worlds, self._last = worlds, dict[bytes, _Step]()
        self.kept = MOST_KEPT_BYTES // self.steps[-1].places.nbytes if self.steps[-1].places.size else 0

    def add_up(self, left: Bits, sums: Rates, known: Sequence[bytes] = ()) -> None:
        """Add up the leaves: (requests, trees) -> (requests, actions), into `sums`. What is in between has a row a pattern.

        `known`: in which worlds each request finds the actions, the same ones beside each other; empty where there is but one.
        """
        # repeated for each request while they are used, bits and places take four times as long
        bits, first = self._several if len(left) == AT_ONCE else self.one
        alive = np.ascontiguousarray(left.T).take(self.tree, axis=0)
        alive &= bits
        alive &= -alive  # the lowest bit alone
        alive -= 1
        leaf = np.bitwise_count(alive) + first
        terms = np.empty((len(leaf) + 1, len(left)))
        terms[-1] = 0.0  # for groups that are not full
        self.leaves.take(leaf, out=terms[:-1], mode="clip")  # every place exists; to say so saves a copy
        alike = np.ascontiguousarray(terms[self.alike].T).sum(axis=1, keepdims=True) if len(self.alike) else 0.0
        for step in self.steps[:-1]:
            terms = step.sums(terms)  # patterns of trees become patterns of groups, and those actions
        if self._worlds is None:
            np.add(self.steps[-1].sums(terms).T, alike, out=sums)
            return
        start = 0
        for found, count in Counter(known).items():
            part = terms[:, start : start + count]
            sums[start : start + count] = self._last_of(self._worlds, found).sums(np.ascontiguousarray(part)).T
            start += count
        sums += alike

    def _last_of(self, worlds: Worlds, known: bytes) -> "_Step":
        """The last step for the rows in which requests of one world find the actions."""
        step = self._last.get(known)
        if step is None:
            step = _Step(self.steps[-1].places[:, worlds.rows(known)])
            if len(self._last) < self.kept:
                self._last[known] = step
        return step


class _Step:
    """Adds up: `places` (terms, sums) says where the terms of each sum are."""

    def __init__(self, places: Places) -> None:
        self.places = np.ascontiguousarray(places)

    def sums(self, values: Rates) -> Rates:
        """float64 (values, requests) -> (sums, requests), added up in the same order however many requests there are."""
        if values.shape[1] * self.places.shape[1] < LONG:
            together: Rates = values.take(self.places, axis=0, mode="clip").sum(axis=0)
            return together
        added: Rates = values.take(self.places[0], axis=0, mode="clip")
        for places in self.places[1:]:
            added += values.take(places, axis=0, mode="clip")
        return added


def _steps(places: Places, zero: int, actions: int) -> list[_Step]:
    """From patterns, (trees, actions), to a sum for each action with the fewest additions: at once, or by groups of trees.

    `zero` is the place of a zero; `actions`: how many are added up for a request, of those in all worlds.
    """
    best, fewest = [_Step(places)], len(places) * actions
    for size in TOGETHER:
        padded = np.concatenate([places, np.full((-len(places) % size, places.shape[1]), zero, np.intp)])
        found = [_distinct(group, zero + 1) for group in padded.reshape(-1, size, places.shape[1])]
        additions = sum(distinct.size for distinct, _ in found) + len(found) * actions
        if additions < fewest:
            starts = _starts([distinct.shape[1] for distinct, _ in found])
            last = np.array([start + place for start, (_, place) in zip(starts, found, strict=True)], np.intp)
            best, fewest = [_Step(np.concatenate([distinct for distinct, _ in found], axis=1)), _Step(last)], additions
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
