"""A decision takes something: contacts with its customer, a share of budgets. Before it is told, it must hold."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import msgspec

from service.asks import Made, Turn, terms_of
from service.decision.entities import UNKNOWN_CUSTOMER, CustomerState
from service.errors import DependencyFailed, DependencyRefused, DependencyTimedOut, no_answer
from service.metrics import Metrics
from service.ports import EMPTIED, Claim, ContactHistory, CustomerReader, Reading

REFUSED_S = 0.5  # how long no claims are made after Redis refused one
DOUBT_S = 1.0  # between two tries to take back what Redis may have taken
DOUBTED_AT_ONCE = 256  # of such claims: 2,000 stop the loop for 130 ms
ATTEMPTS = 8  # to make a decision that holds; a customer who asks so often at once gets what no cap can forbid
STRICT_ATTEMPTS = 1000  # for whoever has time: of all who want something of one customer, one gets it at each

Held = tuple[Made, Claim]


def _nobody(_made: Made) -> bool:
    return False


@dataclass(slots=True)
class Claims:
    """Claims what decisions take, and has those made again that came too late.

    `is_strict`: for whoever has time, and decides again where Redis fails, by the same ids: that is an error then, and every
    decision has to hold before it is told.
    """

    reader: CustomerReader
    history: ContactHistory
    metrics: Metrics
    is_strict: bool = False
    _later: set[asyncio.Task[None]] = field(default_factory=set)
    _refused_until: float = 0.0
    _doubtful: list[Claim] = field(default_factory=list)
    _doubting: asyncio.Task[None] | None = None

    async def settle(self, turn: Turn, made: Sequence[Made], gone: Callable[[Made], bool] = _nobody) -> list[Held]:
        """When this returns, every decision holds as it then stands. Returns what was claimed for which, in no order.

        What no rule depends on is claimed after the answer. `gone`: for whom nobody waits any more; nothing is tried again.
        Raises DependencyFailed where it is strict.
        """
        claims = [(m, claim) for m in made if (claim := m.claim(turn.engine)) is not None]
        bound = [(m, claim) for m, claim in claims if self.is_strict or must_hold(claim)]
        free = [] if self.is_strict else [claim for _, claim in claims if not must_hold(claim)]
        if turn.now < self._refused_until:
            free = [claim for claim in free if not claim.is_of_id_alone]  # whose decision it was is all that is lost
        if free:
            self._after(self._claim_freely(free, turn))
        held, attempts = list[Held](), STRICT_ATTEMPTS if self.is_strict else ATTEMPTS
        for attempt in range(attempts):
            if bound:
                lost = await self._attempt(turn, bound, held, last=attempt == attempts - 1)
                bound = [(m, claim) for m in lost if not gone(m) and (claim := m.claim(turn.engine)) is not None]
        return held

    async def _attempt(self, turn: Turn, bound: Sequence[Held], held: list[Held], *, last: bool) -> list[Made]:
        """One try for each; the ones that did not hold are made again, and returned."""
        answers: Sequence[bool | DependencyFailed]
        try:
            answers = await self.history.claim([claim for _, claim in bound], turn.now, turn.engine.catalog.contact.reservation)
        except DependencyFailed as error:
            answers = [error] * len(bound)
        held += [pair for pair, answer in zip(bound, answers, strict=True) if answer is True]
        failed = [(pair, answer) for pair, answer in zip(bound, answers, strict=True) if isinstance(answer, DependencyFailed)]
        if failed and self.is_strict:
            raise failed[0][1]  # whatever of it Redis has taken all the same: the next try knows it by its id
        if failed:
            self._give_up(turn, failed, is_all=len(failed) == len(bound))
        lost = [m for (m, _), answer in zip(bound, answers, strict=True) if answer is False]
        if lost:
            self.metrics.reclaims.inc(len(lost))
            turn.make_again(lost, unknown(turn, len(lost), known=lost) if last else await self.read(turn, lost))
        return [] if last else lost

    def _give_up(self, turn: Turn, failed: Sequence[tuple[Held, DependencyFailed]], *, is_all: bool) -> None:
        """Make decisions again without what could not be claimed, and take back what may have been."""
        if is_all and all(isinstance(error, DependencyRefused) for _, error in failed):
            self._refused_until = turn.now + REFUSED_S
        doubtful = [claim._replace(budgets=()) for (_, claim), error in failed if no_answer(error)]
        if doubtful:
            self.metrics.in_vain.inc(sum(isinstance(error, DependencyTimedOut) for _, error in failed))
            self.doubt(doubtful)
        made = [m for (m, _), _ in failed]
        turn.make_again(made, unknown(turn, len(made), known=made))

    async def look(self, turn: Turn, customer_ids: Sequence[str]) -> Reading:
        """What is known now. Raises DependencyFailed; where it is strict, also where the store was emptied."""
        reading = await self.reader.read(customer_ids, turn.now, terms_of(turn.engine))
        if reading.is_doubted and self.is_strict:
            raise DependencyFailed(EMPTIED)
        return reading

    async def read(self, turn: Turn, made: Sequence[Made]) -> Reading:
        """What is known now; where nothing is, as little as an unknown customer's, or an error where it is strict."""
        try:
            return await self.look(turn, [m.ask.customer_id for m in made])
        except DependencyFailed:
            if self.is_strict:
                raise
            return unknown(turn, len(made))

    async def release(self, claims: Sequence[Claim], turn: Turn) -> None:
        """Take back, after the answer, what was claimed for decisions that nobody will see."""
        if claims:
            self._after(self.history.release(claims, turn.now))

    def believed(self, turn: Turn, reading: Reading) -> Reading:
        """What was read; without histories where none can be written, so that a decision is made once and not twice."""
        if turn.now >= self._refused_until:
            return reading
        states = [_without_history(state) for state in reading.states]
        return reading._replace(states=states, exhausted=unknown(turn, 0).exhausted)

    def doubt(self, claims: Sequence[Claim]) -> None:
        """Take back, once Redis answers again, contacts that it may have taken.

        Budgets are not given back: they may not have been taken. Few claims come here, since Redis then counts as down.
        """
        self._doubtful += claims
        if self._doubting is None or self._doubting.done():
            self._doubting = asyncio.create_task(self._until_no_doubt_is_left())

    async def _until_no_doubt_is_left(self) -> None:
        while self._doubtful:
            with contextlib.suppress(DependencyFailed):
                await self._take_back()
            await asyncio.sleep(DOUBT_S)

    async def _take_back(self) -> None:
        """Each by itself: some may lie where nobody answers yet, and what is done must not be done again.

        Some at once, and those that failed last the next time.
        """
        claims = self._doubtful[:DOUBTED_AT_ONCE]
        done = await asyncio.gather(*(self.history.release([claim], 0.0) for claim in claims), return_exceptions=True)
        failures = [failure for failure in done if failure is not None]
        self._doubtful[: len(claims)] = []
        self._doubtful += [claim for claim, failure in zip(claims, done, strict=True) if failure is not None]
        if failures:
            raise failures[0]

    async def _claim_freely(self, claims: Sequence[Claim], turn: Turn) -> None:
        answers = await self.history.claim(claims, turn.now, turn.engine.catalog.contact.reservation)
        self.metrics.forgotten.inc(sum(isinstance(answer, DependencyFailed) for answer in answers))

    def _after(self, work: Coroutine[None, None, None]) -> None:
        """In the background; what Redis does not take is counted, and the log has it all the same."""
        task = asyncio.create_task(self._forgiving(work))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _forgiving(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except DependencyFailed:
            self.metrics.forgotten.inc()

    async def settled(self) -> None:
        """Wait for what is claimed after the answer."""
        if self._later:
            await asyncio.wait(self._later)

    async def close(self) -> None:
        """Wait for what is under way."""
        await self.settled()
        if self._doubting is not None:
            self._doubting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._doubting
            with contextlib.suppress(DependencyFailed):
                while self._doubtful:
                    await self._take_back()


def must_hold(claim: Claim) -> bool:
    """Whether a decision may only be told once its claim holds: where caps or a budget speak of it."""
    return claim.seen is not None or bool(claim.budgets)


def _without_history(customer: CustomerState) -> CustomerState:
    return customer if customer.contacts is None else msgspec.structs.replace(customer, contacts=None)


def unknown(turn: Turn, count: int, known: Sequence[Made] = ()) -> Reading:
    """Nothing is known of contacts and budgets, and caps count as reached; of `known` customers the features are."""
    used_up = turn.engine.budgets
    if known:
        return Reading([_without_history(m.state) for m in known], used_up)
    return Reading([UNKNOWN_CUSTOMER] * count, used_up)
