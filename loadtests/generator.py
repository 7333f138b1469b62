"""A load generator that costs less than what it measures: callbacks alone, over connections that stay open.

Closed: each connection asks again as soon as it is answered. Open: requests are sent when they are due, and their times count
from then, whether the one before was answered or not; what is not answered when the time is over is waited for, so that a stall
at the end is as slow as one in the middle.
"""

import asyncio
import gc
import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import uvloop

OK = 200
TICK_S = 0.0002  # for which it sleeps between two looks: 0.3 ms with what lies between; uvloop's shortest timer takes 1.2
GRACE_S = 1.0  # for what was due in time and is not answered yet; later than that is no answer


class Load(NamedTuple):
    """What came of it: answers, how many of them were 200, seconds, and the latency of each in seconds.

    `unanswered`: how many of the answers never came; their latency is how long they were waited for.
    """

    answers: int
    good: int
    seconds: float
    latencies: list[float]
    unanswered: int = 0

    @property
    def per_second(self) -> float:
        return self.good / self.seconds

    def percentile(self, share: float) -> float:
        """The latency, in seconds, that this share of the answers stays below."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


def post(path: str, body: object) -> bytes:
    """A request, ready for the wire."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class _Line(asyncio.Protocol):
    """One connection, which has one request under way. `told` is called with (itself, status, when it was due)."""

    def __init__(self, told: Callable[["_Line", int, float], None]) -> None:
        self._told = told
        self._transport: Any = None
        self.due = 0.0
        self.waiting = False
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, data: bytes, due: float) -> None:
        self.due, self.waiting, self._data = due, True, b""
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._data[:end].lower()
        start = head.find(b"content-length:") + 15
        if len(self._data) >= end + 4 + int(head[start:].partition(b"\r")[0]):
            self.waiting = False
            self._told(self, int(head[9:12]), self.due)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self.waiting:
            self.waiting = False
            self._told(self, 0, self.due)

    def close(self) -> None:
        self.waiting = False
        self._transport.abort()


class _Run:
    """One measurement over some connections."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self._port = port
        self._requests = requests
        self._ends = self._begins = 0.0
        self._free: list[_Line] = []
        self._good = 0
        self._latencies: list[float] = []

    async def closed(self, connections: int, seconds: float, warm_up: float) -> Load:
        lines = await self._connect(connections, self._again)
        started = time.perf_counter()
        self._begins, self._ends = started + warm_up, started + warm_up + seconds
        for line in lines:
            line.ask(next(self._requests), time.perf_counter())
        await asyncio.sleep(warm_up + seconds)
        return self._load(lines, seconds)

    def _again(self, line: _Line, status: int, due: float) -> None:
        now = time.perf_counter()
        if self._begins <= now < self._ends:
            self._good += status == OK
            self._latencies.append(now - due)
        if status and now < self._ends:
            line.ask(next(self._requests), now)

    async def open(self, connections: int, per_second: float, seconds: float, warm_up: float) -> Load:
        lines = await self._connect(connections, self._freed)
        self._free = list(lines)
        begun, sent, most = time.perf_counter(), 0, math.ceil((warm_up + seconds) * per_second)
        self._begins, self._ends = begun + warm_up, begun + warm_up + seconds
        while (now := time.perf_counter()) < self._ends + GRACE_S and (sent < most or any(line.waiting for line in lines)):
            while self._free and sent < most and begun + sent / per_second <= now:
                self._free.pop().ask(next(self._requests), begun + sent / per_second)
                sent += 1
            time.sleep(TICK_S)  # noqa: ASYNC251  # nobody else is here; what has come meanwhile is seen with the next turn
            await asyncio.sleep(0)
        left = [line.due for line in lines if line.waiting] + [begun + n / per_second for n in range(sent, most)]
        waited = [now - due for due in left if due >= self._begins]
        self._latencies += waited
        return self._load(lines, seconds, len(waited))

    def _freed(self, line: _Line, status: int, due: float) -> None:
        if self._begins <= due:
            self._good += status == OK
            self._latencies.append(time.perf_counter() - due)
        if status:
            self._free.append(line)

    async def _connect(self, connections: int, told: Callable[[_Line, int, float], None]) -> list[_Line]:
        loop = asyncio.get_running_loop()
        made = [await loop.create_connection(lambda: _Line(told), "127.0.0.1", self._port) for _ in range(connections)]
        return [line for _, line in made]

    def _load(self, lines: list[_Line], seconds: float, unanswered: int = 0) -> Load:
        for line in lines:
            line.close()
        return Load(len(self._latencies), self._good, seconds, self._latencies, unanswered)


def closed(port: int, requests: Iterator[bytes], connections: int = 32, *, seconds: float = 3.0, warm_up: float = 0.5) -> Load:
    """As many as are answered, over so many connections to a server of this machine."""
    return _undisturbed(lambda: _Run(port, requests).closed(connections, seconds, warm_up))


def open_loop(
    port: int, requests: Iterator[bytes], per_second: float, *, connections: int = 128, seconds: float = 5.0, warm_up: float = 0.5
) -> Load:
    """So many a second, whatever becomes of them: each that was due once it was warm counts, also where no answer came."""
    return _undisturbed(lambda: _Run(port, requests).open(connections, per_second, seconds, warm_up))


def _undisturbed(work: Callable[[], Any]) -> Load:
    gc.disable()  # walking 100,000 answers takes 100 ms, which would be told as the server's
    try:
        load: Load = uvloop.run(work())
    finally:
        gc.enable()
    return load
