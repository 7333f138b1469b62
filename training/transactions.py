"""Features from transactions: read from everything that was ever written down, and added to the offline tables as of a moment."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from features.contract import TRANSACTIONS_VIEW
from features.event_types import home_event_types
from features.homes import home_contract
from features.layout import JOIN_KEY
from features.ledger import Ledger
from features.live import CHANNEL
from features.offline import EVENT_TIMESTAMP, MOMENT, view_schema, write_view
from features.transactions import buyers, sources_of, transaction_values
from service.decision.records import EventRecord
from training.event_history import EVENT_COLUMNS, EVENTS, read_aliases, read_erasures
from training.lake import read_tables
from training.live_log import read_log

THREADS = 2
ONE_EACH = """
WITH written AS (
    SELECT event_id, customer_id, type, channel, properties, declared, 0 AS place,
        least(epoch_us("at"), epoch_us(received_at)) / 1e6 AS "at"
    FROM lake WHERE list_contains($types, type)
    UNION ALL BY NAME SELECT * FROM log WHERE list_contains($types, type)
)
SELECT coalesce(a.customer, e.customer_id) AS customer_id, e."at",
    TRY_CAST(json_extract_string(e.properties, $path) AS DOUBLE) AS amount
FROM written e LEFT JOIN aliases a ON a.alias = e.customer_id LEFT JOIN erased x ON x.customer = e.customer_id
WHERE e.declared AND (x.until IS NULL OR e."at" > x.until){conditions}
QUALIFY row_number() OVER (PARTITION BY e.event_id ORDER BY e.place, e."at") = 1
"""


class Snapshot(NamedTuple):
    """What was added to the offline tables: customers, and what could not be worked out, in words."""

    customers: int
    problems: tuple[str, ...]


def add_snapshot(home: Path, at: float) -> Snapshot | None:
    """Work out what transactions say as of a moment, for everybody who had bought by then; None where no feature asks.

    The same moment again replaces its rows. `at`: seconds since 1970 UTC. Raises ContractError where events.yaml does not know
    the transactions.
    """
    contract = home_contract(home)
    sources = sources_of(contract)
    if not sources:
        return None
    home_event_types(home, contract)
    one = next(iter(sources.values()))  # they all have the section's events
    ledger = read_ledger(home, one.types, one.amount)
    names = buyers(ledger, at)
    asked = pa.table({JOIN_KEY: names, "at": pa.array(np.full(len(names), at))})
    found = transaction_values(contract, ledger, asked)
    if len(names):
        moment = pa.array([round(at * 1e6)] * len(names), pa.int64()).cast(MOMENT)
        columns = {name: found.table[name] for name in sources}
        rows = pa.table({JOIN_KEY: names, EVENT_TIMESTAMP: moment, **columns})
        write_view(home, TRANSACTIONS_VIEW, rows.select(view_schema(contract, TRANSACTIONS_VIEW).names))
    return Snapshot(len(names), found.problems)


def read_ledger(home: Path, types: Sequence[str], amount: str | None, where: Mapping[str, float | str] | None = None) -> Ledger:
    """All declared events of these types, each id once, under whom their customers are now. A property gives the amounts.

    `where`: only those with these properties. What was ingested is read as columns, what came in live line by line. Customers who
    were erased have bought nothing before.
    """
    schema = pa.schema(EVENT_COLUMNS)
    ingested = [table.select(schema.names).cast(schema) for table in read_tables(home, EVENTS)]
    aliases, erased = read_aliases(home), read_erasures(home)
    with duckdb.connect() as database:
        database.execute(f"SET threads = {THREADS}")
        database.register("lake", pa.concat_tables(ingested) if ingested else schema.empty_table())
        database.register("log", _log(home))
        database.register("aliases", pa.table({"alias": _texts(aliases), "customer": _texts(aliases.values())}))
        until = pa.array(list(erased.values()), pa.float64())
        database.register("erased", pa.table({"customer": _texts(erased), "until": until}))
        conditions, parameters = _conditions(where or {})
        known = {"path": _path(amount or ""), "types": list(types), **parameters}
        found = database.execute(ONE_EACH.replace("{conditions}", conditions), known).to_arrow_table()
    return Ledger.of(found["customer_id"], found["at"].to_numpy(), found["amount"].to_numpy())


def _path(name: str) -> str:
    """Where JSON has a property. RFC 6901."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _conditions(where: Mapping[str, float | str]) -> tuple[str, dict[str, float | str]]:
    """SQL for the properties that an event must have, and its parameters; a truth is 1 or 0, as it is in live features."""
    sql, parameters = "", dict[str, float | str]()
    for number, (name, wanted) in enumerate(where.items()):
        found = "e.channel" if name == CHANNEL else f"json_extract_string(e.properties, $where{number})"
        if isinstance(wanted, float):
            found = f"TRY_CAST(CASE {found} WHEN 'true' THEN '1' WHEN 'false' THEN '0' ELSE {found} END AS DOUBLE)"
        sql += f" AND {found} = $wanted{number}"
        parameters |= {f"wanted{number}": wanted} | ({} if name == CHANNEL else {f"where{number}": _path(name)})
    return sql, parameters


def _log(home: Path) -> pa.Table:
    """What came in live, as columns."""
    records = list(read_log(home, EVENTS, EventRecord))
    return pa.table(
        {
            "event_id": _texts(r.event_id for r in records),
            "customer_id": _texts(r.customer_id for r in records),
            "type": _texts(r.type for r in records),
            "at": pa.array([r.counts_from for r in records], pa.float64()),
            "channel": _texts(r.channel for r in records),
            "properties": _texts(msgspec.json.encode(r.properties).decode() for r in records),
            "declared": pa.array([r.declared for r in records], pa.bool_()),
            "place": pa.array(np.arange(1, len(records) + 1, dtype=np.int32)),
        }
    )


def _texts(values: Iterable[str]) -> pa.Array:
    return pa.array(list(values), pa.string())
