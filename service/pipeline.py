"""The sentence as code: read, decide, claim, append, answer. Requests that arrive together are decided together."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from service.asks import Ask, Made, Turn, as_sent_before, is_asked_by, terms_of
from service.booking import Booking, count
from service.claims import Claims, unknown
from service.decision.engine import Engine
from service.decision.records import DecisionRecord
from service.errors import BadRequest, DependencyFailed, DependencyTimedOut, IdReused, LogUnavailable, UnknownPlacement, id_reused
from service.metrics import Metrics
from service.ports import ContactHistory, CustomerReader, DecisionLog, Reading
from service.tracing import NoTracer, Traced, Tracer

NOT_LOGGED = "not_logged"  # the decision is not on disk (yet): it cannot be learned from

MOST_TURNS = 8  # of the loop, that a batch is gathered in: of 32 connections 21 requests are together, and with one turn 11
GATHERED_S = 0.001  # for which it is, at most: with a crowd at the door a turn takes milliseconds, and an answer ten turns
FEW = 8  # requests that wait for the batch before theirs to end: beside it they would take longer, and make it longer
OVERDUE_S = 0.005  # of Redis: 98 of 100 batches are told sooner at 1,400 a second; past it nobody else begins to wait for it
FEW_DUE = 256  # that are kept without a look at who was answered
REMEMBERED_IDS = 10_000  # client-chosen decision ids whose answer is kept for a retry: about 20 MB


class Answer(NamedTuple):
    """A decision, and the engine that knows the creatives it names."""

    record: DecisionRecord
    engine: Engine


class Past(Protocol):
    """Decisions of before, to be told again."""

    async def answer(self, decision_id: str) -> Answer | None:
        """None where it cannot be found, or not be told any more."""


class NoPast:
    """Where nothing was decided before."""

    async def answer(self, decision_id: str) -> Answer | None:  # noqa: ARG002  # the port's name for it
        return None


class Shadowing(Protocol):
    """Who is asked about decisions once they are answered."""

    def offer(self, records: Sequence[DecisionRecord], *, is_busy: bool) -> None:
        """These were answered and are on disk. Returns at once. `is_busy`: others wait for their answer."""

    async def close(self) -> None:
        """Write down what was found."""


class NoShadows:
    """Where nobody is asked."""

    def offer(self, records: Sequence[DecisionRecord], *, is_busy: bool) -> None:
        """Nothing is done with them."""

    async def close(self) -> None:
        """Nothing is open."""


class Limits(NamedTuple):
    """How requests are gathered into batches."""

    coalesce: int = 64  # throughput is flat above 48 on 2 cores
    in_flight: int = 2


@dataclass(frozen=True, slots=True)
class Parts:
    """What a pipeline is made of. `engine` returns the one that serves now; `clock` tells seconds since 1970 UTC.

    `ids_kept_s`: how long the log knows an id; an outcome that comes later than that after it happened is late.
    `outcome_history`: `history` for outcomes, by a way that has more time where there is one.
    """

    reader: CustomerReader
    history: ContactHistory
    log: DecisionLog
    engine: Callable[[], Engine]
    metrics: Metrics
    clock: Callable[[], float] = time.time
    limits: Limits = field(default_factory=Limits)
    ids_kept_s: float = 31 * 86_400.0
    past: Past = field(default_factory=NoPast)
    tracer: Tracer = field(default_factory=NoTracer)
    shadows: Shadowing = field(default_factory=NoShadows)
    outcome_history: ContactHistory | None = None


@dataclass(slots=True)
class _Waiting:
    """A request on its way. `decided` is set when the decision holds, `answer` when it is on disk and may go out.

    `due`: when its deadline ends, the loop's time.
    """

    ask: Ask
    answer: asyncio.Future[Answer]
    due: float
    decided: Answer | None = None
    traced: Traced = None


class Pipeline:
    """Answers one request at a time to its callers, and works on batches inside."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._claims = Claims(parts.reader, parts.history, parts.metrics)
        self._waiting: list[_Waiting] = []
        self._running: set[asyncio.Task[None]] = set()
        self._reads: list[float] = []  # since when batches wait for Redis, the loop's time
        self._is_held = False  # whether somebody waits for such a batch
        self._is_gathering = False  # whether a turn of the loop is waited for that brings nobody else
        self._begun = 0.0  # when the last batch did, the loop's time
        self._look: asyncio.Handle | None = None  # rings when those who wait for that batch have waited long enough
        self._due: list[_Waiting] = []  # whose deadline is to come, in the order of their coming
        self._most_due = FEW_DUE
        self._alarm: asyncio.Handle | None = None
        self._rings_at = float("inf")  # when the alarm does, the loop's time: uvloop's handle of what is due now cannot tell
        self._remembered: OrderedDict[str, tuple[str, asyncio.Future[Answer]]] = OrderedDict()

    async def recommend(self, ask: Ask) -> Answer:
        """Decide, at the latest when the deadline ends.

        Raises BadRequest, as UnknownPlacement or IdReused, and NotReady where no catalog was ever published.
        """
        if not ask.sent or ask.dry_run:
            check_placements(ask, self._parts.engine())
            return await self._enqueue(ask)
        sent, answer = self._remembered.get(ask.decision_id) or self._remember(ask)
        if sent != ask.sent:
            raise IdReused([id_reused("decision_id", ask.decision_id)])
        return await asyncio.shield(answer)  # one caller's disconnection must not cancel another's answer

    def _remember(self, ask: Ask) -> tuple[str, asyncio.Future[Answer]]:
        is_new = not self._parts.log.has_decision(ask.decision_id)
        if is_new:  # what was answered before is told again, whatever has become of the catalog
            check_placements(ask, self._parts.engine())
        answer = self._enqueue(ask) if is_new else asyncio.ensure_future(self._tell_again(ask))
        known = self._remembered[ask.decision_id] = (ask.sent, answer)
        answer.add_done_callback(lambda future: self._forget_failure(ask.decision_id, future))
        if len(self._remembered) > REMEMBERED_IDS:
            self._remembered.popitem(last=False)
        return known

    async def _tell_again(self, ask: Ask) -> Answer:
        """What was answered before this process started, or by another one. Raises IdReused."""
        begun = time.monotonic()
        try:
            answer = await asyncio.wait_for(self._past_answer(ask), ask.deadline)
        except (TimeoutError, DependencyFailed):
            self._remembered.pop(ask.decision_id, None)  # whoever asks again may have more time
            check_placements(ask, self._parts.engine())
            blind = self._decide_blindly(ask)
            return blind._replace(record=_degrade(blind.record, NOT_LOGGED))
        if answer is not None:
            return answer
        check_placements(ask, self._parts.engine())
        left = max(0.001, ask.deadline - (time.monotonic() - begun))
        return await self._enqueue(msgspec.structs.replace(ask, deadline=left))

    async def _past_answer(self, ask: Ask) -> Answer | None:
        """Raises IdReused where it is the answer to something else, DependencyFailed where nobody says whose it is."""
        answer = await self._parts.past.answer(ask.decision_id)
        if answer is not None and not await self._answers(answer.record, ask):
            raise IdReused([id_reused("decision_id", ask.decision_id)])
        return answer

    async def _answers(self, record: DecisionRecord, ask: Ask) -> bool:
        """Whether a decision of before was made for this request."""
        if record.sent:
            return record.sent == ask.sent or record.sent == as_sent_before(ask, record).sent
        if not is_asked_by(ask, record):
            return False
        return record.customer_id == ask.customer_id or record.customer_id == await self._owner_of(ask.customer_id)

    async def _owner_of(self, customer_id: str) -> str | None:
        """Whom an id is an alias of. Raises DependencyFailed."""
        reading = await self._parts.reader.read([customer_id], self._parts.clock())
        if reading.is_doubted or reading.states[0].is_unread:
            raise DependencyFailed(
                f"Expected Redis to hold whose alias an id is, found that it lacks something - of `{customer_id}`"
            )
        return reading.owners.get(customer_id)

    def _forget_failure(self, decision_id: str, answer: asyncio.Future[Answer]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._remembered.pop(decision_id, None)

    def _enqueue(self, ask: Ask) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(ask, loop.create_future(), loop.time() + ask.deadline, traced=self._parts.tracer.current())
        self._set_alarm(loop, waiting)
        self._waiting.append(waiting)
        # the first, and who lets those begin that wait for a batch
        if not self._is_gathering and len(self._waiting) in (1, FEW):
            self._is_gathering = True
            # after every request that this turn of the loop brings
            loop.call_soon(self._gather, loop, len(self._waiting), 1, time.perf_counter())
        return waiting.answer

    def _gather(self, loop: asyncio.AbstractEventLoop, before: int, turn: int, begun: float) -> None:
        """Start once a turn of the loop brings nobody else: whoever comes a moment later costs less in this batch than alone."""
        if len(self._waiting) > before and turn < MOST_TURNS and time.perf_counter() - begun < GATHERED_S:
            loop.call_soon(self._gather, loop, len(self._waiting), turn + 1, begun)
        else:
            self._is_gathering = False
            self._start()

    def _set_alarm(self, loop: asyncio.AbstractEventLoop, waiting: _Waiting) -> None:
        """One for all: to take one back for each request took 7 us."""
        if len(self._due) >= self._most_due:  # most have been answered long before
            self._due = [one for one in self._due if not one.answer.done()]
            self._most_due = max(FEW_DUE, 2 * len(self._due))
        self._due.append(waiting)
        if waiting.due < self._rings_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._ring_at(loop, waiting.due)

    def _ring_at(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._rings_at, self._alarm = due, loop.call_at(due, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer whoever is due; what was answered before is forgotten."""
        self._alarm, self._rings_at, now = None, float("inf"), loop.time()
        left = [one for one in self._due if not one.answer.done()]
        self._due = [one for one in left if one.due > now]
        if self._due:
            self._ring_at(loop, min(one.due for one in self._due))
        for waiting in left:
            if waiting.due <= now:
                self._expire(waiting)
        if len(self._waiting) > 2 * len(self._due):  # most were answered: where all batches hang, none drops them
            self._waiting = [one for one in self._waiting if not one.answer.done()]

    def _expire(self, waiting: _Waiting) -> None:
        """The deadline is here: answer with what there is."""
        if waiting.answer.done() or not _known(waiting, self._parts.engine()):
            return
        record, engine = waiting.decided or self._decide_blindly(waiting.ask)
        waiting.answer.set_result(Answer(_degrade(record, NOT_LOGGED), engine))
        count(self._parts.metrics, [record], (NOT_LOGGED,))

    def _decide_blindly(self, ask: Ask) -> Answer:
        turn = Turn(self._parts.engine(), self._parts.clock())
        return Answer(turn.make([ask], unknown(turn, 1))[0].record, turn.engine)

    def _start(self) -> None:
        self._is_held = bool(self._waiting) and self._is_overdue()
        while self._waiting and len(self._running) < self._parts.limits.in_flight and not self._is_held and self._may_start():
            batch = self._next()
            if not batch:
                return
            self._begun = asyncio.get_running_loop().time()
            booking = Booking(self._parts.metrics, len(batch))
            task = asyncio.create_task(self._run(batch, booking))
            self._running.add(task)
            task.add_done_callback(partial(self._finish, booking))

    def _may_start(self) -> bool:
        """Not a few beside others, unless those take long."""
        if not self._running or len(self._waiting) >= FEW:
            return True
        loop, patience_ends = asyncio.get_running_loop(), self._begun + OVERDUE_S
        if loop.time() >= patience_ends:
            return True
        if self._look is None:  # one that was set for a batch of before rings sooner, and sets the next
            self._look = loop.call_at(patience_ends, self._look_again)
        return False

    def _look_again(self) -> None:
        self._look = None
        self._start()

    def _is_overdue(self) -> bool:
        """Whether Redis owes an answer. Whoever comes now is decided with it, or at once when it is given up."""
        return bool(self._reads) and asyncio.get_running_loop().time() - self._reads[0] > OVERDUE_S

    def _next(self) -> list[_Waiting]:
        """The longest waiting; what was answered meanwhile, since its deadline came, is not begun."""
        due = [waiting for waiting in self._waiting if not waiting.answer.done()]
        batch, self._waiting = due[: self._parts.limits.coalesce], due[self._parts.limits.coalesce :]
        return batch

    def _finish(self, booking: Booking, task: asyncio.Task[None]) -> None:
        """A turn of the loop after the batch's end: started sooner, the next one comes before the answers of this one go out."""
        self._running.discard(task)
        self._start()
        asyncio.get_running_loop().call_soon(booking.write)

    async def _run(self, batch: Sequence[_Waiting], booking: Booking) -> None:
        try:
            await self._answer(batch, booking)
        except BaseException as error:
            for waiting in batch:  # nobody may be left without an answer
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
        self._parts.tracer.decided([w.traced for w in batch], booking.laps)

    async def _answer(self, batch: Sequence[_Waiting], booking: Booking) -> None:
        now = self._parts.clock()
        with booking.stage("read"):
            reading = await self._read(batch, now)
        turn = Turn(self._parts.engine(), now)
        reading = unknown(turn, len(batch)) if reading is None else self._claims.believed(turn, reading)
        with booking.stage("decide"):
            pairs = [(w, s) for w, s in zip(batch, reading.states, strict=True) if not w.answer.done() and _known(w, turn.engine)]
            made = turn.make([w.ask for w, _ in pairs], reading._replace(states=[s for _, s in pairs]))
        with booking.stage("claim"):
            awaited = {m: w.answer for (w, _), m in zip(pairs, made, strict=True)}
            meanwhile = asyncio.get_running_loop().call_soon(self._spell_out, made)  # once the claims are on their way
            held = await self._claims.settle(turn, made, lambda m: awaited[m].done())
            meanwhile.cancel()
        # answered from nothing when their deadline came
        await self._claims.release([claim for m, claim in held if awaited[m].done()], turn)
        await self._tell(turn, [(w, m) for (w, _), m in zip(pairs, made, strict=True) if not w.answer.done()], booking)

    async def _tell(self, turn: Turn, decided: Sequence[tuple[_Waiting, Made]], booking: Booking) -> None:
        """Write down, then answer."""
        for waiting, made in decided:
            waiting.decided = Answer(made.record, turn.engine)
        written = [m for w, m in decided if not w.ask.dry_run]
        with booking.stage("append"):
            missing = await self._append(written)
        answered: list[DecisionRecord] = []
        for waiting, made in decided:
            if not waiting.answer.done():
                waiting.answer.set_result(Answer(_degrade(made.record, *missing), turn.engine))
                answered.append(made.record)
        booking.answered(answered, missing)
        if not missing:
            self._parts.shadows.offer([m.record for m in written], is_busy=bool(self._waiting))

    async def _read(self, batch: Sequence[_Waiting], now: float) -> Reading | None:
        terms, since = terms_of(self._parts.engine()), asyncio.get_running_loop().time()
        self._reads.append(since)
        try:
            return await self._parts.reader.read([w.ask.customer_id for w in batch], now, terms)
        except DependencyFailed as error:
            if isinstance(error, DependencyTimedOut):
                self._parts.metrics.in_vain.inc(len(batch))
            return None
        finally:
            self._reads.remove(since)
            if self._is_held:
                self._start()

    def _spell_out(self, made: Sequence[Made]) -> None:
        """For the log, while Redis works: 32 connections are answered 6 % more often than by a batch that does it afterwards.

        What does not hold is spelt out again.
        """
        for one in made:
            if not one.ask.dry_run:
                one.entry = self._parts.log.entry(one.record)

    async def _append(self, made: Sequence[Made]) -> tuple[str, ...]:
        try:
            if made:
                await self._parts.log.append_decisions([m.entry or self._parts.log.entry(m.record) for m in made])
        except LogUnavailable:
            return (NOT_LOGGED,)
        return ()

    async def close(self) -> None:
        """Answer what was asked, then stop."""
        while self._waiting or self._running:
            await asyncio.sleep(0)
            if self._running:
                await asyncio.wait(self._running)
        await asyncio.sleep(0)  # what was told last is counted
        for alarm in (self._alarm, self._look):
            if alarm is not None:
                alarm.cancel()
        await self._parts.shadows.close()
        await self._claims.close()


def _known(waiting: _Waiting, engine: Engine) -> bool:
    """Whether the engine of this moment still has the placements: a catalog may have been published meanwhile."""
    try:
        check_placements(waiting.ask, engine)
    except BadRequest as error:
        waiting.answer.set_exception(error)
        return False
    return True


def _degrade(record: DecisionRecord, *reasons: str) -> DecisionRecord:
    return msgspec.structs.replace(record, degraded=(*record.degraded, *reasons)) if reasons else record


def check_placements(ask: Ask, engine: Engine) -> None:
    """Raises UnknownPlacement, naming those that the catalog has, and BadRequest where one has fewer slots."""
    for index, placement in enumerate(ask.placements):
        plan = engine.plans.get(placement.id)
        if plan is None:
            where = "$.placement" if ask.is_short else f"$.placements[{index}].id"
            raise UnknownPlacement(placement.id, sorted(engine.plans), where)
        if placement.slots is not None and placement.slots > plan.placement.slots:
            found = f"at most {plan.placement.slots} slots for `{placement.id}`, got {placement.slots}"
            raise BadRequest(f"Expected {found} - at `$.placements[{index}].slots`")
