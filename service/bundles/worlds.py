"""Actions as requests can find them: what an input that depends on both can say of an action is worked out for each answer.

A match says that two categories are the same, that they differ, or that one is missing; a pair says something for each category
of the customer. For a scorer that works out beforehand what depends on the actions alone, an action is as many rows as there are
such worlds for it; a request finds each action in one of them, by nothing but the categories that are looked at.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.contract import Feature
from features.vectors import Matrix, matches
from service.bundles.matching import Matching
from service.catalog.entities import Action

SAYS = np.array([0.0, 1.0, np.nan], np.float32)  # of a match: they differ, they are the same, one is missing
MISSING = 2

Places = npt.NDArray[np.intp]


class _Part(NamedTuple):
    """Inputs that answer together: one match, or all that look at a category of which there are pairs.

    `place` is that of the category among those looked at, `says` float32, (actions, answers, inputs), `codes` what the actions
    are matched by, (actions,); None where the category itself, of `size`, is the answer.
    """

    place: int
    inputs: list[int]
    says: Matrix
    codes: Matrix | None
    size: int

    def answers(self, known: Matrix) -> Places:
        """Which answer each action gives to a request with these categories: (actions,), or (1,) where it is the same."""
        code = known[self.place]
        if self.codes is not None:
            says = matches(code, self.codes)
            return np.where(np.isnan(says), np.float32(MISSING), says).astype(np.intp)
        if np.isnan(code):
            return np.array([self.size + 1])
        return np.array([int(code) if 0.0 <= code < self.size and code == int(code) else self.size])


class Worlds:
    """Every action in each of its worlds: of `count` actions, which one a row is, (rows,); float32 `says`, (rows, inputs)."""

    def __init__(self, inputs: Sequence[Feature], actions: Sequence[Action]) -> None:
        self.count = len(actions)
        self._matching = Matching(inputs, actions)
        self._parts = _parts(self._matching)
        shape = [part.says.shape[1] for part in self._parts]
        says = np.empty((len(actions), *shape, len(self._matching.columns)), np.float32)
        for axis, part in enumerate(self._parts, 1):
            laid_out = [len(actions), *(size if axis == other else 1 for other, size in enumerate(shape, 1))]
            for column, number in enumerate(part.inputs):
                says[..., number] = part.says[:, :, column].reshape(laid_out)
        says = says.reshape(-1, says.shape[-1])
        who = np.repeat(np.arange(len(actions)), len(says) // max(1, len(actions)))
        # what says the same of an action is one row, missing or not
        _, first, place = np.unique(np.column_stack([who, says.view(np.int32)]), axis=0, return_index=True, return_inverse=True)
        self.actions, self.says = who[first], says[first]
        self._place: Places = place.reshape(len(actions), -1)
        self._worth = [math.prod(shape[axis:]) for axis in range(1, len(shape) + 1)]

    def known(self, requests: Matrix) -> list[bytes]:
        """The categories of each request that are looked at: those with the same find each action in the same world."""
        return [told.tobytes() for told in requests.take(self._matching.columns, axis=1)]

    def rows(self, known: bytes) -> Places:
        """In which row requests with these categories find each action: (actions,)."""
        told, world = np.frombuffer(known, np.float32), np.zeros(len(self._place), np.intp)
        for part, worth in zip(self._parts, self._worth, strict=True):
            world += part.answers(told) * worth
        found: Places = self._place[np.arange(len(self._place)), world]
        return found


def worlds_of(inputs: Sequence[Feature]) -> int:
    """In how many worlds an action can be, with these inputs of a model."""
    sizes = {feature.key: len(feature.categories) for feature in inputs if feature.is_of_request}
    paired = {feature.matches for feature in inputs if feature.origin == "pair" and feature.matches is not None}
    single = sum(feature.origin == "match" and feature.matches not in paired for feature in inputs)
    return math.prod([*(sizes[key] + 2 for key in paired), *[len(SAYS)] * single])


def _parts(matching: Matching) -> list[_Part]:
    columns, matched = matching.columns.tolist(), matching.codes.shape[1]
    sizes = {columns[number]: len(category.categories) for number, (category, _) in enumerate(matching.pairs, matched)}
    parts = []
    for column, size in sizes.items():
        own = [number for number, other in enumerate(columns) if other == column]
        asked = np.full((size + 2, max(columns) + 1), np.nan, np.float32)
        asked[:, column] = [*range(size), -1.0, np.nan]
        parts.append(_Part(own[0], own, matching.values(asked)[:, :, own].swapaxes(0, 1), None, size))
    for number in range(matched):
        if columns[number] not in sizes:
            codes = matching.codes[:, number, None]
            says = np.where(np.isnan(codes), np.float32(np.nan), np.where(codes < 0.0, SAYS * np.float32(0.0), SAYS))
            parts.append(_Part(number, [number], says[:, :, None].astype(np.float32), matching.codes[:, number], 0))
    return parts
