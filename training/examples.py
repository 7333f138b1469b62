"""What was served, joined with what came of it: the rows that training and evaluation work on."""

import datetime as dt
import hashlib
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.contract import ACTION_ID, MOST_SLOTS, SLOT, Contract, Feature
from features.request_time import TIME_ZONE, is_zone, request_time_values
from features.vectors import Column, Matrix, Repeated, vectorize
from service.bundles.manifest import VALUE_PREFIX
from service.decision.records import DecisionRecord, OutcomeRecord
from service.errors import BadRequest, NotReady
from service.registry import Registry
from training.backfill import MADE_UNDER, UNDER, Backfill, Imported, Logged, backfill, digest_of
from training.circumstances import CIRCUMSTANCES, circumstances_of
from training.lake import DECISION_COLUMNS, OUTCOME_COLUMNS, read_tables
from training.learning_rules import read_rules
from training.left_out import LeftOut, left_out
from training.live_log import records_in, sources

Values = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]

DECODED_AT_ONCE = 20_000  # records: a decision is about 10 objects for each value, and Arrow's columns a twentieth of that

JOIN = """
    with d as (select distinct on (decision_id, placement, slot) * from decisions),
         o as (select distinct on (outcome_id) * from outcomes),
         pairs as (
             select d.decision_id, d.placement, d.slot, o.at, o.value,
                    o.type = $type and o.at between d.decided_at - $before and d.decided_at + $after as counts
             from d join o on o.decision_id = d.decision_id
                  and coalesce(o.placement, d.placement) = d.placement and coalesce(o.action_id, d.action_id) = d.action_id),
         joined as (
             select decision_id, placement, slot, count(*) filter (counts) as times,
                    coalesce(sum(pairs.value) filter (counts), 0) as worth, min(pairs.at) filter (counts) as first_at
             from pairs group by all)
    select d.row, joined.times, joined.worth, joined.first_at from d join joined using (decision_id, placement, slot)
    order by d.decided_at, d.decision_id, d.placement, d.slot
"""
JOINED = ("decision_id", "placement", "slot", "action_id", "decided_at")  # all that the join looks at: a row may be wide
MEMORY = "2GB"  # of the join; what is more goes to disk
RowsOf = Callable[[DecisionRecord, Contract], Sequence[Mapping[str, Any]]]
Progress = Callable[[int, int], None]
FOREVER = 1e10  # seconds: 317 years, so that also a clock that begins in 1970 is within them
# seconds that an outcome may be dated before its decision: the clock of a telephone that is some minutes slow, or an hour since
# summer time. What is dated earlier than that is about something else, or its moment means nothing
CLOCK_BEHIND = 3600.0
UTC = "UTC"
ZONES = (f"customer.{TIME_ZONE}", f"context.{TIME_ZONE}")  # whichever comes first and is known


class Objective(msgspec.Struct, frozen=True):
    """What success is: an outcome of a type (a rate), or the sum of its values, within `window` seconds of the decision.

    Without a window an outcome counts whenever it comes, and whatever its moment.
    """

    name: str
    window: float | None = None

    @property
    def outcome(self) -> str:
        return self.name.removeprefix(VALUE_PREFIX)

    @property
    def span(self) -> tuple[float, float]:
        """How long before its decision an outcome may be dated, and how long after: seconds."""
        return (FOREVER, FOREVER) if self.window is None else (CLOCK_BEHIND, self.window)

    @property
    def is_value(self) -> bool:
        return self.name.startswith(VALUE_PREFIX)


@dataclass(frozen=True)
class Examples:
    """Rows in the order of their decisions. `values` holds columns by key (`customer.age`), numbers or texts; null is missing.

    `decided_at` is in seconds since 1970 UTC. `label` is 0 or 1, or a sum of values. `delay`: seconds to the first success, NaN
    without one. `complete_until`: until when outcomes are known. `damaged` counts unreadable log lines. `backfills`: by key,
    features that some rows could not record. `left_out`: rows of customers from whom nobody learns, which are not here.
    `circumstances`: what else bore on each choice (`training.circumstances`); None where nobody knows.
    """

    decision_id: pa.Array
    customer_id: Names
    decided_at: Values
    placement: Names
    slot: npt.NDArray[np.int64]
    action_id: Names
    choice_probability: Values
    label: Values
    values: Mapping[str, pa.Array]
    damaged: int = 0
    delay: Values | None = None
    complete_until: float = np.inf
    backfills: Mapping[str, Backfill] = field(default_factory=dict)
    left_out: int = 0
    circumstances: pa.Array | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def age(self) -> Values:
        """For how long outcomes of each row could come, in seconds: (rows,)."""
        return self.complete_until - self.decided_at

    def matrix(self, inputs: Sequence[Feature], attributes: Mapping[str, Mapping[str, float | str]]) -> Matrix:
        """Model inputs by the very function that serves: float32, (rows, inputs). `attributes`: values by action.

        An action's slot is the one in which it stood.
        """
        columns: dict[str, Column] = {f.key: _column(self.values[f.key]) for f in inputs if f.key in self.values}
        actions, place = np.unique(self.action_id, return_inverse=True)
        for feature in inputs:
            if not feature.is_of_request:
                columns[f"action.{feature.name}"] = Repeated(
                    [attributes.get(a, {}).get(feature.name) for a in actions.tolist()], place
                )
        columns[f"action.{ACTION_ID}"] = Repeated(actions.tolist(), place)
        columns[SLOT.key] = np.minimum(self.slot, MOST_SLOTS)
        return vectorize(inputs, columns, len(self))

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "Examples":
        """Some of the rows, by mask or by position."""
        positions = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        picked = pa.array(positions)
        return Examples(
            decision_id=self.decision_id.take(picked), customer_id=self.customer_id[positions],
            decided_at=self.decided_at[positions], placement=self.placement[positions], slot=self.slot[positions],
            action_id=self.action_id[positions], choice_probability=self.choice_probability[positions],
            label=self.label[positions],
            values={key: column.take(picked) for key, column in self.values.items()}, damaged=self.damaged,
            delay=None if self.delay is None else self.delay[positions], complete_until=self.complete_until,
            backfills={key: one.take(np.asarray(positions, np.intp)) for key, one in self.backfills.items()},
            left_out=self.left_out, circumstances=None if self.circumstances is None else self.circumstances.take(picked),
        )  # fmt: skip

    def with_label(self, label: Values) -> "Examples":
        """The same rows with other labels: (rows,)."""
        return replace(self, label=label)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: changes with any decision, label or value filled in; the order of rows does not count."""
        labels = pa.array(self.label).cast(pa.string())
        rows = pc.binary_join_element_wise(self.decision_id, pa.array(self.action_id), labels, "|")
        if keys := [key for key, one in self.backfills.items() if one.filled.any()]:
            rows = pc.binary_join_element_wise(rows, digest_of(self.values, keys), "|")
        rows, digest = rows.take(pc.sort_indices(rows)), hashlib.sha256()
        for start in range(0, len(rows), DECODED_AT_ONCE):
            digest.update("\n".join(rows.slice(start, DECODED_AT_ONCE).to_pylist()).encode())
        return digest.hexdigest()[:16]


def _column(values: pa.Array) -> Column:
    """A column of Arrow as `vectorize` takes it."""
    if pa.types.is_floating(values.type):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    coded = values.cast(pa.string()).dictionary_encode()
    names: list[str | None] = coded.dictionary.to_pylist()
    place = pc.fill_null(coded.indices, len(names)).to_numpy(zero_copy_only=False)
    return Repeated([*names, None], place)


def load_examples(
    home: Path, objective: Objective, contract: Contract, progress: Progress = lambda _done, _of: None, *, fill: bool = True
) -> Examples:
    """Every decision that was shown, from lake and live log. Raises NotReady where there is none.

    Shown means: an impression came back, or an outcome of any other kind. Fallbacks are no decisions and left out. Outcomes
    that come later than the objective's window do not count; rows that are younger than that are among them (`maturity`). Rows of
    customers who were erased since, or do not want to be known, are left out (`training.left_out`).
    What a row's contract did not know is filled as of its moment (`training.backfill`), unless `fill` or learning.toml forbid it.
    """
    live, imported = LiveLog(home, contract), Imported()
    found, until = _joined(home, objective, contract, live, imported)
    if not found.num_rows:
        raise NotReady(f"Expected decisions with outcomes under `{home}`, found none: import a table, or serve and send outcomes")
    made = _examples(found, objective, contract, _Known(live.damaged, until, serving_zone(home)))
    found, examples = _without(left_out(home), found, made)
    if not fill or read_rules(home).training.backfill == "none":
        return examples
    logged = Logged(examples.customer_id, examples.decided_at, _whole(found[MADE_UNDER]), imported.tables)
    values, backfills = backfill(home, contract, logged, examples.values, progress)
    return replace(examples, values=values, backfills=backfills)


def _without(out: LeftOut, found: pa.Table, examples: Examples) -> tuple[pa.Table, Examples]:
    """The rows from which may be learned. Raises NotReady where there is none."""
    rows = out.mask(examples.customer_id, examples.decided_at)
    if not rows.any():
        return found, examples
    if rows.all():
        raise NotReady(
            "Expected decisions to learn from, found only those of customers who were erased or do not want to be known"
        )
    kept = np.flatnonzero(~rows)
    return found.take(pa.array(kept)), replace(examples.take(kept), left_out=int(rows.sum()))


def _joined(home: Path, objective: Objective, contract: Contract, live: "LiveLog", imported: Imported) -> tuple[pa.Table, float]:
    """The rows, and until when outcomes are known, in seconds since 1970 UTC."""
    keys = [f.key for f in contract.features]
    logged = [*map(imported.marked, read_tables(home, "decisions")), *live.decisions()]
    decisions = together(logged, DECISION_COLUMNS | UNDER | CIRCUMSTANCES, contract, keys)
    outcomes = together([*read_tables(home, "outcomes"), *live.outcomes()], OUTCOME_COLUMNS, contract, [])
    complete = [pc.max(table[name]).as_py() for table, name in ((decisions, "decided_at"), (outcomes, "at")) if len(table)]
    until = max(complete).timestamp() if complete else np.inf
    settings = {"memory_limit": MEMORY, "preserve_insertion_order": "false"}
    with tempfile.TemporaryDirectory() as spilled, duckdb.connect(config={**settings, "temp_directory": spilled}) as connection:
        # a window is added there, and in a zone with summer time some days have 23 hours
        connection.execute("set timezone = 'UTC'")
        numbered = decisions.select(JOINED).append_column("row", pa.array(np.arange(decisions.num_rows)))
        connection.register("decisions", numbered)
        connection.register("outcomes", outcomes)
        before, after = (dt.timedelta(seconds=length) for length in objective.span)
        found = connection.execute(JOIN, {"type": objective.outcome, "before": before, "after": after}).to_arrow_table()
    rows = decisions.take(found["row"])
    for name in ("times", "worth", "first_at"):
        rows = rows.append_column(name, found[name])
    return rows, until


def outcome_types(home: Path) -> list[str]:
    """Every type of outcome in lake and live log, the most frequent first."""
    counts: Counter[str] = Counter()
    for table in (*read_tables(home, "outcomes"), *LiveLog(home, Contract(())).outcomes()):
        for one in table["type"].value_counts().to_pylist():
            counts[one["values"]] += one["counts"]
    return [name for name, _ in counts.most_common()]


def expect_known(home: Path, objective: Objective) -> None:
    """Raises BadRequest for an outcome that neither lake nor live log has: a misspelt one would look like one that never came."""
    known = outcome_types(home)
    if objective.outcome not in known:
        raise BadRequest(f"Expected an objective among the outcomes ({listed(known)}), got `{objective.name}` - at `--objective`")


def listed(names: Sequence[str]) -> str:
    """Outcomes as an error tells them."""
    return ", ".join(f"`{name}`" for name in names) or "none so far"


def together(tables: list[pa.Table], columns: Mapping[str, pa.DataType], contract: Contract, keys: Sequence[str]) -> pa.Table:
    """One table of known columns: what a file lacks is null, what nobody knows any more is dropped."""
    types = dict(columns)
    for key in keys:
        feature = contract.find(key)
        types[key] = pa.float64() if feature is not None and feature.type == "number" else pa.string()
    aligned = [
        pa.table({n: t[n].cast(kind) if n in t.column_names else pa.nulls(t.num_rows, kind) for n, kind in types.items()})
        for t in tables
    ]
    return pa.concat_tables(aligned) if aligned else pa.table({n: pa.nulls(0, kind) for n, kind in types.items()})


class _Known(NamedTuple):
    """What is known of all rows together. `zone`: `serving_zone`."""

    damaged: int
    until: float
    zone: str


def _examples(found: pa.Table, objective: Objective, contract: Contract, known: _Known) -> Examples:
    decided_at = seconds_of(found["decided_at"])
    values = filled(contract, {f.key: _whole(found[f.key]) for f in contract.features}, decided_at, known.zone)
    label = found["worth"].to_numpy() if objective.is_value else (found["times"].to_numpy() > 0)
    return Examples(
        decision_id=_whole(found["decision_id"]), customer_id=texts(_whole(found["customer_id"])), decided_at=decided_at,
        placement=texts(_whole(found["placement"])), action_id=texts(_whole(found["action_id"])),
        slot=found["slot"].to_numpy().astype(np.int64),
        choice_probability=found["choice_probability"].to_numpy(), label=label.astype(np.float64), values=values,
        damaged=known.damaged, delay=seconds_of(found["first_at"]) - decided_at, complete_until=known.until,
        circumstances=_whole(found["circumstances"]),
    )  # fmt: skip


def serving_zone(home: Path) -> str:
    """The time zone of customers whose own is not known: the serving catalog's, UTC where none was published."""
    registry = Registry(home / "registry")
    revision = registry.current().catalog
    return str(registry.catalog(revision).document.get("time_zone", UTC)) if revision is not None else UTC


def filled(contract: Contract, columns: Mapping[str, pa.Array], decided_at: Values, zone: str) -> dict[str, pa.Array]:
    """What exists only at the time of a request: as it was served, or as it would have been. Other columns as they are.

    The time zone is the customer's or the request's, as it is in serving, and `zone` where neither is known.
    """
    lacking = [f for f in contract.features if f.origin == "request_time" and columns[f.key].null_count]
    if not lacking:
        return dict(columns)
    zones, made = _zones(columns, len(decided_at), zone), {}
    for feature in lacking:
        column = columns[feature.key]
        logged = zip(column.to_pylist(), decided_at.tolist(), zones, strict=True)
        values = [request_time_values(at, there)[feature.name] if value is None else value for value, at, there in logged]
        made[feature.key] = pa.array(values, column.type)
    return {**columns, **made}


def _zones(columns: Mapping[str, pa.Array], rows: int, zone: str) -> list[str]:
    """The time zone of each row; each name is made once."""
    told = [_known_zones(columns[key].cast(pa.string())) for key in ZONES if key in columns]
    coded = pc.coalesce(*told, pa.repeat(zone, rows)).dictionary_encode()
    names = coded.dictionary.to_pylist()
    return [names[place] for place in coded.indices.to_pylist()]


def _known_zones(column: pa.Array) -> pa.Array:
    """Null where there is no such zone: the next one that was told holds then, as in serving."""
    coded = column.dictionary_encode()
    return pa.array([name if is_zone(name) else None for name in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def seconds_of(moments: pa.ChunkedArray) -> Values:
    """Seconds since 1970 UTC, NaN where there is none: (rows,)."""
    micros = pc.cast(moments.cast(pa.int64()), pa.float64(), safe=False)
    return np.asarray(micros.to_numpy(), np.float64) / 1e6


def texts(column: pa.Array) -> Names:
    """A column as numpy has texts, a missing one empty: few distinct ones are made once."""
    coded = pc.fill_null(column.cast(pa.string()), "").dictionary_encode()
    distinct: Names = np.array(coded.dictionary.to_pylist() or [""], np.str_)
    found: Names = distinct[coded.indices.to_numpy(zero_copy_only=False)]
    return found


class LiveLog:
    """What services wrote, some records at a time. Damaged lines, torn tails and strange ones are counted and passed over."""

    def __init__(self, home: Path, contract: Contract, rows: RowsOf | None = None) -> None:
        self._home = home
        self._contract = contract
        self._rows = rows or _with_circumstances
        self.damaged = 0

    def decisions(self) -> Iterator[pa.Table]:
        for records in self._records("decisions", DecisionRecord):
            rows = [row for record in records for row in self._rows(record, self._contract)]
            yield _table(rows, DECISION_COLUMNS)

    def outcomes(self) -> Iterator[pa.Table]:
        for records in self._records("outcomes", OutcomeRecord):
            columns = {name: [getattr(record, name) for record in records] for name in OUTCOME_COLUMNS}
            columns["at"] = [_micros(record.at) for record in records]
            yield pa.table({name: pa.array(column, OUTCOME_COLUMNS[name]) for name, column in columns.items()})

    def _records(self, kind: str, record: Any) -> Iterator[list[Any]]:  # noqa: ANN401  # one of the two record types
        decoder = msgspec.json.Decoder(record)
        for source in sources(self._home, kind):
            found = records_in(source, decoder, self._pass_over)
            while some := [one for _, one in itertools.islice(found, DECODED_AT_ONCE)]:
                yield some

    def _pass_over(self, spoiled: int) -> None:
        self.damaged += spoiled


def decision_rows(record: DecisionRecord, contract: Contract) -> list[dict[str, Any]]:
    """One row per served item, values included."""
    values = {f"customer.{k}": v for k, v in record.customer.items()} | {f"context.{k}": v for k, v in record.context.items()}
    known = {f.key: _fitting(f, values.get(f.key)) for f in contract.features}
    common = {"decision_id": record.decision_id, "customer_id": record.customer_id, "decided_at": _micros(record.at)}
    return [
        {
            **common, **known, "placement": placement.id, "slot": item.rank, "action_id": item.action_id,
            "choice_probability": item.choice_probability, "source": "live", MADE_UNDER: record.versions.contract,
        }
        for placement in record.placements if not placement.fallback
        for item in placement.items
    ]  # fmt: skip


def _with_circumstances(record: DecisionRecord, contract: Contract) -> list[dict[str, Any]]:
    """The same, with what else bore on each choice."""
    rows = zip(decision_rows(record, contract), circumstances_of(record), strict=True)
    return [{**row, "circumstances": circumstances} for row, circumstances in rows]


def _fitting(feature: Feature, value: object) -> float | str | None:
    """The value if it is of the feature's type: what vectors would make of it anyway."""
    if feature.type == "category":
        return value if isinstance(value, str) else None
    return float(value) if isinstance(value, int | float) else None


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, pa.DataType]) -> pa.Table:
    names = {**dict.fromkeys(columns), **dict.fromkeys(key for row in rows[:1] for key in row)}
    arrays = {name: pa.array([row.get(name) for row in rows], columns.get(name)) for name in names}
    return pa.table(arrays)


def _micros(at: float) -> int:
    return round(at * 1e6)
