"""Requests that arrive when they arrive, whether the one before was answered or not; times count from when each was due."""

import asyncio
import gc
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

IDLE_S = 3.0  # servers close connections that were idle for 5 s
NO_ANSWER = 0  # stands for a status where there was none


class Answer(NamedTuple):
    """What came back. `due` and `seconds`: when it was due (time.perf_counter()), and how long after that it was answered."""

    path: str
    status: int
    body: bytes
    due: float
    seconds: float

    def json(self) -> Any:  # whatever was answered
        return json.loads(self.body)


class Call(NamedTuple):
    """A request, ready for the wire."""

    path: str
    data: bytes


def call(path: str, body: object) -> Call:
    """A POST of JSON."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return Call(path, head.encode() + content)


class OpenLoop:
    """A pool of connections to one server, as many as are needed at once."""

    def __init__(self, host: str, port: int, patience: float = 5.0) -> None:
        self._address = (host, port)
        self._patience = patience
        self._ends = 0.0
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def run(self, calls: Iterator[Call], per_second: float, seconds: float) -> list[Answer]:
        """Calls at an even rate for so long; every answer, or NO_ANSWER."""
        gc.disable()  # walking 100,000 answers takes 100 ms, which would be told as the server's
        try:
            return await self._run(calls, per_second, seconds)
        finally:
            gc.enable()

    async def _run(self, calls: Iterator[Call], per_second: float, seconds: float) -> list[Answer]:
        begun, tasks = time.perf_counter(), list[asyncio.Task[Answer]]()
        self._ends = begun + seconds
        for number in range(round(per_second * seconds)):
            if begun + number / per_second > self._ends:
                break
            due = begun + number / per_second
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(self._one(next(calls), due)))
        await self._answered(tasks)
        return [task.result() for task in tasks]

    async def _answered(self, tasks: Sequence[asyncio.Task[Answer]]) -> None:
        """Wait for the last ones alone: to gather 160,000 takes a fifth of a second, which would be told as the server's."""
        if under_way := [task for task in tasks if not task.done()]:
            await asyncio.wait(under_way)

    async def _one(self, call: Call, due: float) -> Answer:
        try:
            async with asyncio.timeout(self._patience):
                status, body = await self.ask(call.data)
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:  # TimeoutError is an OSError
            status, body = NO_ANSWER, repr(error).encode()
        return Answer(call.path, status, body, due, time.perf_counter() - due)

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        """One request, now: status and body. Raises OSError, and EOFError where the connection ends before the answer."""
        reader, writer = self._idle() or await asyncio.open_connection(*self._address)
        try:
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0)
            body = await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self._free.append((reader, writer, time.perf_counter()))
        return int(head[9:12]), body

    def _idle(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The connection used last; none that has been idle for so long that the server may be closing it."""
        while self._free:
            reader, writer, since = self._free.pop()
            if time.perf_counter() - since < IDLE_S:
                return reader, writer
            writer.close()
        return None

    def end_in(self, seconds: float) -> None:
        """The calls under way end so long from now, and not when they were told to."""
        self._ends = time.perf_counter() + seconds

    def close(self) -> None:
        """Let go of every connection."""
        while self._free:
            self._free.pop()[1].close()


def percentile(values: list[float], share: float) -> float:
    """The value that this share of them stays below; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
