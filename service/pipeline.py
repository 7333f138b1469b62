"""The sentence as code: read, decide, answer, append. Requests that arrive together are decided together."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from features.request_time import request_time_values
from service.catalog.entities import Scalar
from service.decision.decide import decide
from service.decision.engine import Engine
from service.decision.entities import UNKNOWN_CUSTOMER, CustomerState, DecisionRequest, PlacementRequest
from service.decision.records import DecisionRecord
from service.errors import DecisionIdReused, DependencyFailed, LogUnavailable, UnknownPlacement
from service.metrics import Metrics
from service.ports import CustomerReader, DecisionLog

NO_CUSTOMER_FEATURES = "no_customer_features"  # the feature store did not answer: decided from context alone
NO_MODEL = "no_model"  # no bundle serves: ranked by priority
NOT_LOGGED = "not_logged"  # the decision is not on disk: it cannot be learned from
STALE = "stale:"  # prefix of a feature that is past its age and counts as missing

REMEMBERED_IDS = 10_000  # client-chosen decision ids whose answer is kept for a retry: about 20 MB


class Ask(msgspec.Struct, frozen=True):
    """A request as the pipeline takes it: validated against the wire format, not yet against the catalog."""

    decision_id: str
    customer_id: str
    context: dict[str, Scalar]
    placements: tuple[PlacementRequest, ...]
    exclude_actions: tuple[str, ...] = ()
    candidates: tuple[str, ...] | None = None
    deadline: float = 0.1  # seconds
    dry_run: bool = False
    repeatable: bool = False  # the client chose the id: the same id gets the same answer


class Answer(NamedTuple):
    """A decision, and the engine that knows the creatives it names."""

    record: DecisionRecord
    engine: Engine


class Limits(NamedTuple):
    """How requests are gathered into batches."""

    coalesce: int = 64  # throughput is flat above 48 on 2 cores
    in_flight: int = 2


@dataclass(frozen=True, slots=True)
class Parts:
    """What a pipeline is made of. `engine` returns the one that serves now; `clock` tells seconds since 1970 UTC."""

    reader: CustomerReader
    log: DecisionLog
    engine: Callable[[], Engine]
    metrics: Metrics
    clock: Callable[[], float] = time.time
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True)
class _Waiting:
    """A request on its way. `decided` is set before the decision is on disk, `answer` when it may go out."""

    ask: Ask
    answer: asyncio.Future[Answer]
    decided: Answer | None = None


class Pipeline:
    """Answers one request at a time to its callers, and works on batches inside."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._waiting: list[_Waiting] = []
        self._running: set[asyncio.Task[None]] = set()
        self._remembered: OrderedDict[str, tuple[Ask, asyncio.Future[Answer]]] = OrderedDict()

    async def recommend(self, ask: Ask) -> Answer:
        """Decide, at the latest when the deadline ends.

        Raises UnknownPlacement, DecisionIdReused, and NotReady where no catalog was ever published.
        """
        check_placements(ask, self._parts.engine())
        if not ask.repeatable or ask.dry_run:
            return await self._enqueue(ask)
        known = self._remembered.get(ask.decision_id) or self._remember(ask)
        if known[0] != ask:
            raise DecisionIdReused(f"Expected the request that used this `decision_id` before, got another: `{ask.decision_id}`")
        return await asyncio.shield(known[1])  # one caller's disconnection must not cancel another's answer

    def _remember(self, ask: Ask) -> tuple[Ask, asyncio.Future[Answer]]:
        known = self._remembered[ask.decision_id] = (ask, self._enqueue(ask))
        known[1].add_done_callback(lambda future: self._forget_failure(ask.decision_id, future))
        if len(self._remembered) > REMEMBERED_IDS:
            self._remembered.popitem(last=False)
        return known

    def _forget_failure(self, decision_id: str, answer: asyncio.Future[Answer]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._remembered.pop(decision_id, None)

    def _enqueue(self, ask: Ask) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(ask, loop.create_future())
        alarm = loop.call_later(ask.deadline, self._expire, waiting)
        waiting.answer.add_done_callback(lambda _: alarm.cancel())
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            loop.call_soon(self._start)  # after every request that this turn of the loop brings
        return waiting.answer

    def _expire(self, waiting: _Waiting) -> None:
        """The deadline is here: answer with what there is."""
        if waiting.answer.done() or not _known(waiting, self._parts.engine()):
            return
        record, engine = waiting.decided or self._decide_blindly(waiting.ask)
        waiting.answer.set_result(Answer(_degrade(record, NOT_LOGGED), engine))
        self._count([record], (NOT_LOGGED,))

    def _decide_blindly(self, ask: Ask) -> Answer:
        engine = self._parts.engine()
        request = _request(ask, UNKNOWN_CUSTOMER, self._parts.clock(), (NO_CUSTOMER_FEATURES,), engine)
        return Answer(decide(engine, [request])[0], engine)

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._parts.limits.in_flight:
            batch, self._waiting = self._waiting[: self._parts.limits.coalesce], self._waiting[self._parts.limits.coalesce :]
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    async def _run(self, batch: Sequence[_Waiting]) -> None:
        try:
            await self._answer(batch)
        except BaseException as error:
            for waiting in batch:  # nobody may be left without an answer
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            if not isinstance(error, Exception):
                raise

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        now = self._parts.clock()
        self._parts.metrics.batch.observe(len(batch))
        with self._parts.metrics.stage.labels("read").time():
            customers, degraded = await self._read([w.ask.customer_id for w in batch], now)
        engine = self._parts.engine()
        with self._parts.metrics.stage.labels("decide").time():
            pairs = [(w, s) for w, s in zip(batch, customers, strict=True) if not w.answer.done() and _known(w, engine)]
            records = decide(engine, [_request(w.ask, state, now, degraded, engine) for w, state in pairs])
        decided = [waiting for waiting, _ in pairs]
        for waiting, record in zip(decided, records, strict=True):
            waiting.decided = Answer(record, engine)
        with self._parts.metrics.stage.labels("append").time():
            missing = await self._append([r for w, r in zip(decided, records, strict=True) if not w.ask.dry_run])
        for waiting, record in zip(decided, records, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(Answer(_degrade(record, *missing), engine))
                self._count([record], missing)

    async def _read(self, customers: Sequence[str], now: float) -> tuple[list[CustomerState], tuple[str, ...]]:
        try:
            return await self._parts.reader.read(customers, now), ()
        except DependencyFailed:
            return [UNKNOWN_CUSTOMER] * len(customers), (NO_CUSTOMER_FEATURES,)

    async def _append(self, records: Sequence[DecisionRecord]) -> tuple[str, ...]:
        try:
            if records:
                await self._parts.log.append_decisions(records)
        except LogUnavailable:
            return (NOT_LOGGED,)
        return ()

    def _count(self, records: Sequence[DecisionRecord], missing: tuple[str, ...]) -> None:
        self._parts.metrics.decisions.inc(len(records))
        for record in records:
            for reason in {r.partition(":")[0] for r in (*record.degraded, *missing)}:
                self._parts.metrics.degraded.labels(reason).inc()
            for placement in record.placements:
                if placement.fallback:
                    self._parts.metrics.fallbacks.labels(placement.id).inc()
                for item in placement.items:
                    self._parts.metrics.items.labels(placement.id, item.kind).inc()

    async def close(self) -> None:
        """Answer what was asked, then stop."""
        while self._waiting or self._running:
            await asyncio.sleep(0)
            if self._running:
                await asyncio.wait(self._running)


def _known(waiting: _Waiting, engine: Engine) -> bool:
    """Whether the engine of this moment still knows the placements: a catalog may have been published meanwhile."""
    try:
        check_placements(waiting.ask, engine)
    except UnknownPlacement as error:
        waiting.answer.set_exception(error)
        return False
    return True


def _degrade(record: DecisionRecord, *reasons: str) -> DecisionRecord:
    return msgspec.structs.replace(record, degraded=(*record.degraded, *reasons)) if reasons else record


def check_placements(ask: Ask, engine: Engine) -> None:
    """Raises UnknownPlacement, naming those that the catalog has."""
    for index, placement in enumerate(ask.placements):
        if placement.id not in engine.plans:
            raise UnknownPlacement(placement.id, sorted(engine.plans), f"$.placements[{index}].id")


def _request(ask: Ask, customer: CustomerState, now: float, degraded: tuple[str, ...], engine: Engine) -> DecisionRequest:
    model = () if engine.versions.bundle else (NO_MODEL,)
    return DecisionRequest(
        decision_id=ask.decision_id,
        customer_id=ask.customer_id,
        at=now,
        customer=customer,
        context={**ask.context, **request_time_values(now)},
        placements=ask.placements,
        exclude_actions=ask.exclude_actions,
        candidates=ask.candidates,
        degraded=degraded + model + tuple(STALE + name for name in customer.stale),
    )
