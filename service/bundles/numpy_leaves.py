"""Adding up the leaves that requests end in with numpy: where nothing could be built in C."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from features.vectors import Matrix
from service.bundles.compiled_trees import CompiledTrees, Places, Words
from service.bundles.worlds import Worlds
from service.decision.scoring import Rates

SEVERAL = 8  # requests from which on an input's edges are searched and not all compared, and leaves are removed input by input
AT_ONCE = 16  # requests whose leaves are added up together: what they need then stays within a core's cache
SPAN = 128  # requests of which leaves are removed together: their own, and one input's part of the table, stay there, too
LONG = 16_384  # sums from which on they grow row by row; of 1,600 sums of 50 terms each that takes 50 us, and at once 20


class NumpyLeaves:
    """What is in between has a row for each pattern, so that requests share a pass over them."""

    def __init__(self, trees: CompiledTrees) -> None:
        self._trees = trees
        starts, columns, widths = trees.starts.astype(np.intp), trees.columns.astype(np.intp), np.diff(trees.starts)
        self._parted = [(c, trees.edges[a:b]) for c, a, b in zip(columns, starts, starts[1:], strict=False)]
        self._columns, self._edge_columns, self._edge_starts = columns, np.repeat(columns, widths), starts[:-1]
        self._starts, self._missing = starts[:-1] + np.arange(len(columns)), widths.astype(np.intp)
        narrow = np.min_scalar_type(trees.leaves.size)
        bits, first = trees.bits[:, None], (trees.tree * trees.leaves.shape[1]).astype(narrow)[:, None]
        self._one = bits, first
        self._several = bits.repeat(AT_ONCE, axis=1), first.repeat(AT_ONCE, axis=1)
        self._leaves = trees.leaves.ravel()
        self._steps = [_Step(places) for places in trees.steps]
        self._kept, self._of_world = trees.worlds_kept(np.dtype(np.intp).itemsize), dict[bytes, _Step]()

    def add_up(self, requests: Matrix, sums: Rates) -> None:
        """float32 (requests, inputs) -> float64 (requests, actions), into `sums`."""
        rows, worlds = self._rows(requests), self._trees.worlds
        for start in range(0, len(requests), SPAN):
            left, some = self._left(rows[start : start + SPAN]), sums[start : start + SPAN]
            if worlds is not None:
                self._by_world(worlds, left, worlds.known(requests[start : start + SPAN]), some)
                continue
            for place in range(0, len(left), AT_ONCE):
                terms, alike = self._terms(left[place : place + AT_ONCE])
                np.add(self._steps[-1].sums(terms).T, alike, out=some[place : place + AT_ONCE])

    def _by_world(self, worlds: Worlds, left: Words, known: Sequence[bytes], sums: Rates) -> None:
        """Requests beside others that find the actions in the same worlds."""
        order = sorted(range(len(known)), key=known.__getitem__)
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            terms, alike = self._terms(left[rows])
            found, begun = np.empty((len(rows), worlds.count)), 0
            for world, count in Counter(known[row] for row in rows).items():
                part = np.ascontiguousarray(terms[:, begun : begun + count])
                found[begun : begun + count] = self._last_of(worlds, world).sums(part).T
                begun += count
            sums[rows] = found + alike

    def _rows(self, requests: Matrix) -> Places:
        """The rows of the table that say what the requests answer: (requests, inputs that are asked for)."""
        if len(requests) < SEVERAL:
            below = self._trees.edges < requests.take(self._edge_columns, axis=1)
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

    def _left(self, rows: Places) -> Words:
        """The leaves that the requests' own answers leave: (requests, trees)."""
        table = self._trees.table
        if not rows.shape[1]:
            return np.full((len(rows), table.shape[1]), np.iinfo(table.dtype).max, table.dtype)
        left: Words
        if len(rows) < SEVERAL:
            left = np.bitwise_and.reduce(table.take(rows, axis=0), axis=1)
            return left
        left = table.take(rows[:, 0], axis=0)
        for column in range(1, rows.shape[1]):
            left &= table.take(rows[:, column], axis=0)
        return left

    def _terms(self, left: Words) -> tuple[Rates, Rates | float]:
        """(requests, trees) -> the terms of the last step, a row each, and what all actions share, (requests, 1)."""
        # repeated for each request while they are used, bits and places take four times as long
        bits, first = self._several if len(left) == AT_ONCE else self._one
        alive = np.ascontiguousarray(left.T).take(self._trees.tree, axis=0)
        alive &= bits
        alive &= -alive  # the lowest bit alone
        alive -= 1
        leaf = np.bitwise_count(alive) + first
        terms = np.empty((len(leaf) + 1, len(left)))
        terms[-1] = 0.0  # for groups that are not full
        self._leaves.take(leaf, out=terms[:-1], mode="clip")  # every place exists; to say so saves a copy
        shared = self._trees.alike
        alike = np.ascontiguousarray(terms[shared].T).sum(axis=1, keepdims=True) if len(shared) else 0.0
        for step in self._steps[:-1]:
            terms = step.sums(terms)  # patterns of trees become patterns of groups, and those actions
        return terms, alike

    def _last_of(self, worlds: Worlds, known: bytes) -> "_Step":
        """The last step for the rows in which requests of one world find the actions."""
        step = self._of_world.get(known)
        if step is None:
            step = _Step(self._steps[-1].places[:, worlds.rows(known)])
            if len(self._of_world) < self._kept:
                self._of_world[known] = step
        return step


class _Step:
    """Adds up: `places` (terms, sums) says where the terms of each sum are."""

    def __init__(self, places: Places) -> None:
        self.places = np.ascontiguousarray(places)

    def sums(self, values: Rates) -> Rates:
        """float64 (values, requests) -> (sums, requests), added up in the same order however many requests there are."""
        width = values.shape[1] * self.places.shape[1]
        if 1 < width < LONG or not len(self.places):  # a single sum numpy would add up in another order
            together: Rates = values.take(self.places, axis=0, mode="clip").sum(axis=0)
            return together
        added: Rates = values.take(self.places[0], axis=0, mode="clip")
        for places in self.places[1:]:
            added += values.take(places, axis=0, mode="clip")
        return added
