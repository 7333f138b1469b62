"""Actions as requests can find them: what an input that depends on both can say of an action is worked out for each answer.

A match says that two categories are the same, that they differ, or that one is missing. For a scorer that works out beforehand
what depends on the actions alone, an action is as many rows as there are such worlds for it; a request finds each action in one
of them, by nothing but the categories that are matched.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from features.contract import Feature
from features.vectors import Matrix, matches
from service.bundles.matching import Matching
from service.catalog.entities import Action

SAYS = np.array([0.0, 1.0, np.nan], np.float32)  # what a match can say, by state
DIFFERENT, SAME, MISSING = range(len(SAYS))

Places = npt.NDArray[np.intp]


class Worlds:
    """Every action in each of its worlds. `actions`: which action a row is, (rows,); `says`: float32, (rows, matches)."""

    def __init__(self, inputs: Sequence[Feature], actions: Sequence[Action]) -> None:
        self._matching = Matching(inputs, actions)
        codes = self._matching.codes
        states = np.array(list(itertools.product(range(len(SAYS)), repeat=codes.shape[1])), np.intp)  # (worlds, matches)
        # without a value nothing is the same or differs, and what no request can say nothing is the same as
        there = (states == MISSING) | ~np.isnan(codes)[:, None, :]
        there &= (states != SAME) | (codes >= 0.0)[:, None, :]
        self.actions, world = np.nonzero(there.all(axis=2))
        self.says: Matrix = SAYS[states[world]]
        self._place = np.zeros((len(actions), len(states)), np.intp)
        self._place[self.actions, world] = np.arange(len(world))
        self._worth: Places = len(SAYS) ** np.arange(codes.shape[1])[::-1]

    def known(self, requests: Matrix) -> list[bytes]:
        """The categories of each request that are matched: those with the same find each action in the same world."""
        return [told.tobytes() for told in requests.take(self._matching.columns, axis=1)]

    def rows(self, known: bytes) -> Places:
        """In which row requests with these categories find each action: (actions,)."""
        says = matches(np.frombuffer(known, np.float32), self._matching.codes)
        states = np.where(np.isnan(says), np.float32(MISSING), says).astype(np.intp)
        found: Places = self._place[np.arange(len(self._place)), states @ self._worth]
        return found
