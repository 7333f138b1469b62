"""What every action changes against doing nothing, learned by one model that can be served.

Each row gets a doubly robust score of each action's gain, `training.uplift`, and one regression of all of them on the inputs of
customer and action predicts it (Kennedy 2023, algorithm 1); with the action among the inputs, what is alike learns together.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from features.contract import Feature
from features.vectors import Matrix
from service.catalog.entities import Action
from service.errors import NotReady
from training.calibrate import IDENTITY
from training.examples import Examples
from training.fit import FitSettings, Fitted, Progress, grow_here, growth_of
from training.threads import threads_for
from training.uplift import FEWEST_ROWS, FOLDS, reward_model

Values = npt.NDArray[np.float64]

MOST_PAIRS = 1_000_000  # of a row and an action: 40 float32 inputs of them are 160 MB; beyond, rows are picked at random
MOST_LEAVES, LEAST_IN_LEAF = 8, 200  # scores are far noisier than outcomes


class Gains(NamedTuple):
    """The learned model, and the mean gain of each action over doing nothing on the rows learned from: of the scores."""

    fitted: Fitted
    means: dict[str, float]


class _Pairs(NamedTuple):
    """Inputs of rows with each of the actions, and the scores of what that gains: (rows, actions, columns), (rows, actions)."""

    inputs: Matrix
    scores: Values


def fit_uplift(
    learned: Examples, columns: Sequence[Feature], actions: Sequence[Action], settings: FitSettings,
    progress: Progress | None = None,
) -> Gains:  # fmt: skip
    """Learn from rows of which one action, or several, of kind `nothing` are among what was done. Raises NotReady."""
    nothing = _nothing(learned, actions)
    others = [name for name in sorted(set(learned.action_id.tolist())) if name not in nothing]
    if not others:
        raise NotReady("Expected rows of actions beside doing nothing, found none - at `--uplift`")
    attributes = {action.id: action.attributes for action in actions}
    pairs = _pairs(picked(learned, len(others), settings.seed), columns, attributes, (nothing[0], others, settings.seed))
    rows, count, width = pairs.inputs.shape
    modest = msgspec.structs.replace(
        settings, monotone={}, leaves=min(settings.leaves, MOST_LEAVES), rows_per_leaf=max(settings.rows_per_leaf, LEAST_IN_LEAF)
    )
    scores = pairs.scores.reshape(rows * count)
    growth, _ = growth_of(pairs.inputs.reshape(rows * count, width), scores, columns, modest, learned="uplift", progress=progress)
    means = dict(zip(others, pairs.scores.mean(axis=0).tolist(), strict=True)) | dict.fromkeys(nothing, 0.0)
    fitted = Fitted(grow_here(growth), IDENTITY, tuple(columns), modest, {}, "uplift")
    return Gains(fitted, means)


def _nothing(learned: Examples, actions: Sequence[Action]) -> list[str]:
    """The actions that do nothing, as the catalog says, of which there are rows enough: the most frequent first."""
    counts = {a.id: int((learned.action_id == a.id).sum()) for a in actions if a.kind == "nothing"}
    found = sorted((name for name, rows in counts.items() if rows), key=lambda name: -counts[name])
    if not found or counts[found[0]] < FEWEST_ROWS:
        told = ", ".join(f"`{name}` {rows}" for name, rows in counts.items()) or "no such action in the catalog"
        raise NotReady(
            f"Expected at least {FEWEST_ROWS} rows of an action of kind `nothing`, against which others gain, found {told} - at "
            "`--uplift`"
        )
    return found


def picked(learned: Examples, actions: int, seed: int) -> Examples:
    """So many rows at random as there may be pairs with so many actions; all of them where they are fewer."""
    most = MOST_PAIRS // actions
    if len(learned) <= most:
        return learned
    return learned.take(np.sort(np.random.default_rng(seed).choice(len(learned), most, replace=False)))


def _pairs(
    learned: Examples, columns: Sequence[Feature], attributes: dict[str, dict[str, float | str]], what: tuple[str, list[str], int]
) -> _Pairs:
    """`what`: the action that does nothing, the others, a seed. Rows are scored by models that have not seen them."""
    nothing, others, seed = what

    def as_if(action: str) -> Matrix:
        """The rows as they would be if this had been done."""
        return replace(learned, action_id=np.full(len(learned), action)).matrix(columns, attributes)

    served, idle, inputs = learned.matrix(columns, attributes), as_if(nothing), [as_if(action) for action in others]
    folds = np.random.default_rng(seed).permutation(len(learned)) % FOLDS
    scores = np.empty((len(learned), len(others)))
    for fold in range(FOLDS):
        own = folds == fold
        model, some = reward_model(served[~own], learned.label[~own], seed), learned.take(own)
        threads = threads_for(int(own.sum()))
        base = _score(some, nothing, model.predict(idle[own], num_threads=threads))
        for place, action in enumerate(others):
            scores[own, place] = _score(some, action, model.predict(inputs[place][own], num_threads=threads)) - base
    return _Pairs(np.stack(inputs, axis=1), scores)


def _score(rows: Examples, action: str, expected: Values) -> Values:
    """What the action would have brought: expected, corrected where it was done. (rows,). Dudik et al. 2011."""
    done = rows.action_id == action
    return expected + np.where(done, (rows.label - expected) / rows.choice_probability, 0.0)
