"""Who is let in when more come than can be served: decided from a request's first bytes, before anything of it is parsed.

A limit on requests under way follows their latency: it grows by one while answers come in time, and shrinks by as much as they
are late, a tenth at least and a quarter at most (additive increase, multiplicative decrease: Chiu & Jain 1989); then those who
come after are judged. In time is within half of the shortest deadline among those who are judged together: where all can wait
longer, more may. What a stall took, quick answers give back. Outcomes may exceed it, and keep the room that they have in a
quiet hour however far it shrinks, since no page waits for them; events and large bodies may not fill it: what was promised to
customers comes first, then what they are shown, then what can be sent again. Questions are counted alone: all others wait for the
disk, and where it hangs, whoever asks can still be answered.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.door import Asked, Door, Response, check_size
from service.api.heads import BULK, EVENTS, OUTCOMES, RECOMMEND, Heads, priority_of
from service.metrics import Metrics

TARGET_S = 0.05  # nine of ten answers: half of the deadline that a request has unless it says otherwise; no shorter one counts
MOST_TARGET_S = 0.25  # nor one longer than half a second: a crowd that waits is memory
WINDOW = 50  # answers that are judged together
FEWEST, MOST = 8, 1024  # the limit stays between
BEGIN = 200  # what a tenth of a second without an answer leaves waiting at 2,000 a second
LEAST_KEPT, MOST_KEPT = 0.75, 0.9  # of the limit, where answers are late: who waits after a stall still finds room
WELL = 0.5  # of the target; below, a limit that shrank in a bad moment grows as fast as it shrank: a full house is never so quick
QUIET_S = 1.0  # a batch that is answered together leaves nobody waiting for a moment: that alone is no quiet
NEARLY = 0.8  # of the limit: where fewer are under way, a good latency proves nothing
RETRY_AFTER_S = 1

Headers = Sequence[tuple[bytes, bytes]]

SHARES = {OUTCOMES: 4.0, RECOMMEND: 1.0, EVENTS: 0.75, BULK: 0.5}  # of the limit, up to which each is let in
AT_LEAST = {OUTCOMES: 4 * BEGIN, RECOMMEND: 0, EVENTS: 0, BULK: 0}  # under way, however far the limit shrinks

REJECTION = (
    b'{"title":"Overloaded","status":503,"detail":"Expected fewer requests at once: come back","type":"about:blank","errors":[]}'
)
HEAD = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: %d\r\ncontent-length: %d\r\n"
KEPT = HEAD % (RETRY_AFTER_S, len(REJECTION)) + b"\r\n" + REJECTION
CLOSED = HEAD % (RETRY_AFTER_S, len(REJECTION)) + b"connection: close\r\n\r\n" + REJECTION


class Limiter:
    """How many requests may be under way in this process. `clock`: seconds; `begin`: the limit of a quiet hour.

    Where deadlines are longer than a tenth of a second, that limit is as many times higher.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.perf_counter, *, begin: float = BEGIN) -> None:
        self._clock, self._narrow = clock, begin
        self._target, self._shortest = TARGET_S, inf
        self._rejected = {priority: metrics.rejected.labels(priority) for priority in SHARES}
        self._uncounted: Counter[str] = Counter()  # turned away, by priority
        self._latencies: list[float] = []
        self._fullest = 0
        self._changed = 0.0  # whoever came before was let in by another limit
        self._rejected_at = -QUIET_S
        self._room: dict[str, float] = {}
        self.limit = float(begin)
        self.under_way = self._questions = 0

    @property
    def limit(self) -> float:
        """How many may be under way."""
        return self._limit

    @limit.setter
    def limit(self, limit: float) -> None:
        self._limit = limit
        self._room = {priority: max(limit * share, AT_LEAST[priority]) for priority, share in SHARES.items()}

    @property
    def _begin(self) -> float:
        return min(MOST, self._narrow * self._target / TARGET_S)

    def admits(self, priority: str) -> bool:
        """Whether one more of this priority may start."""
        if (self._questions if priority is RECOMMEND else self.under_way) < self._room[priority]:
            return True
        self._uncounted[priority] += 1  # `_count` takes it to the metrics
        return False

    def status(self) -> dict[str, float]:
        """Where the limit stands, how many are under way, and how soon nine of ten answers have to come for it to stay."""
        return {"limit": round(self.limit), "under_way": self.under_way, "in_time_ms": round(self._target * 1000)}

    def start(self, priority: str = RECOMMEND) -> float:
        """One more is under way: since when. Whoever was turned away before is counted by then: a scrape is a request, too."""
        now = self._clock()
        if self._uncounted:
            self._count(now)
        if not self.under_way and self._limit < self._begin and now - self._rejected_at > QUIET_S:
            self.limit = self._begin  # nobody waited, nobody was turned away: whatever there was, it is over
        self.under_way += 1
        self._questions += priority is RECOMMEND
        self._fullest = max(self._fullest, self.under_way)
        return now

    def promised(self, deadline: float) -> None:
        """Somebody who is under way may wait for so many seconds."""
        self._shortest = min(self._shortest, deadline)

    def _count(self, now: float) -> None:
        self._rejected_at = now
        for priority, times in self._uncounted.items():
            self._rejected[priority].inc(times)
        self._uncounted.clear()

    def end(self, since: float, priority: str = RECOMMEND) -> None:
        """It was answered, or nobody waits for it any more."""
        self.under_way -= 1
        self._questions -= priority is RECOMMEND
        now = self._clock()
        if self._uncounted:
            self._count(now)
        if since >= self._changed:
            self._latencies.append(now - since)
        if len(self._latencies) >= WINDOW:
            self._judge()

    def _judge(self) -> None:
        if self._shortest < inf:
            self._target = min(MOST_TARGET_S, max(TARGET_S, self._shortest / 2))
            self._shortest = inf
        slowest = sorted(self._latencies)[int(0.9 * len(self._latencies))]
        if slowest > self._target:
            self.limit = max(FEWEST, self.limit * max(LEAST_KEPT, min(MOST_KEPT, self._target / slowest)))
            self._changed = self._clock()
        elif slowest < WELL * self._target and self.limit < self._begin:
            self.limit = min(self._begin, self.limit / MOST_KEPT)
        elif self._fullest >= NEARLY * self.limit:
            self.limit = min(MOST, self.limit + 1)
        self._latencies.clear()
        self._fullest = self.under_way


HEADS = Heads()


class _Nobody:
    """Who waits for more of a request that is all there."""

    def set(self) -> None:
        """Nobody is woken."""


class _Whole:
    """A request that came in one piece, as far as the server looks at it: its parser never saw it."""

    __slots__ = ("body", "disconnected", "keep_alive", "response_complete", "response_started")
    more_body, message_event = False, _Nobody()

    def __init__(self, body: bytes) -> None:
        self.body, self.keep_alive = body, True
        self.disconnected = self.response_started = self.response_complete = False


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class AdmittingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a look at each request before it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  # handed on as they are
        super().__init__(*arguments, **named)
        app: Any = self.config.loaded_app
        self._limiter: Limiter = getattr(app, "app", app).state.limiter
        self._door = app if isinstance(app, Door) else None
        self._inside = False  # a request has begun and not ended
        self._quiet_since = 0.0  # the loop's time
        self._default: tuple[Headers, bytes] = ([], b"")  # headers that every answer has, and their lines
        self._was_rejected = False  # since the alarm rang last: when, it did not take the time to see

    def data_received(self, data: bytes) -> None:
        """Who is turned away passes through nothing but this, and who asks like others before past the parser: 10 us of 180."""
        cycle = self.cycle
        if self._inside or not (cycle is None or cycle.response_complete):  # type: ignore[redundant-expr]  # it begins as None
            super().data_received(data)
            return
        head = HEADS.known(data)
        priority, is_whole = HEADS.judged(data) if head is None else (head.priority, True)
        if priority is not None and not self._limiter.admits(priority):
            self._reject(is_whole=is_whole)
        elif head is not None and head.asked is not None and self._door is not None and not self.transport.is_closing():
            self.cycle = whole = _Whole(data[len(head.data) :])  # type: ignore[assignment]  # all of a cycle that is needed
            self._ask(whole, self._door, head.asked, self._limiter.start())
        else:
            super().data_received(data)
            if head is not None and self._door is not None:
                head.asked = self._made_of(data[len(head.data) :], self._door)

    def _made_of(self, body: bytes, door: Door) -> Asked | None:
        """What the parser has just made of a head, where it would make the same of the next one and its body is what follows."""
        cycle = self.cycle
        is_plain = not (self._inside or cycle is None or cycle.response_complete)  # type: ignore[redundant-expr]  # as above
        return door.asked(cycle.scope) if is_plain and cycle.keep_alive and cycle.body == body else None  # type: ignore[arg-type]  # as ASGI has it

    def _reject(self, *, is_whole: bool) -> None:
        """`is_whole`: the request has been read to its end, and the connection can be kept."""
        if not is_whole:
            self.transport.write(CLOSED)
            self.transport.close()
            return
        self.transport.write(KEPT)
        self._was_rejected = True
        if self.timeout_keep_alive_task is None:
            self._fell_quiet()

    def _fell_quiet(self) -> None:
        """Nobody sets the alarm anew with each request: it looks back when it rings."""
        self._quiet_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to the garbage collector, which seldom comes: it would be 30 objects a connection."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if self.cycle is not None and self.cycle.response_complete:  # type: ignore[redundant-expr]  # it begins as None
            self.cycle = None  # type: ignore[assignment]  # they hold each other

    def timeout_keep_alive_handler(self) -> None:
        """Close, where nothing has come for long enough and nobody is being answered."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        if self._was_rejected:
            self._was_rejected, self._quiet_since = False, self.loop.time()
        answered = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # it begins as None
        busy = self._inside or not answered
        left = self.timeout_keep_alive if busy else self._quiet_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        """The alarm goes where the connection has gone, and not with each request."""
        if self.transport.is_closing():
            super()._unset_keepalive_if_required()

    def on_response_complete(self) -> None:
        """The next one that waits on this connection, or quiet."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._fell_quiet()

    def on_message_begin(self) -> None:
        self._inside = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._inside = False
        super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:  # noqa: ANN401  # uvicorn's own types are not public
        # what is always let in counts like a question
        priority = priority_of(cycle.scope["method"], cycle.scope["path"]) or RECOMMEND
        since, door = self._limiter.start(priority), self._door if app is self._door else None
        asked = None if door is None or cycle.waiting_for_100_continue else door.asked(cycle.scope)
        if door is not None and asked is not None:
            self._ask(cycle, door, asked, since)
            return

        async def counted(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # handed on as they are
            try:
                await app(scope, receive, send)
            finally:
                self._limiter.end(since, priority)

        super()._start_asgi_task(cycle, counted)

    def _ask(self, cycle: Any, door: Door, asked: Asked, since: float) -> None:  # noqa: ANN401  # as above
        task = self.loop.create_task(self._past_asgi(cycle, door, asked, since))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _past_asgi(self, cycle: Any, door: Door, asked: Asked, since: float) -> None:  # noqa: ANN401  # as above
        """No messages between server and application, and one write: with them HTTP took 80 us of a decision, without them 58."""
        try:
            response = await door.respond(asked, lambda: self._body_of(cycle, door.body_limit))
            if self.flow.write_paused and not cycle.disconnected:
                await self.flow.drain()
            if response is not None and not cycle.disconnected:
                self._answer(cycle, response)
        finally:
            self._limiter.end(since)
            if cycle.disconnected:
                self.cycle = None  # type: ignore[assignment]  # as in `connection_lost`

    async def _body_of(self, cycle: Any, limit: int) -> bytes | None:  # noqa: ANN401  # as above
        """All of it; None where the client left. Raises TooLarge, as soon as there is more."""
        while cycle.more_body and not cycle.disconnected:
            check_size(len(cycle.body), limit)
            self.flow.resume_reading()
            await cycle.message_event.wait()
            cycle.message_event.clear()
        check_size(len(cycle.body), limit)
        return None if cycle.disconnected else bytes(cycle.body)

    def _answer(self, cycle: Any, response: Response) -> None:  # noqa: ANN401  # as above
        default, close = self.server_state.default_headers, b"" if cycle.keep_alive else b"connection: close\r\n"
        if self._default[0] is not default:  # once a second: it has the date
            self._default = default, _lines(default)
        self.transport.write(b"%b%b%bcontent-length: %d\r\n%b\r\n%b" % (
            STATUS_LINE[response.status], self._default[1], _lines(response.headers), len(response.body), close, response.body
        ))  # fmt: skip
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
