"""What pairs of a customer's category and an action's attribute brought: learned before the trees, and one of their inputs.

Which category goes with which is one question to a tree then, where it would be one for each category. Means of the label by
category as an input: Micci-Barreca 2001, smoothed towards the mean of all as there (eq. 3 with m / (n + m)).
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from features.contract import Feature
from features.vectors import Matrix, pair_places, pair_table, place_of
from training.fit import VALIDATION_SHARE

Values = npt.NDArray[np.float64]

PRIOR_ROWS = 20  # as many rows as a pair needs before its own rate counts half
MOST_CATEGORIES = 20  # of the customer's vocabulary, and of the attribute's: a pair of more has too few rows to be told by


def with_pairs(columns: Sequence[Feature], inputs: Matrix, labels: Values) -> tuple[tuple[Feature, ...], Matrix]:
    """The columns with what their pairs brought, and the rows as a model then meets them: float32 (rows, columns), (rows,).

    From the rows that trees grow on alone (all but the last fifth), so that the others say how far pairs can be trusted.
    """
    learned, found = list(columns), inputs
    for position, feature in enumerate(columns):
        if feature.origin == "pair" and feature.matches is not None:
            places = place_of(feature.matches, columns), place_of(f"action.{feature.name}", columns)
            known, offered = (columns[place] for place in places)
            if max(len(known.categories), len(offered.categories)) <= MOST_CATEGORIES:
                who, what = pair_places(known, inputs[:, places[0]]), pair_places(offered, inputs[:, places[1]])
                learned[position] = msgspec.structs.replace(feature, rates=_rates((known, offered), (who, what), labels))
                table = pair_table(learned[position], known, [*offered.categories, None])
                found = found.copy() if found is inputs else found
                found[:, position] = table[what, who]
    return tuple(learned), found


def _rates(
    sides: tuple[Feature, Feature], places: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]], labels: Values
) -> dict[str, dict[str, float]]:
    """By the attribute's value and the category, of all that the rows have values of."""
    (known, offered), cut = sides, int(len(labels) * (1 - VALIDATION_SHARE))
    who, what = (place[:cut] for place in places)
    shape = len(offered.categories) + 1, len(known.categories) + 1
    pair = what * shape[1] + who
    counts = np.bincount(pair, minlength=shape[0] * shape[1]).reshape(shape)
    sums = np.bincount(pair, labels[:cut], minlength=shape[0] * shape[1]).reshape(shape)
    mean = float(labels[:cut].sum()) / max(1, cut)
    rates = (sums + PRIOR_ROWS * mean) / (counts + PRIOR_ROWS)
    return {
        name: dict(zip(known.categories, rates[row].tolist(), strict=False))
        for row, name in enumerate(offered.categories) if counts[row].any()
    }  # fmt: skip
