"""Named values to a float32 matrix: the one function that live decisions and training both call."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from features.contract import Feature

UNSEEN = -1.0  # the code of a category that the vocabulary does not hold; missing is NaN

Column = Sequence[object] | npt.NDArray[np.generic]
Matrix = npt.NDArray[np.float32]


def vectorize(inputs: Sequence[Feature], columns: Mapping[str, Column], rows: int) -> Matrix:
    """Model inputs for a batch: float32, (rows, inputs).

    `columns` maps a feature's key (`customer.recency`) to `rows` values; an absent column is missing throughout. A value
    that is None, not finite, beyond float32 or of the wrong type is missing too: the default stands in for it, or NaN.
    Raises ValueError where a column has another length than `rows`.
    """
    matrix = np.empty((rows, len(inputs)), np.float32)
    for position, feature in enumerate(inputs):
        column = columns.get(feature.key)
        matrix[:, position] = _encode_default(feature) if column is None else encode_column(feature, column)
    return matrix


def encode_column(feature: Feature, column: Column) -> Matrix:
    """One input for every row: float32, (rows,). A number as itself, a category as its code."""
    codes = _category_codes(feature, column) if feature.type == "category" else _numbers(column)
    return np.where(np.isfinite(codes), codes, _encode_default(feature))


def encode_value(feature: Feature, value: object) -> float:
    """One value as the model sees it: `encode_column` for a single row."""
    return float(encode_column(feature, [value])[0])


def _encode_default(feature: Feature) -> np.float32:
    if feature.default is None:
        return np.float32(np.nan)
    if isinstance(feature.default, str):
        return np.float32(feature.categories.index(feature.default))
    return np.float32(feature.default)


def _numbers(column: Column) -> Matrix:
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        values: npt.NDArray[np.generic] = column
    else:
        values = np.array([v if isinstance(v, int | float) else np.nan for v in column], np.float64)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and infinite is missing
        return values.astype(np.float32)


def _category_codes(feature: Feature, column: Column) -> Matrix:
    codes = {category: float(code) for code, category in enumerate(feature.categories)}
    if isinstance(column, np.ndarray) and column.dtype.kind == "U":
        distinct, inverse = np.unique(column, return_inverse=True)
        return np.array([codes.get(str(v), UNSEEN) for v in distinct], np.float32)[inverse]
    return np.array([codes.get(v, UNSEEN) if isinstance(v, str) else np.nan for v in column], np.float32)
