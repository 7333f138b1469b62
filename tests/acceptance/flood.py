"""More requests than anybody could answer: sent when they are due, over many connections, by callbacks alone."""

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import NamedTuple

from tests.acceptance.open_loop import Call

CONNECTIONS = 800  # at 40,000 a second each of them has 20 ms to be answered: with fewer the sender would wait, and be late
TICK_S = 0.002


class Seen(NamedTuple):
    """One answer: which kind of request, its status (0: none came), when it was due, and how long after that it came."""

    path: str
    status: int
    due: float
    seconds: float


class _Line(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self, flood: "Flood") -> None:
        self._flood = flood
        self._transport: asyncio.Transport | None = None
        self._asked: tuple[str, float] | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream connection's transport reads and writes
        self._flood.free.append(self)

    def ask(self, call: Call, due: float) -> None:
        self._asked, self._data = (call.path, due), b""
        if self._transport is not None:
            self._transport.write(call.data)

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or self._asked is None:
            return
        head = self._data[:end].lower()
        start = head.find(b"content-length:")
        length = int(head[start + 15 : start + 24].split(b"\r\n")[0])
        if len(self._data) < end + 4 + length:
            return
        self._tell(int(head[9:12]))
        if b"connection: close" in head and self._transport is not None:
            self._transport.close()
        else:
            self._flood.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._tell(0)
        if self in self._flood.free:
            self._flood.free.remove(self)
        self._flood.replace()

    def _tell(self, status: int) -> None:
        if self._asked is not None:
            path, due = self._asked
            self._flood.seen.append(Seen(path, status, due, time.perf_counter() - due))
            self._asked = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Flood:
    """Requests at a rate that does not care for answers. Where every connection waits for one, the next request waits, too."""

    def __init__(self, host: str, port: int, connections: int = CONNECTIONS) -> None:
        self._address = (host, port)
        self._connections = connections
        self._open = False
        self._tasks: set[asyncio.Task[object]] = set()
        self.free: list[_Line] = []
        self.seen: list[Seen] = []
        self._lines: list[_Line] = []

    async def run(self, calls: Iterator[Call], per_second: float, seconds: float) -> list[Seen]:
        """What came back; requests that were due and could not even be sent are told as unanswered."""
        gc.disable()  # walking 100,000 answers takes 100 ms, which would be told as the server's
        try:
            return await self._run(calls, per_second, seconds)
        finally:
            gc.enable()

    async def _run(self, calls: Iterator[Call], per_second: float, seconds: float) -> list[Seen]:
        self._open = True
        await asyncio.gather(*(self._connect() for _ in range(self._connections)))
        begun, sent, due = time.perf_counter(), 0, round(per_second * seconds)
        while sent < due:
            now = time.perf_counter() - begun
            while sent < due and sent / per_second <= now and self.free:
                self.free.pop().ask(next(calls), begun + sent / per_second)
                sent += 1
            if now > seconds + 2.0:
                break
            await asyncio.sleep(TICK_S)
        await asyncio.sleep(1.0)
        self._open = False
        for line in self._lines:
            line.close()
        await asyncio.sleep(0.05)
        end = time.perf_counter()
        never = [Seen("", 0, begun + n / per_second, end - begun - n / per_second) for n in range(sent, due)]
        return [*self.seen, *never]

    async def _connect(self) -> None:
        try:
            _, line = await asyncio.get_running_loop().create_connection(lambda: _Line(self), *self._address)
        except OSError:
            return
        self._lines.append(line)

    def replace(self) -> None:
        """Another connection for one that was closed."""
        if self._open:
            task = asyncio.create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
