"""Trees as they are compiled for a catalog: what both ways of adding up their leaves work on."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.vectors import Matrix
from service.bundles.worlds import Worlds
from service.decision.scoring import Rates

MOST_KEPT_BYTES = 16_000_000  # of sums by world: of 100 actions and 300 trees a world takes 20,000 to 40,000

Words = npt.NDArray[np.unsignedinteger[Any]]
Numbers = npt.NDArray[np.int32]
Places = npt.NDArray[np.intp]


class CompiledTrees(NamedTuple):
    """What trees ask of requests, and what answers leave of them: a word for each tree, a bit for each leaf.

    Of the inputs that are asked for: `columns` of a request, (inputs,), and where their `edges` begin, `starts`, (inputs + 1,).
    Row r of an input's part of `table`, (edges + inputs, trees), is what is left where r of its edges are below the value, the
    last one where it is missing. In a tree actions share patterns: `tree` and `bits`, what their own answers leave, (patterns,).
    `leaves` is float64, (trees, leaves); `alike` are the patterns that all actions have, and of the others `steps` say
    where the terms of sums are, (terms, sums) each: those of the last one are the actions', in all of their worlds.
    """

    columns: Numbers
    starts: Numbers
    edges: Matrix
    table: Words
    tree: Numbers
    bits: Words
    leaves: Rates
    alike: Numbers
    steps: tuple[Places, ...]
    worlds: Worlds | None

    def worlds_kept(self, size: int) -> int:
        """Of how many worlds the last step may be kept, with places of so many bytes."""
        actions = 0 if self.worlds is None else self.worlds.count
        return MOST_KEPT_BYTES // max(1, len(self.steps[-1]) * actions * size)
