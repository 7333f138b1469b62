"""Who is let in when more come than can be served: decided from a request's first bytes, before anything of it is parsed.

A limit on requests under way follows their latency: it grows by one while answers come in time, and shrinks by a tenth where
they do not (additive increase, multiplicative decrease: Chiu & Jain 1989). Outcomes may exceed it, events and large bodies may
not fill it: what was promised to customers comes first, then what they are shown, then what can be sent again later.
"""

import time
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.metrics import Metrics

TARGET_S = 0.07  # nine of ten answers: 0.7 of the deadline that a request has unless it says otherwise
WINDOW = 50  # answers that are judged together
FEWEST, MOST = 8, 1024  # the limit stays between
BEGIN = 64  # one full batch
SHRINK = 0.9
NEARLY = 0.8  # of the limit: where fewer are under way, a good latency proves nothing
LARGE_BYTES = 65_536  # bodies that count as bulk
RETRY_AFTER_S = 1

OUTCOMES, RECOMMEND, EVENTS, BULK = "outcomes", "recommend", "events", "bulk"
SHARES = {OUTCOMES: 2.0, RECOMMEND: 1.0, EVENTS: 0.75, BULK: 0.5}  # of the limit, up to which each is let in
PRIORITIES = (  # by how a request begins; what is not here is always let in
    (b"POST /outcomes", OUTCOMES), (b"POST /consents", OUTCOMES), (b"POST /recommend", RECOMMEND), (b"POST /events", EVENTS),
    (b"POST /identities", EVENTS),
)  # fmt: skip

REJECTION = (
    b'{"title":"Overloaded","status":503,"detail":"Expected fewer requests at once: come back","type":"about:blank","errors":[]}'
)
HEAD = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: %d\r\ncontent-length: %d\r\n"
KEPT = HEAD % (RETRY_AFTER_S, len(REJECTION)) + b"\r\n" + REJECTION
CLOSED = HEAD % (RETRY_AFTER_S, len(REJECTION)) + b"connection: close\r\n\r\n" + REJECTION


class Limiter:
    """How many requests may be under way in this process. `clock`: seconds."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.perf_counter) -> None:
        self._metrics = metrics
        self._clock = clock
        self._latencies: list[float] = []
        self._fullest = 0
        self.limit = float(BEGIN)
        self.under_way = 0

    def admits(self, priority: str) -> bool:
        """Whether one more of this priority may start; a refusal is counted."""
        if self.under_way < self.limit * SHARES[priority]:
            return True
        self._metrics.rejected.labels(priority).inc()
        return False

    def start(self) -> float:
        """One more is under way: since when."""
        self.under_way += 1
        self._fullest = max(self._fullest, self.under_way)
        return self._clock()

    def end(self, since: float) -> None:
        """It was answered, or nobody waits for it any more."""
        self.under_way -= 1
        self._latencies.append(self._clock() - since)
        if len(self._latencies) >= WINDOW:
            self._judge()

    def _judge(self) -> None:
        slowest = sorted(self._latencies)[int(0.9 * len(self._latencies))]
        if slowest > TARGET_S:
            self.limit = max(FEWEST, self.limit * SHRINK)
        elif self._fullest >= NEARLY * self.limit:
            self.limit = min(MOST, self.limit + 1)
        self._latencies.clear()
        self._fullest = self.under_way


def priority_of(data: bytes) -> str | None:
    """The priority of a request that begins like this; None where it is always let in."""
    for beginning, priority in PRIORITIES:
        if data.startswith(beginning):
            return priority
    return None


def content_length(head: bytes) -> int | None:
    """What a request says of the length of its body; None where that is for the parser to judge."""
    start = head.find(b"ontent-")
    while start >= 0:
        name = head[start : start + 14].lower()
        if name == b"ontent-length:":
            value = head[start + 14 : head.find(b"\r\n", start)].strip()
            return int(value) if value.isdigit() and len(value) < 10 else None  # noqa: PLR2004  # a gigabyte is for the parser, too
        start = head.find(b"ontent-", start + 1)
    return None


class AdmittingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a look at each request before it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  # handed on as they are
        super().__init__(*arguments, **named)
        app: Any = self.config.loaded_app
        self._limiter: Limiter = getattr(app, "app", app).state.limiter
        self._inside = False  # a request has begun and not ended

    def data_received(self, data: bytes) -> None:
        idle = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # it begins as None
        if self._inside or not idle or self._admitted(data):
            super().data_received(data)

    def _admitted(self, data: bytes) -> bool:
        """Whether the parser gets to see it; else it is answered here, and the connection kept where its end is known."""
        priority = priority_of(data)
        if priority is None:
            return True
        end = data.find(b"\r\n\r\n")
        length = content_length(data[: end + 2]) if end >= 0 else None
        if priority == EVENTS and length is not None and length > LARGE_BYTES:
            priority = BULK
        if self._limiter.admits(priority):
            return True
        self._unset_keepalive_if_required()
        if length is not None and end + 4 + length == len(data):
            self.transport.write(KEPT)
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        else:
            self.transport.write(CLOSED)
            self.transport.close()
        return False

    def on_message_begin(self) -> None:
        self._inside = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._inside = False
        super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:  # noqa: ANN401  # uvicorn's own types are not public
        since = self._limiter.start()

        async def counted(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # handed on as they are
            try:
                await app(scope, receive, send)
            finally:
                self._limiter.end(since)

        super()._start_asgi_task(cycle, counted)
