"""The slot in which an action stood, as an input: who stands further down is seen less often, and no worse for that.

A row tells what came of an action where it stood. With the slot among the inputs trees can tell the two apart, and whoever
decides asks for the first slot, of all actions alike: a positional feature at training, the same for all at serving (Zinkevich,
Rules of Machine Learning, rule 36). What it takes is that actions stood in several slots; of one that did not, nothing says how
much was its place.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from features.contract import MOST_SLOTS, SLOT, Feature
from features.vectors import Matrix
from service.decision.board import score
from service.decision.engine import Engine
from training.cards import SLOT_FIGURE
from training.fit import Fitted
from training.policies import Chunk

Values = npt.NDArray[np.float64]
Slots = npt.NDArray[np.int64]

MOST_ROWS = 20_000  # that say what slots bring: evenly picked from all


def with_slot(columns: Sequence[Feature], slots: Slots, rule: Literal["input", "ignore"]) -> tuple[Feature, ...]:
    """The columns, with the slot behind the actions' attributes where rows tell of more than one. `slots`: (rows,)."""
    if rule == "ignore" or len(np.unique(np.minimum(slots, MOST_SLOTS))) <= 1:
        return tuple(columns)
    place = sum(feature.matches is None for feature in columns)
    return (*columns[:place], SLOT, *columns[place:])


def knows_slots(columns: Sequence[Feature]) -> bool:
    """Whether the slot is among a model's inputs."""
    return SLOT.key in {feature.key for feature in columns}


def slot_figures(fitted: Fitted, inputs: Matrix) -> dict[str, float]:
    """What each slot brings by a model, as a share of what the first one does: `slot.2` of the second.

    Mean prediction over the same rows as if all stood in the slot, divided by that in the first. `inputs`: float32, rows as they
    were learned from, which tell what slots there are. Nothing without such an input, and of an uplift, whose mean may be zero.
    """
    if fitted.learned == "uplift" or not knows_slots(fitted.columns):
        return {}
    place = [feature.key for feature in fitted.columns].index(SLOT.key)
    some = inputs[np.linspace(0, len(inputs) - 1, min(len(inputs), MOST_ROWS)).astype(np.intp)]

    def mean(slot: float) -> float:
        some[:, place] = slot
        return float(fitted.rates(some).mean())

    first = mean(1.0)
    return {
        f"{SLOT_FIGURE}{slot:.0f}": round(mean(slot) / first, 6) for slot in np.unique(inputs[:, place]).tolist() if slot != 1.0
    }


class SlotRates:
    """What an engine's bundle expects of rows in the slots in which they stood. `engine_at`: the engine with a slot's rates."""

    def __init__(self, engine_at: Callable[[int], Engine]) -> None:
        self._engine_at = engine_at
        self._made: dict[int, Engine] = {}

    def rates(self, chunk: Chunk, slots: Slots, first: Values) -> Values:
        """(rows, actions), as `first` has them for the first slot. `slots`: of the chunk's rows, (rows,)."""
        found, places = first.copy(), np.minimum(slots, MOST_SLOTS)
        for slot in np.unique(places[places != 1]).tolist():
            if slot not in self._made:
                self._made[slot] = self._engine_at(slot)
            rows = np.flatnonzero(places == slot)
            found[rows] = score(self._made[slot], [chunk.requests[row] for row in rows.tolist()])
        return found
