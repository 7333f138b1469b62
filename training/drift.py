"""Whether what is seen now still looks like what a model has learned from: one column at a time, and all of them together."""

from typing import NamedTuple, TypeVar

import lightgbm
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import chi2, mannwhitneyu

Values = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]
Float = TypeVar("Float", np.float32, np.float64)

BINS = 10  # of a number, by the reference's quantiles; missing is one more
SHIFTED = 0.25  # stability index from which a column counts as another one: Siddiqi 2006
RARE = 0.01  # a category that fewer of the reference have is one of the others
CHANCE = 0.001  # how often rows of one world may seem to be of two
TOLD_APART = 0.55  # AUC: below, a model cannot do much with the difference
FOLDS, ROUNDS = 2, 40


class ColumnDrift(msgspec.Struct, frozen=True):
    """One column. `index`: its population stability index; in 999 of 1,000 worlds without a shift it stays below `by_chance`."""

    column: str
    index: float
    by_chance: float

    @property
    def is_shifted(self) -> bool:
        """Whether it is another column now, and not by chance."""
        return self.index > max(SHIFTED, self.by_chance)


class DriftReport(msgspec.Struct, frozen=True):
    """Columns, the most shifted first; how well a model tells old rows from new ones (AUC), and how likely chance is to."""

    columns: tuple[ColumnDrift, ...]
    auc: float
    p: float

    @property
    def shifted(self) -> tuple[ColumnDrift, ...]:
        """The columns that have moved."""
        return tuple(one for one in self.columns if one.is_shifted)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why somebody should look, in words; empty where nothing has moved."""
        told = [f"`{one.column}` has moved: stability index {one.index:.2f}, {SHIFTED:g} is much" for one in self.shifted]
        if self.auc > TOLD_APART and self.p < CHANCE:
            told.append(f"old rows can be told from new ones: AUC {self.auc:.3f}, p {self.p:.1e}")
        return tuple(told)


def drift(reference: pa.Table, current: pa.Table, seed: int = 0, customers: tuple[Names, Names] | None = None) -> DriftReport:
    """Rows of then and now, with the same columns: numbers or texts, null where missing. Raises ValueError without rows.

    `customers`: whose the rows of either side are; without, each row is somebody else's. Whoever has several rows of a side
    counts more than chance knows: hand in one.
    """
    if not reference.num_rows or not current.num_rows:
        raise ValueError(f"Expected rows of then and now, got {reference.num_rows} and {current.num_rows}")
    binned = {name: _binned(reference[name], current[name]) for name in reference.column_names}
    columns = [_column(name, *found) for name, found in binned.items()]
    auc, p = _told_apart(reference, current, seed, customers)
    return DriftReport(tuple(sorted(columns, key=lambda one: -one.index)), auc, p)


def stability_index(reference: Values, current: Values) -> float:
    """Sum of (c - r) ln(c / r) over bins, of shares (bins,) each: Siddiqi 2006; Jeffreys' divergence. None is zero."""
    return float(((current - reference) * np.log(current / reference)).sum())


def parting(quantiles: npt.NDArray[Float]) -> npt.NDArray[Float]:
    """Edges of bins, each of which ends with its edge, ascending.

    Where several quantiles are one value, it has a bin of its own: else an input that is nearly always the same could become
    less, and nobody would notice.
    """
    distinct, times = np.unique(quantiles, return_counts=True)
    return np.unique(np.concatenate([distinct, np.nextafter(distinct[times > 1], -np.inf, dtype=distinct.dtype)]))


def _column(name: str, then: npt.NDArray[np.intp], now: npt.NDArray[np.intp]) -> ColumnDrift:
    """Counts (bins,). A bin that one side does not have counts as half a row there, so that no index is infinite."""
    there = (then > 0) | (now > 0)
    shares = [_shares(counts[there]) for counts in (then, now)]
    free = max(1, int(there.sum()) - 1)
    # without a shift the index is nearly chi-square distributed, times the sum of both sides' 1 / rows: Yurdakul 2018
    by_chance = float(chi2.isf(CHANCE, free) * (1.0 / then.sum() + 1.0 / now.sum()))
    return ColumnDrift(name, stability_index(*shares), by_chance)


def _shares(counts: npt.NDArray[np.intp]) -> Values:
    filled = np.maximum(counts.astype(np.float64), 0.5)
    return np.asarray(filled / filled.sum(), np.float64)


def _binned(reference: pa.ChunkedArray, current: pa.ChunkedArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """How many rows of either side lie in each bin."""
    places = [_places(column, reference) for column in (reference, current)]
    size = 1 + max(int(found.max(initial=0)) for found in places)
    return np.bincount(places[0], minlength=size), np.bincount(places[1], minlength=size)


def _places(column: pa.ChunkedArray, reference: pa.ChunkedArray) -> npt.NDArray[np.intp]:
    """The bin of each row: 0 for a missing value."""
    if _is_text(reference):
        known = _common(reference)
        found = pc.fill_null(pc.index_in(column.cast(pa.string()), pa.array(known, pa.string())), len(known)).to_numpy()
        return np.where(pc.is_null(column).to_numpy(), 0, found + 1).astype(np.intp)
    then = _numbers(reference)
    edges = parting(np.quantile(then[~np.isnan(then)], np.arange(1, BINS) / BINS)) if (~np.isnan(then)).any() else np.zeros(0)
    values = _numbers(column)
    return np.where(np.isnan(values), 0, np.searchsorted(edges, values) + 1).astype(np.intp)


def _is_text(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_dictionary(column.type))


def _common(column: pa.ChunkedArray) -> list[str]:
    counted = column.cast(pa.string()).drop_null().value_counts().to_pylist()
    return sorted(one["values"] for one in counted if one["counts"] >= RARE * len(column))


def _numbers(column: pa.ChunkedArray) -> Values:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy(), np.float64)


class _Rows(NamedTuple):
    """What the classifier sees: (rows, columns), and whether a row is of now."""

    inputs: Values
    now: npt.NDArray[np.bool_]


def _told_apart(
    reference: pa.Table, current: pa.Table, seed: int, customers: tuple[Names, Names] | None
) -> tuple[float, float]:  # fmt: skip
    """AUC of a model that guesses, of rows of customers whom it has not seen, which are new; and its p (Mann and Whitney 1947).

    The classifier two-sample test: Lopez-Paz and Oquab 2017.
    """
    rows = _rows(reference, current)
    own = np.arange(len(rows.now)) if customers is None else np.unique(np.concatenate(customers), return_inverse=True)[1]
    folds = (np.random.default_rng(seed).permutation(own.max() + 1) % FOLDS)[own]
    settings = {"objective": "binary", "num_leaves": 15, "verbosity": -1, "seed": seed, "num_threads": 1, "deterministic": True}
    guessed = np.zeros(len(rows.now))
    for fold in range(FOLDS):
        seen = folds != fold
        if rows.now[seen].all() or not rows.now[seen].any():
            return 0.5, 1.0  # so few rows that one side is not there
        model = lightgbm.train(settings, lightgbm.Dataset(rows.inputs[seen], rows.now[seen]), ROUNDS)
        guessed[~seen] = model.predict(rows.inputs[~seen])
    new, old = guessed[rows.now], guessed[~rows.now]
    wins, p = mannwhitneyu(new, old, alternative="greater", method="asymptotic")
    return float(wins) / (len(new) * len(old)), float(p)


def _rows(reference: pa.Table, current: pa.Table) -> _Rows:
    def inputs(table: pa.Table) -> Values:
        return np.column_stack([_input(table[name], reference[name]) for name in reference.column_names])

    now = np.repeat([False, True], [reference.num_rows, current.num_rows])
    return _Rows(np.concatenate([inputs(reference), inputs(current)]), now)


def _input(column: pa.ChunkedArray, reference: pa.ChunkedArray) -> Values:
    """A number as it is, a text as its bin."""
    return _places(column, reference).astype(np.float64) if _is_text(reference) else _numbers(column)
