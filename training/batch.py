"""`nextbest decide`: decisions for a table of customers, with the very parts that answer requests, HTTP aside.

Features and contacts are read from Redis and claimed there, so that a campaign and a website count the same contacts; the
decisions are written to the log, so that their outcomes can be learned from.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from features.homes import home_contract
from service.asks import Ask, Made, Turn, terms_of
from service.bundles.assembling import Choice, assemble, wanted_bundles
from service.bundles.loading import load_bundle
from service.catalog.entities import Scalar
from service.catalog.validate import load_catalog
from service.claims import Claims
from service.decision.engine import Engine
from service.decision.entities import CustomerState, PlacementRequest
from service.errors import ImportInvalid, NotReady, UnknownPlacement
from service.ids import RANDOM_BYTES, customer_key
from service.metrics import Metrics
from service.registry import Registry
from service.stores.completeness import nothing_written
from service.stores.contact_history import RedisContactHistory
from service.stores.customer_reader import RedisCustomerReader
from service.stores.redis_link import RedisLink
from service.stores.segment_log import SegmentLog
from training.tables import read_table

CUSTOMER_ID = "customer_id"
AT_ONCE = 2048  # customers; a round trip to Redis and a write to disk each
TIMEOUT_MS = 30_000.0  # of a round trip: nobody waits for an answer here
COLUMNS = pa.schema([
    ("decision_id", pa.string()), ("customer_id", pa.string()), ("placement", pa.string()), ("rank", pa.int32()),
    ("action_id", pa.string()), ("treatment_id", pa.string()), ("kind", pa.string()), ("fallback", pa.bool_()),
    ("predicted_rate", pa.float64()), ("utility", pa.float64()), ("choice_probability", pa.float64()), ("explored", pa.bool_()),
])  # fmt: skip

Progress = Callable[[int, int], None]


class Campaign(NamedTuple):
    """What is asked for every customer. `name` makes the decision ids: the same campaign decides the same again."""

    name: str
    placements: tuple[PlacementRequest, ...]
    context: dict[str, Scalar]
    dry_run: bool = False


class BatchReport(NamedTuple):
    """How many customers were decided for, and how many of them got a fallback."""

    customers: int
    fallbacks: int
    seconds: float


def decide_table(
    home: Path, redis_url: str, campaign: Campaign, table: Path, out: Path, *, progress: Progress = lambda _done, _of: None
) -> BatchReport:
    """Decide for every row's `customer_id`; columns named like features take the place of what Redis knows.

    Raises ImportInvalid where the table cannot be used, UnknownPlacement, and NotReady without a catalog.
    """
    return asyncio.run(_Batch(home, redis_url, campaign).run(_customers(table), out, progress))


def _customers(path: Path) -> pa.Table:
    table = read_table(path, (CUSTOMER_ID,))
    if CUSTOMER_ID not in table.column_names:
        raise ImportInvalid([f"{path.name}: Expected a column `{CUSTOMER_ID}`, found {', '.join(table.column_names)}"])
    if table[CUSTOMER_ID].null_count:
        raise ImportInvalid([f"{path.name}: Expected a value in every row, found {table[CUSTOMER_ID].null_count} nulls"])
    return table.set_column(table.column_names.index(CUSTOMER_ID), CUSTOMER_ID, table[CUSTOMER_ID].cast(pa.string()))


def serving_engine(home: Path) -> Engine:
    """The engine that the service would answer with now. Raises NotReady and BundleRefused."""
    contract, registry = home_contract(home), Registry(home / "registry")
    pointer = registry.current()
    if pointer.catalog is None:
        raise NotReady("Expected a published catalog, found none: run `nextbest catalog publish FILE`")
    catalog = load_catalog(registry.catalog(pointer.catalog).document, contract)
    names = wanted_bundles(catalog, pointer.champion, pointer.others)
    loaded = {name: load_bundle(registry.bundle_folder(name), contract) for name in names}
    return assemble(catalog, contract, Choice(pointer.catalog, pointer.champion, pointer.others), loaded.get)


class _Batch:
    """One run over a table."""

    def __init__(self, home: Path, redis_url: str, campaign: Campaign) -> None:
        self._engine = serving_engine(home)
        for number, placement in enumerate(campaign.placements):
            if placement.id not in self._engine.plans:
                raise UnknownPlacement(placement.id, sorted(self._engine.plans), f"--placement {number + 1}")
        self._campaign = campaign
        self._log = SegmentLog(home / "log")
        self._link = RedisLink(redis_url, timeout_ms=TIMEOUT_MS)
        self._reader = RedisCustomerReader(self._link, self._engine.contract, lambda: nothing_written(home))
        self._claims = Claims(self._reader, RedisContactHistory(self._link), Metrics())

    async def run(self, table: pa.Table, out: Path, progress: Progress) -> BatchReport:
        started, fallbacks = time.perf_counter(), 0
        unfinished = out.with_name(f".{out.name}.unfinished")
        with pq.ParquetWriter(unfinished, COLUMNS, compression="zstd") as writer:
            for start in range(0, table.num_rows, AT_ONCE):
                made = await self._decide(table.slice(start, AT_ONCE), start)
                writer.write_table(_rows(made))
                fallbacks += sum(any(p.fallback for p in m.record.placements) for m in made)
                progress(start + len(made), table.num_rows)
        await self._claims.close()
        await self._log.close()
        await self._reader.close()
        unfinished.replace(out)
        return BatchReport(table.num_rows, fallbacks, time.perf_counter() - started)

    async def _decide(self, rows: pa.Table, start: int) -> list[Made]:
        ids, turn = rows[CUSTOMER_ID].to_pylist(), Turn(self._engine, time.time())
        asks = [self._ask(customer, start + row) for row, customer in enumerate(ids)]
        known = await self._reader.read(ids, turn.now, terms_of(self._engine))
        states = [_with(s, values) for s, values in zip(known.states, self._given(rows), strict=True)]
        made = turn.make(asks, known._replace(states=states))
        await self._claims.settle(turn, made)
        if not self._campaign.dry_run:
            await self._log.append_decisions([m.record for m in made])
        return made

    def _ask(self, customer: str, row: int) -> Ask:
        digest = blake2b(f"{self._campaign.name}\x1f{row}".encode(), digest_size=RANDOM_BYTES).hexdigest()
        context, placements = self._campaign.context, self._campaign.placements
        return Ask(digest + customer_key(customer), customer, context, placements, dry_run=self._campaign.dry_run)

    def _given(self, rows: pa.Table) -> Iterator[dict[str, Scalar]]:
        """Values of the table, by feature, missing ones left out."""
        names = [f.name for f in self._engine.contract.customer if f.name in rows.column_names]
        columns = [rows[name].to_pylist() for name in names]
        for values in zip(*columns, strict=True) if columns else iter([()] * rows.num_rows):
            yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _with(state: CustomerState, values: dict[str, Scalar]) -> CustomerState:
    return msgspec.structs.replace(state, values={**state.values, **values}) if values else state


def _rows(made: Sequence[Made]) -> pa.Table:
    rows = [
        (m.record.decision_id, m.record.customer_id, p.id, item.rank, item.action_id, item.treatment_id, item.kind, p.fallback,
         item.predicted_rate, item.utility, item.choice_probability, item.explored)
        for m in made for p in m.record.placements for item in p.items
    ]  # fmt: skip
    columns = zip(*rows, strict=True) if rows else [[] for _ in COLUMNS]
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, COLUMNS.types, strict=True)], schema=COLUMNS)
