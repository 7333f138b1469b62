"""How far a predicted value may be from what came by chance, where a few rows bring all of it."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from training.fit import VALIDATION_SHARE

Values = npt.NDArray[np.float64]


def level_error(label: Values, predicted: Values, amounts: float) -> float:
    """The standard error of the difference of both means: (rows,) each. `amounts`: how many the bundle has learned from.

    New rows scatter; and the level was fitted on amounts that did: how many there are on the last fifth of the rows, how large
    they are on all of them.
    """
    here = float((label - predicted).var()) / len(label)
    above = label[label > 0]
    spread = float(above.var() / above.mean() ** 2) if len(above) else 1.0
    then = (1.0 / VALIDATION_SHARE + spread) / max(1.0, amounts)
    return float((here + float(predicted.mean()) ** 2 * then) ** 0.5)


def by_action(actions: npt.NDArray[np.str_], fewest: int) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """The rows of each action that has so many: (rows,)."""
    distinct, counts = np.unique(actions, return_counts=True)
    for action in distinct[counts >= fewest].tolist():
        yield action, actions == action
