"""Adding up the leaves that requests end in with C (`leaves.c`), in the order in which numpy does: docs/decisions/0027.

A request with 100 actions and 300 trees takes 7 us in a batch of 16, and 25 with numpy; alone 19 and 47.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from features import native
from features.vectors import Matrix
from service.bundles.compiled_trees import CompiledTrees, Numbers
from service.bundles.worlds import Worlds
from service.decision.scoring import Rates

AT_ONCE = 16  # requests: what C takes at most
INTERFACE = 1  # of `leaves.c`: changes with what its functions take

_leaves = native.built("service.bundles._leaves", INTERFACE)
IS_BUILT = _leaves is not None


class NativeLeaves:
    """Requests share a pass over the patterns, 16 at a time. Raises ValueError where a place lies outside of what it is of."""

    def __init__(self, trees: CompiledTrees) -> None:
        arrays = trees.columns, trees.starts, trees.edges, trees.table, trees.tree, trees.bits, trees.leaves, trees.alike
        self._arrays = tuple(np.ascontiguousarray(array) for array in arrays)
        self._size = trees.table.shape[1], trees.table.itemsize
        self._patterns = len(trees.tree)
        *self._steps, self._last = (np.ascontiguousarray(places.T, np.int32) for places in trees.steps)
        self._worlds, self._kept, self._of_world = trees.worlds, trees.worlds_kept(4), dict[bytes, Numbers]()
        _check(trees)

    def add_up(self, requests: Matrix, sums: Rates) -> None:
        """float32 (requests, inputs) -> float64 (requests, actions), into `sums`."""
        requests = np.ascontiguousarray(requests, np.float32)
        if self._worlds is None:
            for start in range(0, len(requests), AT_ONCE):
                some = requests[start : start + AT_ONCE]
                terms, alike = self._terms(some)
                sums[start : start + len(some)] = _sums(terms, self._last).T + alike[:, None]
            return
        known = self._worlds.known(requests)
        order = sorted(range(len(known)), key=known.__getitem__)  # requests that find the actions in the same worlds together
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            terms, alike = self._terms(requests[rows])
            sums[rows] = self._by_world(self._worlds, terms, [known[row] for row in rows]) + alike[:, None]

    def _terms(self, requests: Matrix) -> tuple[Rates, Rates]:
        """Of up to 16 requests: the values of groups of patterns, a row each; and each request's sum of what actions share."""
        values, alike = np.empty((self._patterns + 1, len(requests))), np.empty(len(requests))
        values[-1] = 0.0  # for groups that are not full
        _leaves.values(len(requests), *self._size, requests, *self._arrays, values, alike)
        for step in self._steps:
            values = _sums(values, step)
        return values, alike

    def _by_world(self, worlds: Worlds, terms: Rates, known: Sequence[bytes]) -> Rates:
        """(requests, actions), each request's in its own world."""
        parts, start = [], 0
        for found, count in Counter(known).items():
            part = np.ascontiguousarray(terms[:, start : start + count])
            parts.append(_sums(part, self._places(worlds, found)).T)
            start += count
        return np.concatenate(parts)

    def _places(self, worlds: Worlds, known: bytes) -> Numbers:
        places = self._of_world.get(known)
        if places is None:
            places = self._last[worlds.rows(known)]
            if len(self._of_world) < self._kept:
                self._of_world[known] = places
        return places


def _sums(values: Rates, places: Numbers) -> Rates:
    """float64 (values, requests) -> (sums, requests)."""
    if not places.shape[1]:
        return np.zeros((len(places), values.shape[1]))  # all actions have the same patterns
    found = np.empty((len(places), values.shape[1]))
    _leaves.sums(values.shape[1], places.shape[1], values, places, found)
    return found


def _check(trees: CompiledTrees) -> None:
    """Once, so that C need not with each request."""
    rows = len(trees.tree) + 1
    _check_below(trees.tree, trees.table.shape[1])
    _check_below(trees.alike, rows - 1)
    for places in trees.steps:
        _check_below(places, rows)
        rows = places.shape[1]


def _check_below(places: npt.NDArray[np.signedinteger[Any]], end: int) -> None:
    if places.size and not 0 <= places.min() <= places.max() < end:
        raise ValueError(f"Expected places below {end}, found {places.min()} to {places.max()}")
