"""One pipelined connection to Redis for all stores of a process, with a time-out and a breaker."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from service.errors import DependencyFailed
from service.stores.resp import Connection, check, connect, parse_address

FAILURES = 3  # in a row, then Redis counts as down
COOL_DOWN_S = 0.5  # how long it is left alone before one call tries it again


class RedisLink:
    """Calls share the connection, and come back in order. While Redis is down, most fail at once instead of each timing out."""

    def __init__(self, url: str, *, timeout_ms: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._address = parse_address(url)
        self._timeout = timeout_ms / 1000
        self._clock = clock
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._failures = 0
        self._try_again = 0.0

    async def ask(self, commands: bytes, count: int) -> Sequence[Any]:
        """Send so many encoded commands in one go; their replies. Raises DependencyFailed, also where a reply is an error."""
        if not count:
            return []
        self._check_breaker()
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._connected()
                replies = check(await connection.ask(commands, count))
        except (OSError, DependencyFailed) as error:  # TimeoutError is an OSError
            raise self._failed(error) from error
        self._failures = 0
        return replies

    def _check_breaker(self) -> None:
        if self._failures >= FAILURES:
            if self._clock() < self._try_again:
                raise DependencyFailed(f"Expected Redis to answer, found it down ({self._failures} failures in a row)")
            self._try_again = self._clock() + COOL_DOWN_S  # this call tries; those beside it do not

    def _failed(self, error: Exception) -> DependencyFailed:
        self._failures += 1
        self._try_again = self._clock() + COOL_DOWN_S
        if isinstance(error, TimeoutError):
            if self._connection is not None:
                self._connection.abort()  # its replies would come too late for anyone
            return DependencyFailed(f"Expected Redis to answer within {self._timeout * 1000:g} ms, got nothing")
        return DependencyFailed(str(error))

    async def _connected(self) -> Connection:
        """The open connection; calls that find none wait for the same new one."""
        if self._connection is not None and self._connection.is_open:
            return self._connection
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(connect(self._address))
        self._connection = await asyncio.shield(self._opening)
        return self._connection

    async def close(self) -> None:
        """Release the connection."""
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        if self._connection is not None:
            self._connection.abort()
