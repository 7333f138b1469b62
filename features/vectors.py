"""Named values to a float32 matrix: the one function that live decisions and training both call."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from features import native
from features.contract import Feature

UNSEEN = -1.0  # the code of a category that the vocabulary does not hold; missing is NaN
NUMBERS, NAMES = frozenset((float, int, bool, type(None))), frozenset((str, type(None)))  # what may stand for a value of its type


class Repeated(NamedTuple):
    """A column of few distinct values: row r has `values[place[r]]`."""

    values: Sequence[object]
    place: npt.NDArray[np.integer[Any]]


Column = Sequence[object] | npt.NDArray[np.generic] | Repeated
Matrix = npt.NDArray[np.float32]


def vectorize(inputs: Sequence[Feature], columns: Mapping[str, Column], rows: int) -> Matrix:
    """Model inputs for a batch: float32, (rows, inputs).

    `columns` maps a feature's key (`customer.recency`) to `rows` values; an absent column is missing throughout. A value
    that is None, not finite, beyond float32 or of the wrong type is missing too: the default stands in for it, or NaN.
    A match or a pair (`match.category`) is worked out from the input that it names and the attribute (`action.category`).
    Raises ValueError where a column has another length than `rows`, or a match or pair names none of the inputs.
    """
    matrix = np.empty((rows, len(inputs)), np.float32)
    for position, feature in enumerate(inputs):
        if feature.matches is None:
            column = columns.get(feature.key)
            matrix[:, position] = _encode_default(feature) if column is None else encode_column(feature, column)
    for position, feature in enumerate(inputs):
        if feature.matches is not None:
            place, offered = place_of(feature.matches, inputs), columns.get(f"action.{feature.name}")
            found = np.float32(np.nan) if offered is None else _together(feature, inputs[place], matrix[:, place], offered)
            matrix[:, position] = found
    return matrix


def _together(feature: Feature, category: Feature, known: Matrix, offered: Column) -> Matrix:
    """A match or a pair, of each row's category and attribute."""
    if feature.origin == "match":
        return matches(known, match_codes(category, offered))
    names, place = offered if isinstance(offered, Repeated) else (list(offered), np.arange(len(offered)))
    found: Matrix = pair_table(feature, category, names)[place, pair_places(category, known)]
    return found


def place_of(key: str, inputs: Sequence[Feature]) -> int:
    """Where the input with this key stands. Raises ValueError where there is none."""
    return [feature.key for feature in inputs].index(key)


def match_codes(category: Feature, names: Column) -> Matrix:
    """An attribute's values as the category that they are matched with has them: float32, (values,), NaN where missing.

    By name, since the vocabularies of the two sides differ. No default stands in: it is the customer's.
    """
    return encode_column(msgspec.structs.replace(category, default=None), names)


def matches(known: Matrix, offered: Matrix | np.float32) -> Matrix:
    """1 where two codes of one vocabulary are the same, 0 where they differ, NaN where either is missing: float32.

    Shapes broadcast. What the vocabulary does not hold equals nothing: of two such values nobody knows whether they are the same.
    """
    same = ((known == offered) & (known >= 0.0)).astype(np.float32)
    return np.where(np.isnan(known) | np.isnan(offered), np.float32(np.nan), same)


class RowEncoder:
    """What `vectorize` says of columns, said of rows: for the few requests that are decided together.

    36 numbers and 8 categories of one request take 2 us, of 16 requests 1 us each; without C 11 and 6, `vectorize` 370 and 50.
    """

    def __init__(self, inputs: Sequence[Feature], rows: ModuleType | None = native.rows) -> None:
        """`rows`: what encodes in C; None: Python does."""
        self._inputs = tuple(inputs)
        self._c = rows
        kinds = [(kind, of_customer) for kind in ("number", "category") for of_customer in (True, False)]
        parts = [[f for f in self._inputs if (f.type, f.scope == "customer") == kind] for kind in kinds]
        self._numbers, self._context_numbers, self._categories, self._context_categories = (
            tuple(f.name for f in part) for part in parts
        )
        self._codes = [_codes(f) for part in parts[2:] for f in part]
        read = [f for part in parts for f in part]
        self._order = np.array([read.index(f) for f in self._inputs], np.intp)
        self._defaults = np.array([_encode_default(f) for f in self._inputs], np.float32)
        self._in_c = (
            tuple(f.name for f in self._inputs),
            bytes(f.scope != "customer" for f in self._inputs),
            tuple(_codes(f) if f.type == "category" else None for f in self._inputs),
            self._defaults,
        )

    def encode(self, customers: Sequence[Mapping[str, object]], contexts: Sequence[Mapping[str, object]]) -> Matrix:
        """float32, (rows, inputs): one row for each customer, with the context of their request. Values are by feature name."""
        if self._c is not None:
            matrix = np.empty((len(customers), len(self._inputs)), np.float32)
            if self._c.encode(*self._in_c, list(customers), list(contexts), matrix):
                return matrix
        rows = [self._row(customer, context) for customer, context in zip(customers, contexts, strict=True)]
        if not rows or not self._inputs or not all(rows):
            return self._by_columns(customers, contexts)
        with np.errstate(over="ignore"):  # as in `vectorize`
            matrix = np.array(rows, np.float64).take(self._order, axis=1).astype(np.float32)
        return np.where(np.isfinite(matrix), matrix, self._defaults)

    def _row(self, customer: Mapping[str, object], context: Mapping[str, object]) -> list[object]:
        """Numbers, then codes; empty where a value is of the wrong type."""
        numbers = [*map(customer.get, self._numbers), *map(context.get, self._context_numbers)]
        names = [*map(customer.get, self._categories), *map(context.get, self._context_categories)]
        if NUMBERS.issuperset(map(type, numbers)) and NAMES.issuperset(map(type, names)):
            return numbers + [codes.get(name, UNSEEN) for codes, name in zip(self._codes, names, strict=True)]
        return []

    def _by_columns(self, customers: Sequence[Mapping[str, object]], contexts: Sequence[Mapping[str, object]]) -> Matrix:
        sources = ((f, customers if f.scope == "customer" else contexts) for f in self._inputs)
        columns = {f.key: [row.get(f.name) for row in rows] for f, rows in sources}
        return vectorize(self._inputs, columns, len(customers))


def encode_column(feature: Feature, column: Column) -> Matrix:
    """One input for every row: float32, (rows,). A number as itself, a category as its code."""
    if isinstance(column, Repeated):
        return encode_column(feature, column.values).take(column.place)
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


def _codes(feature: Feature) -> dict[object, float]:
    return {None: np.nan} | {category: float(code) for code, category in enumerate(feature.categories)}


def _category_codes(feature: Feature, column: Column) -> Matrix:
    codes = _codes(feature)
    if isinstance(column, np.ndarray) and column.dtype.kind == "U":
        distinct, inverse = np.unique(column, return_inverse=True)
        return np.array([codes.get(str(v), UNSEEN) for v in distinct], np.float32)[inverse]
    return np.array([codes.get(v, UNSEEN) if isinstance(v, str) else np.nan for v in column], np.float32)


def pair_table(pair: Feature, category: Feature, names: Sequence[object]) -> Matrix:
    """What pairs of these values of the attribute brought: float32, (names, categories + 1), the last for any other category.

    NaN where nobody knows.
    """
    told = [pair.rates.get(name, {}) if isinstance(name, str) else {} for name in names]
    rows = [[own.get(one, np.nan) for one in category.categories] + [np.nan] for own in told]
    return np.array(rows, np.float32).reshape(len(names), len(category.categories) + 1)


def pair_places(category: Feature, known: Matrix) -> npt.NDArray[np.intp]:
    """In which columns of a table codes of the category are found, the last where they are none."""
    size = len(category.categories)
    there = (known >= 0.0) & (known < size) & (known == np.floor(known))
    return np.where(there, known, np.float32(size)).astype(np.intp)
