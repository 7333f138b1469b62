"""How many requests a second a server answers when it is never left waiting."""

import asyncio
import time
from collections.abc import Iterator

from tests.acceptance.open_loop import Call, OpenLoop

AT_ONCE = 32
SECONDS = 5.0


async def capacity(host: str, port: int, calls: Iterator[Call], seconds: float = SECONDS) -> float:
    """Requests a second with 32 connections that each ask again as soon as they are answered."""
    loop, answered = OpenLoop(host, port), 0
    end = time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal answered
        while time.perf_counter() < end:
            status, _ = await loop.ask(next(calls).data)
            answered += status == 200  # HTTP's word for yes

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    loop.close()
    return answered / (time.perf_counter() - started)
