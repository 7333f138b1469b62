"""`nextbest decide`: decisions for a table of customers, with the very parts that answer requests, HTTP aside.

Features and contacts are read from Redis and claimed there, so that a campaign and a website count the same contacts; the
decisions are written to the log, so that their outcomes can be learned from. The table is cut into parts (`batch_parts`), and
several processes decide for several parts at a time.
"""

import asyncio
import contextlib
import gc
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from multiprocessing.util import Finalize
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from features.contract import Contract
from features.homes import home_contract
from service.asks import Ask, Turn, as_sent
from service.bundles.assembling import Choice, assemble, wanted_bundles
from service.bundles.loading import load_bundle
from service.catalog.entities import Catalog, Scalar
from service.catalog.validate import load_catalog
from service.claims import Claims
from service.decision.engine import Engine
from service.decision.records import DecisionRecord
from service.errors import BadRequest, NotReady, UnknownPlacement
from service.ids import with_key, without_key
from service.metrics import Metrics
from service.registry import Pointer, Registry
from service.stores.completeness import nothing_written
from service.stores.contact_history import RedisContactHistory
from service.stores.customer_reader import RedisCustomerReader
from service.stores.links import open_link
from service.stores.segment_log import SegmentLog
from training.attribution import ids_kept_s
from training.batch_parts import CUSTOMER_ID, Campaign, Part, PartsFolder, Plan, columns_of, seed_of
from training.decision_log import read_decisions_of
from training.event_history import read_aliases
from training.spreading import ALONE, Workers, spread

AT_ONCE = 2  # parts in one process: while one waits for Redis or the disk, the other is decided
TOGETHER = 512  # customers whose decisions are made at once
TWICE = 2  # rows of one customer among them: what one of them takes the other has to be made again for
SPAN = 8  # parts that a process is given at a time
COLLECT = 200_000, 20, 100  # decisions make no cycles: with Python's own thresholds, to look for some takes 25 us of each
LOOKED_AT = 16  # rows: whether the log has a decision for one of them
TIMEOUT_MS = 30_000.0  # of a round trip: nobody waits for an answer here

Progress = Callable[[int, int], None]


class BatchReport(NamedTuple):
    """How many customers were decided for, how many of them got a fallback, and for how many it was done in an earlier run."""

    customers: int
    fallbacks: int
    seconds: float
    before: int = 0


class Job(NamedTuple):
    """A batch, as its processes are told of it."""

    home: Path
    redis_url: str
    folder: Path
    plan: Plan


def decide_table(
    home: Path, redis_url: str, campaign: Campaign, table: Path, out: Path, *, workers: Workers = ALONE,
    progress: Progress = lambda _done, _of: None,
) -> BatchReport:  # fmt: skip
    """Decide for every row's `customer_id`; columns named like features take the place of what Redis knows.

    Where it is interrupted, the same call goes on: nobody is contacted twice. Raises ImportInvalid where the table cannot be
    used, UnknownPlacement, BadRequest, NotReady without a catalog, and DependencyFailed where Redis does not read or write.
    """
    started, pointer, contract = time.perf_counter(), Registry(home / "registry").current(), home_contract(home)
    placements = _catalog_of(home, contract, pointer).placements
    for number, placement in enumerate(campaign.placements):
        if placement.id not in placements:
            raise UnknownPlacement(placement.id, sorted(placements), f"--placement {number + 1}")
        if placement.slots > (most := placements[placement.id].slots):
            raise BadRequest(
                f"Expected at most {most} slots for `{placement.id}`, got {placement.slots} - at `--placement {number + 1}`"
            )
    Registry(home / "registry").keep_contract(contract.fingerprint, contract.canonical)
    folder = PartsFolder.beside(out)
    with folder.held():
        known, is_begun = _identity(table), folder.begun() is not None
        seed = seed_of(campaign, known)
        plan = Plan(campaign, known, pointer.catalog or 0, pointer.champion, pointer.others, seed)
        plan = folder.begin(plan, table, contract.customer)
        if not (is_begun or campaign.dry_run or _is_new(home, folder, plan)):
            folder.give_up()
            raise NotReady(
                f"Expected a campaign that was not sent yet, found decisions of `{campaign.name}` for this table in the log: "
                "deciding twice contacts everyone twice; another campaign has another name (`--campaign`)"
            )
        before = _decide_parts(Job(home, redis_url, folder.path, plan), workers, progress)
        rows = sum(part.rows for part in folder.parts())
        fallbacks = folder.join(out)
    return BatchReport(rows, fallbacks, time.perf_counter() - started, before)


def _decide_parts(job: Job, workers: Workers, progress: Progress) -> int:
    """Decide for all that are left; for how many customers it was done before."""
    folder = PartsFolder(job.folder)
    parts = folder.parts()
    left = [part for part in parts if not folder.is_done(part)]
    rows = sum(part.rows for part in parts)
    done = before = rows - sum(part.rows for part in left)
    progress(done, rows)
    size = max(1, min(SPAN, math.ceil(len(left) / workers.how_many())))
    spans = [_Span(job, left[start : start + size]) for start in range(0, len(left), size)]
    try:
        for decided in spread(decide_span, spans, workers):
            done += decided
            progress(done, rows)
    finally:
        _release()
    return before


def _is_new(home: Path, folder: PartsFolder, plan: Plan) -> bool:
    """Whether the log holds no decision for any of the first rows; their customers may have become others' aliases since."""
    first = [folder.customers(part).slice(0, LOOKED_AT)[CUSTOMER_ID].to_pylist() for part in folder.parts()[:1]]
    log = SegmentLog(home / "log")
    return not any(log.has_decision(plan.decision_id(name, row)) for names in first for row, name in enumerate(names))


def _identity(table: Path) -> tuple[str, int, int]:
    try:
        known = table.stat()
    except OSError:
        return table.name, 0, 0  # reading it will say what is wrong
    return table.name, known.st_size, known.st_mtime_ns


def serving_engine(home: Path) -> Engine:
    """The engine that the service would answer with now. Raises NotReady and BundleRefused."""
    return engine_at(home, Registry(home / "registry").current())


def engine_at(home: Path, pointer: Pointer) -> Engine:
    """The engine of these versions. Raises NotReady and BundleRefused."""
    contract, registry = home_contract(home), Registry(home / "registry")
    catalog = _catalog_of(home, contract, pointer)
    names = wanted_bundles(catalog, pointer.champion, pointer.others)
    loaded = {name: load_bundle(registry.bundle_folder(name), contract) for name in names}
    return assemble(catalog, contract, Choice(pointer.catalog or 0, pointer.champion, pointer.others), loaded.get)


def _catalog_of(home: Path, contract: Contract, pointer: Pointer) -> Catalog:
    if pointer.catalog is None:
        raise NotReady("Expected a published catalog, found none: run `nextbest catalog publish FILE`")
    return load_catalog(Registry(home / "registry").catalog(pointer.catalog).document, contract)


class _Span(NamedTuple):
    """What a process is given to do."""

    job: Job
    parts: list[Part]


_deciders: dict[bytes, "_Decider"] = {}  # of this process, one at most: it has a connection, and a log of its own
_lock = threading.Lock()  # a Dask worker may have several threads


def decide_span(span: _Span) -> int:
    """Decide for some parts in this process; how many customers they are, 0 where nobody waits for it any more."""
    with PartsFolder(span.job.folder).shared() as is_wanted:
        return _decide_span(span) if is_wanted else 0


def _decide_span(span: _Span) -> int:
    told = msgspec.json.encode((str(span.job.home), span.job.redis_url, str(span.job.folder), span.job.plan))
    with _lock:
        if told not in _deciders:
            _close_all()
            _deciders[told] = _Decider(span.job)
        _deciders[told].decide(span.parts)
    return sum(part.rows for part in span.parts)


def _release() -> None:
    with _lock:
        _close_all()


def _close_all() -> None:
    while _deciders:
        _deciders.popitem()[1].close()


@contextlib.contextmanager
def _seldom_collected() -> Iterator[None]:
    """Meanwhile garbage is looked for once in many decisions."""
    before = gc.get_threshold()
    gc.set_threshold(*COLLECT)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Decider:
    """What one process holds while it decides for parts of one batch."""

    def __init__(self, job: Job) -> None:
        plan = job.plan
        self._plan, self._campaign = plan, plan.campaign
        self._home = job.home
        self._folder = PartsFolder(job.folder)
        self._engine = engine_at(job.home, Pointer(plan.catalog, plan.champion, others=plan.others))
        self._log = SegmentLog(job.home / "log", queue_bytes=sys.maxsize)  # each append is waited for: AT_ONCE at most wait
        self._link = open_link(job.redis_url, timeout_ms=TIMEOUT_MS)
        self._reader = RedisCustomerReader(self._link, self._engine.contract, lambda: nothing_written(job.home))
        self._claims = Claims(self._reader, RedisContactHistory(self._link, ids_kept_s()), Metrics(), is_strict=True)
        self._runner = asyncio.Runner()
        self.close = Finalize(self, _close, (self._runner, self._claims, self._log, self._reader), exitpriority=1)

    def decide(self, parts: Sequence[Part]) -> None:
        with _seldom_collected():
            self._runner.run(self._decide_all(parts))

    async def _decide_all(self, parts: Sequence[Part]) -> None:
        begun = {part for part in parts if self._folder.is_begun(part)}
        told = self._told(begun)
        room = asyncio.Semaphore(AT_ONCE)

        async def one(part: Part) -> None:
            async with room:
                await self._decide(part, told if part in begun else None)

        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(one(part))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    def _told(self, parts: Collection[Part]) -> dict[str, DecisionRecord]:
        """What an earlier run wrote down for these parts before it was interrupted, by what stays of its id (`without_key`).

        A row's id may have become a customer's before it was decided for, or since.
        """
        asks = [ask for part in parts for ask in self._asks(part)]
        owners = read_aliases(self._home) if asks else {}
        ids = {ask.decision_id for ask in asks}
        ids |= {with_key(ask.decision_id, owners[ask.customer_id]) for ask in asks if ask.customer_id in owners}
        return {without_key(record.decision_id): record for record in read_decisions_of(self._home, ids)} if ids else {}

    async def _decide(self, part: Part, told: Mapping[str, DecisionRecord] | None) -> None:
        """`told`: what an earlier run wrote down, where it had begun with this part."""
        asks = self._asks(part)
        if not self._campaign.dry_run:
            self._folder.mark(part)
        if told is None:
            waves = _waves(asks)
            made = await self._make(waves)
            is_in_order = len(waves) == 1
        else:
            is_in_order = False
            ids = [without_key(ask.decision_id) for ask in asks]
            new = [ask for ask, known in zip(asks, ids, strict=True) if known not in told]
            # their contacts may be in Redis already: those do not count against themselves, and are not taken again
            made = await self._make(_waves([as_sent(ask) for ask in new]))
            made.append(_rows([told[known] for known in ids if known in told]))
        decided = pa.concat_tables(made) if made else _rows([])
        self._folder.put(part, decided if is_in_order else _in_order(decided, asks))

    async def _make(self, waves: Sequence[Sequence[Ask]]) -> list[pa.Table]:
        """Decided, claimed, written down, some at a time: a record may be large, and what is small stays in a core's cache."""
        return [await self._some(wave[start : start + TOGETHER]) for wave in waves for start in range(0, len(wave), TOGETHER)]

    async def _some(self, asks: Sequence[Ask]) -> pa.Table:
        turn = Turn(self._engine, time.time())
        made = turn.make(asks, await self._claims.look(turn, [ask.customer_id for ask in asks]))
        await self._claims.settle(turn, made)
        records = [m.record for m in made]
        if not self._campaign.dry_run:
            await self._log.append_decisions([self._log.entry(record) for record in records])
        return _rows(records)

    def _asks(self, part: Part) -> list[Ask]:
        customers = self._folder.customers(part)
        rows = zip(customers[CUSTOMER_ID].to_pylist(), _given(customers), strict=True)
        return [self._ask(customer, part.start + row, given) for row, (customer, given) in enumerate(rows)]

    def _ask(self, customer: str, row: int, given: dict[str, Scalar]) -> Ask:
        name, asked = self._plan.decision_id(customer, row), self._campaign
        return Ask(name, customer, asked.context, asked.placements, dry_run=asked.dry_run, given=given)


def _waves(asks: Sequence[Ask]) -> list[list[Ask]]:
    """The same, one wave after the other, with no customer more than TWICE in one of them."""
    rows, waves = Counter[str](), list[list[Ask]]()
    for ask in asks:
        wave = rows[ask.customer_id] // TWICE
        rows[ask.customer_id] += 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(ask)
    return waves


def _given(customers: pa.Table) -> Iterator[dict[str, Scalar]]:
    """Values of the table, by feature, missing ones left out."""
    names = [name for name in customers.column_names if name != CUSTOMER_ID]
    columns = [customers[name].to_pylist() for name in names]
    for values in zip(*columns, strict=True) if columns else iter([()] * customers.num_rows):
        yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _rows(records: Sequence[DecisionRecord]) -> pa.Table:
    return columns_of([
        (r.decision_id, r.customer_id, p.id, item.rank, item.action_id, item.treatment_id, item.kind, p.fallback,
         item.predicted_rate, item.utility, item.choice_probability, item.explored)
        for r in records for p in r.placements for item in p.items
    ])  # fmt: skip


def _in_order(decided: pa.Table, asks: Sequence[Ask]) -> pa.Table:
    """Decision after decision as they were asked for; rows of one decision stay as they are."""
    places = {without_key(ask.decision_id): place for place, ask in enumerate(asks)}
    order = np.array([places[without_key(decision_id)] for decision_id in decided["decision_id"].to_pylist()], np.int64)
    return decided.take(pa.array(order.argsort(kind="stable")))


def _close(runner: asyncio.Runner, claims: Claims, log: SegmentLog, reader: RedisCustomerReader) -> None:
    """Also where a process ends."""

    async def closing() -> None:
        await claims.close()
        await log.close()
        await reader.close()

    runner.run(closing())
    runner.close()
