"""The same sums as `compiled_scorer.py`'s, bit for bit, by `leaves.c`: docs/decisions/0027.

A request with 100 actions and 300 trees takes 7 us in a batch of 16, and 25 with numpy; alone 19 and 47.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.vectors import Matrix
from service.bundles.worlds import Worlds
from service.decision.scoring import Rates

try:
    from service.bundles import _leaves  # type: ignore[attr-defined]  # C tells no types
except ImportError:
    _leaves = None

IS_BUILT = _leaves is not None
AT_ONCE = 16  # requests: what C takes at most

Words = npt.NDArray[np.unsignedinteger[Any]]
Numbers = npt.NDArray[np.int32]


class Trees(NamedTuple):
    """What trees ask of requests, and what is left of them: `columns` (inputs,), `starts` (inputs + 1,) of each input's `edges`.

    `table` is (edges + inputs, trees), `tree` and `bits` are (patterns,), `leaves` float64 (trees, width), `alike` the patterns
    that all actions have.
    """

    columns: Numbers
    starts: Numbers
    edges: Matrix
    table: Words
    tree: Numbers
    bits: Words
    leaves: Rates
    alike: Numbers


class NativeLeaves:
    """Adds up the leaves that requests end in. `steps`: places of terms, (terms, sums) each, the last one's sums the actions'."""

    def __init__(self, trees: Trees, steps: Sequence[npt.NDArray[np.intp]], worlds: Worlds | None, kept: int) -> None:
        self._trees = tuple(np.ascontiguousarray(array) for array in trees)
        self._size = trees.table.shape[1], trees.table.itemsize
        self._patterns = len(trees.tree)
        *self._steps, self._last = (np.ascontiguousarray(places.T, np.int32) for places in steps)
        self._worlds, self._kept, self._of_world = worlds, kept, dict[bytes, Numbers]()

    def add_up(self, requests: Matrix, sums: Rates) -> None:
        """float32 (requests, inputs) -> float64 (requests, actions), into `sums`."""
        requests = np.ascontiguousarray(requests)
        if self._worlds is None:
            for start in range(0, len(requests), AT_ONCE):
                some = requests[start : start + AT_ONCE]
                terms, alike = self._terms(some)
                sums[start : start + len(some)] = self._sums(terms, self._last).T + alike[:, None]
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
        _leaves.values(len(requests), *self._size, requests, *self._trees, values, alike)
        for step in self._steps:
            values = self._sums(values, step)
        return values, alike

    def _by_world(self, worlds: Worlds, terms: Rates, known: Sequence[bytes]) -> Rates:
        """(requests, actions), each request's in its own world."""
        parts, start = [], 0
        for found, count in Counter(known).items():
            part = np.ascontiguousarray(terms[:, start : start + count])
            parts.append(self._sums(part, self._places(worlds, found)).T)
            start += count
        return np.concatenate(parts)

    def _places(self, worlds: Worlds, known: bytes) -> Numbers:
        places = self._of_world.get(known)
        if places is None:
            places = self._last[worlds.rows(known)]
            if len(self._of_world) < self._kept:
                self._of_world[known] = places
        return places

    def _sums(self, values: Rates, places: Numbers) -> Rates:
        """float64 (values, requests) -> (sums, requests)."""
        if not places.shape[1]:
            return np.zeros((len(places), values.shape[1]))  # all actions have the same patterns
        found = np.empty((len(places), values.shape[1]))
        _leaves.sums(values.shape[1], places.shape[1], values, places, found)
        return found
