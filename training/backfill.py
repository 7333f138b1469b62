"""Features that logged decisions could not record, because their contract did not hold them: filled as of the decision.

The logged vector is the training row; what a contract knew and recorded as missing stays missing. Where a feature is newer than
a row's contract, no record can say what it was, and the row gets what serving would have read at its moment: of batch views by
Feast's point-in-time join over the offline tables, of features that events feed by the same queries point in time. A bundle's
manifest tells of each such feature.
"""

import datetime as dt
import hashlib
import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.contract import Contract, Feature
from service.bundles.manifest import Backfilled
from training.event_values import event_values
from training.known_contracts import Keys, KnownContracts
from training.lake import MOMENT

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
Columns = Mapping[str, pa.Array]
Progress = Callable[[int, int], None]

MADE_UNDER = "made_under"  # a column of decisions: the contract's fingerprint, or which columns an imported table had
UNDER = {MADE_UNDER: pa.string()}
TABLE = "table:"
BY_FEAST, BY_EVENTS, BY_NOTHING = "feast point-in-time join", "events, point in time", "nothing: only the request could tell"


class Backfill(NamedTuple):
    """One feature, row by row: whether a record could not hold it, whether it was filled, whether nobody knows. (rows,) each."""

    by: str
    unrecorded: Mask
    filled: Mask
    unknown: Mask

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> "Backfill":
        """Some of the rows, by position."""
        return Backfill(self.by, self.unrecorded[rows], self.filled[rows], self.unknown[rows])

    def summary(self, decided_at: Values) -> Backfilled:
        """What a manifest says of it. `decided_at`: seconds since 1970 UTC, (rows,)."""
        moments = decided_at[self.filled]
        since, until = (float(moments.min()), float(moments.max())) if len(moments) else (None, None)
        return Backfilled(int(self.unrecorded.sum()), len(moments), self.by, since, until, int(self.unknown.sum()))


class Logged(NamedTuple):
    """Rows of decisions: texts, seconds since 1970 UTC, and `MADE_UNDER`; (rows,) each. `tables`: what imported ones had."""

    customer_id: npt.NDArray[np.str_]
    decided_at: Values
    made_under: pa.Array
    tables: Mapping[str, Keys]


class Imported:
    """Imported tables of decisions, marked with the columns that they have."""

    def __init__(self) -> None:
        self.tables: dict[str, Keys] = {}

    def marked(self, table: pa.Table) -> pa.Table:
        """The table with `MADE_UNDER`."""
        keys = frozenset(name for name in table.column_names if "." in name)
        name = TABLE + hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16]
        self.tables[name] = keys
        return table.append_column(MADE_UNDER, pa.array([name]).take(pa.array(np.zeros(table.num_rows, np.int64))))


def backfill(
    home: Path, contract: Contract, rows: Logged, values: Columns, progress: Progress = lambda _done, _of: None
) -> tuple[Columns, dict[str, Backfill]]:
    """The columns with what could be filled, and for each feature that some rows could not record, which.

    `values`: by key of the contract, (rows,). What a row has is never replaced.
    """
    unrecorded, unknown = _missing_from(home, contract, rows, values)
    wanted = [f for f in contract.features if f.origin != "request_time" and (unrecorded[f.key].any() or unknown[f.key].any())]
    if not wanted:
        return values, {}
    live = [f for f in wanted if f.is_live and unrecorded[f.key].any()]
    batch = [f for f in wanted if f.scope == "customer" and not f.is_live and unrecorded[f.key].any()]
    found: dict[str, pa.Array] = {}
    for features in filter(None, (batch, live)):
        asked = _Asked.of(rows, np.any([unrecorded[f.key] for f in features], axis=0))
        told = _as_of(home, contract, features, asked, progress)
        found |= {key: column.combine_chunks().take(asked.place) for key, column in told.items()}
    columns, backfills = dict(values), {}
    for feature in wanted:
        key = feature.key
        mask = unrecorded[key]
        if key in found:
            columns[key] = pc.if_else(pa.array(mask), found[key].cast(values[key].type), values[key])
        filled = mask & pc.is_valid(columns[key]).to_numpy(zero_copy_only=False)
        backfills[key] = Backfill(_by(feature), mask, filled, unknown[key])
    return columns, backfills


def _by(feature: Feature) -> str:
    if feature.scope != "customer":
        return BY_NOTHING
    return BY_EVENTS if feature.is_live else BY_FEAST


def _missing_from(home: Path, contract: Contract, rows: Logged, values: Columns) -> tuple[dict[str, Mask], dict[str, Mask]]:
    """By key: which rows could not have recorded it, and of which nobody knows whether they could."""
    coded = rows.made_under.dictionary_encode()
    places, known = coded.indices.to_numpy(zero_copy_only=False), KnownContracts(home, contract)
    keys = [f.key for f in contract.features]
    unrecorded, unknown = ({key: np.zeros(len(places), np.bool_) for key in keys} for _ in range(2))
    there = {key: pc.is_valid(values[key]).to_numpy(zero_copy_only=False) for key in keys}
    for place, name in enumerate(coded.dictionary.to_pylist()):
        mine = places == place
        recorded = {key for key in keys if (there[key] & mine).any()}
        could = rows.tables[name] if name in rows.tables else known.keys(name, recorded)
        lacking = unknown if could is None else unrecorded
        for key in keys:
            if key not in (recorded if could is None else could | recorded):
                lacking[key] |= mine
    return unrecorded, unknown


class _Asked(NamedTuple):
    """Distinct customers at distinct moments, and which of them each row is, null where it is none: several slots are one."""

    table: pa.Table  # `customer_id`, `at` in seconds, `event_timestamp`
    place: pa.Array

    @classmethod
    def of(cls, rows: Logged, some: Mask) -> "_Asked":
        names, customer = np.unique(rows.customer_id[some], return_inverse=True)
        moments, moment = np.unique(rows.decided_at[some], return_inverse=True)
        pairs, found = np.unique(customer.astype(np.int64) * len(moments) + moment, return_inverse=True)
        at = moments[pairs % len(moments)]
        micros = pa.array(np.round(at * 1e6).astype(np.int64)).cast(MOMENT)
        customers = pa.array(names.tolist(), pa.string()).take(pa.array(pairs // len(moments)))
        place = np.zeros(len(some), np.int64)
        place[some] = found
        return cls(pa.table({"customer_id": customers, "at": at, "event_timestamp": micros}), pa.array(place, mask=~some))


def _as_of(
    home: Path, contract: Contract, features: Sequence[Feature], asked: _Asked, progress: Progress
) -> Mapping[str, pa.ChunkedArray]:
    """Features that events feed, or none of which they do: by key, for each question."""
    if features[0].is_live:
        return event_values(home, contract, features, asked.table.select(["customer_id", "at"]), progress)
    found: Mapping[str, pa.ChunkedArray] = _history().values_as_of(
        home, features, asked.table.select(["customer_id", "event_timestamp"]), progress
    )
    return found


def _history() -> Any:  # noqa: ANN401  # a module; Feast takes 4 s to load, and most trainings have nothing to fill
    return importlib.import_module("features.history")


def digest_of(values: Columns, keys: Collection[str]) -> pa.Array:
    """A text for each row: its values of some features, as a fingerprint takes them."""
    columns = [pc.fill_null(values[key].cast(pa.string()), "") for key in sorted(keys)]
    return pc.binary_join_element_wise(*columns, "|")


def in_words(key: str, found: Backfilled) -> str:
    """One feature of a manifest, for people."""
    if not found.rows:
        return f"`{key}`: {found.unknown:,} rows of a contract that nobody knows any more stay without it"
    span = "" if found.since is None or found.until is None else f", {_day(found.since)} to {_day(found.until)}"
    doubt = f"; {found.unknown:,} rows of a contract that nobody knows any more stay without it" if found.unknown else ""
    if found.by == BY_NOTHING:
        return f"`{key}`: none of {found.rows:,} rows filled ({found.by}){doubt}"
    return f"`{key}`: {found.filled:,} of {found.rows:,} rows that could not record it were filled ({found.by}{span}){doubt}"


def card(backfilled: Mapping[str, Backfilled]) -> tuple[str, ...]:
    """What a bundle's card says of features that were filled, a line each."""
    return tuple(in_words(key, found) for key, found in backfilled.items())


def _day(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d}"
