"""What was served, joined with what came of it: the rows that training and evaluation work on."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.contract import ACTION_ID, Contract, Feature
from features.request_time import request_time_values
from features.vectors import Column, Matrix, vectorize
from service.decision.records import DecisionRecord, OutcomeRecord
from service.errors import NotReady
from training.lake import DECISION_COLUMNS, OUTCOME_COLUMNS, read_tables
from training.live_log import payloads, sources, spoiled_lines

Values = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]

VALUE_PREFIX = "value:"  # of an objective: the sum of an outcome's values instead of whether there was one

JOIN = """
    with d as (select distinct on (decision_id, placement, slot) * from decisions),
         o as (select distinct on (outcome_id) * from outcomes),
         joined as (
             select d.decision_id, d.placement, d.slot, count(*) as responses,
                    coalesce(sum(case when o.type = $type then 1 else 0 end), 0) as times,
                    coalesce(sum(case when o.type = $type then o.value else 0 end), 0) as worth
             from d join o on o.decision_id = d.decision_id
                  and coalesce(o.placement, d.placement) = d.placement and coalesce(o.action_id, d.action_id) = d.action_id
             group by all)
    select d.*, joined.times, joined.worth from d join joined using (decision_id, placement, slot)
    order by d.decided_at, d.decision_id, d.placement, d.slot
"""


class Objective(msgspec.Struct, frozen=True):
    """What success is: an outcome of a type (a rate), or the sum of its values."""

    name: str

    @property
    def outcome(self) -> str:
        return self.name.removeprefix(VALUE_PREFIX)

    @property
    def is_value(self) -> bool:
        return self.name.startswith(VALUE_PREFIX)


@dataclass(frozen=True)
class Examples:
    """Rows in the order of their decisions. `values` holds columns by key (`customer.age`); None is missing.

    `decided_at` is in seconds since 1970 UTC. `label` is 0 or 1, or a sum of values. `damaged` counts unreadable log lines.
    """

    decision_id: Sequence[str]
    customer_id: Names
    decided_at: Values
    placement: Names
    slot: npt.NDArray[np.int64]
    action_id: Names
    choice_probability: Values
    label: Values
    values: Mapping[str, Sequence[float | str | None]]
    damaged: int = 0

    def __len__(self) -> int:
        return len(self.label)

    def matrix(self, inputs: Sequence[Feature], attributes: Mapping[str, Mapping[str, float | str]]) -> Matrix:
        """Model inputs by the very function that serves: float32, (rows, inputs). `attributes`: values by action."""
        columns: dict[str, Column] = {f.key: self.values[f.key] for f in inputs if f.key in self.values}
        for feature in inputs:
            if feature.scope == "action":
                columns[feature.key] = [attributes.get(a, {}).get(feature.name) for a in self.action_id.tolist()]
        columns[f"action.{ACTION_ID}"] = self.action_id.tolist()
        return vectorize(inputs, columns, len(self))

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "Examples":
        """Some of the rows, by mask or by position."""
        positions = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        picked = positions.tolist()
        return Examples(
            decision_id=[self.decision_id[i] for i in picked], customer_id=self.customer_id[positions],
            decided_at=self.decided_at[positions], placement=self.placement[positions], slot=self.slot[positions],
            action_id=self.action_id[positions], choice_probability=self.choice_probability[positions],
            label=self.label[positions],
            values={key: [column[i] for i in picked] for key, column in self.values.items()}, damaged=self.damaged,
        )  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: changes with any decision or label; the order of rows does not count."""
        rows = sorted(f"{d}|{a}|{y!r}" for d, a, y in zip(self.decision_id, self.action_id, self.label.tolist(), strict=True))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def load_examples(home: Path, objective: Objective, contract: Contract) -> Examples:
    """Every decision that was shown, from lake and live log. Raises NotReady where there is none.

    Shown means: an impression came back, or an outcome of any other kind. Fallbacks are no decisions and left out.
    """
    live = _LiveLog(home, contract)
    keys = [f.key for f in contract.features]
    decisions = _together([*read_tables(home, "decisions"), live.decisions()], DECISION_COLUMNS, contract, keys)
    outcomes = _together([*read_tables(home, "outcomes"), live.outcomes()], OUTCOME_COLUMNS, contract, [])
    with duckdb.connect() as connection:
        connection.register("decisions", decisions)
        connection.register("outcomes", outcomes)
        found = connection.execute(JOIN, {"type": objective.outcome}).to_arrow_table()
    if not found.num_rows:
        raise NotReady(f"Expected decisions with outcomes under `{home}`, found none: import a table, or serve and send outcomes")
    return _examples(found, objective, contract, keys, live.damaged)


def outcome_types(home: Path) -> list[str]:
    """Every type of outcome in lake and live log, the most frequent first."""
    counts: Counter[str] = Counter()
    for table in (*read_tables(home, "outcomes"), _LiveLog(home, Contract(())).outcomes()):
        counts.update(table["type"].to_pylist())
    return [name for name, _ in counts.most_common()]


def _together(tables: list[pa.Table], columns: Mapping[str, pa.DataType], contract: Contract, keys: Sequence[str]) -> pa.Table:
    """One table of known columns: what a file lacks is null, what nobody knows any more is dropped."""
    types = dict(columns)
    for key in keys:
        feature = contract.find(key)
        types[key] = pa.float64() if feature is not None and feature.type == "number" else pa.string()
    aligned = [
        pa.table({n: t[n].cast(kind) if n in t.column_names else pa.nulls(t.num_rows, kind) for n, kind in types.items()})
        for t in tables
    ]
    return pa.concat_tables(aligned)


def _examples(found: pa.Table, objective: Objective, contract: Contract, keys: Sequence[str], damaged: int) -> Examples:
    decided_at = found["decided_at"].cast(pa.int64()).to_numpy() / 1e6
    values: dict[str, Sequence[float | str | None]] = {key: found[key].to_pylist() for key in keys}
    for feature in contract.features:
        if feature.origin == "request_time":  # as it was served, or as it would have been
            logged = zip(values[feature.key], decided_at.tolist(), strict=True)
            values[feature.key] = [request_time_values(at)[feature.name] if v is None else v for v, at in logged]
    label = found["worth"].to_numpy() if objective.is_value else (found["times"].to_numpy() > 0)
    return Examples(
        decision_id=found["decision_id"].to_pylist(), customer_id=_names(found["customer_id"]), decided_at=decided_at,
        placement=_names(found["placement"]), slot=found["slot"].to_numpy().astype(np.int64),
        action_id=_names(found["action_id"]), choice_probability=found["choice_probability"].to_numpy(),
        label=label.astype(np.float64), values=values, damaged=damaged,
    )  # fmt: skip


def _names(column: pa.ChunkedArray) -> Names:
    return np.array(column.to_pylist(), np.str_)


class _LiveLog:
    """What services wrote. Damaged lines and torn tails are counted and passed over."""

    def __init__(self, home: Path, contract: Contract) -> None:
        self._home = home
        self._contract = contract
        self.damaged = 0

    def decisions(self) -> pa.Table:
        rows = [row for record in self._records("decisions", DecisionRecord) for row in _decision_rows(record, self._contract)]
        return _table(rows, DECISION_COLUMNS)

    def outcomes(self) -> pa.Table:
        rows = [{**msgspec.structs.asdict(r), "at": _micros(r.at)} for r in self._records("outcomes", OutcomeRecord)]
        return _table(rows, OUTCOME_COLUMNS)

    def _records(self, kind: str, record: Any) -> list[Any]:  # noqa: ANN401  # one of the two record types
        decoder, records = msgspec.json.Decoder(record), []
        for source in sources(self._home, kind):
            self.damaged += spoiled_lines(source)
            records += [decoder.decode(payload) for payload in payloads(source)]
        return records


def _decision_rows(record: DecisionRecord, contract: Contract) -> list[dict[str, Any]]:
    """One row per served item, values included."""
    values = {f"customer.{k}": v for k, v in record.customer.items()} | {f"context.{k}": v for k, v in record.context.items()}
    known = {f.key: _fitting(f, values.get(f.key)) for f in contract.features}
    common = {"decision_id": record.decision_id, "customer_id": record.customer_id, "decided_at": _micros(record.at)}
    return [
        {
            **common, **known, "placement": placement.id, "slot": item.rank, "action_id": item.action_id,
            "choice_probability": item.choice_probability, "source": "live",
        }
        for placement in record.placements if not placement.fallback
        for item in placement.items
    ]  # fmt: skip


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
