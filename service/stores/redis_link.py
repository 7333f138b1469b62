"""One pipelined connection to Redis for all stores of a process, with a time-out and a breaker."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from service.errors import DependencyDown, DependencyFailed, DependencyTimedOut
from service.stores.resp import Connection, check, connect, encode, parse_address

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0  # between two looks whether Redis is back
STEADY_S = 5.0  # without a failure, and the next one begins with a short pause again
TRIAL = encode("ECHO", b"." * 2000)  # as long as an answer: a line that carries a few bytes a second does not pass


class RedisLink:
    """Calls share the connection, and come back in order.

    After a call that was not answered in time, or lost its connection, Redis counts as down: calls fail at once, and a task of
    the link's own looks whether it is back. So a few requests wait for the time-out, however long Redis is gone. An error that
    Redis tells is an answer: it fails one call and nothing else. Where it says that it is read-only, another server may have
    taken its place: the link connects again, to wherever the address leads now, and goes on with what it has until then.
    """

    has_slots = False  # a script may name any keys

    def __init__(self, url: str, *, timeout_ms: float = 30.0) -> None:
        self._address = parse_address(url)
        self._timeout = timeout_ms / 1000
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._down: str | None = None  # why
        self._watching: asyncio.Task[None] | None = None
        self._pause = SHORTEST_PAUSE_S
        self._since = 0.0  # the loop's time of the last failure

    @property
    def problem(self) -> str | None:
        """Why Redis counts as down; None where it does not."""
        return self._down

    async def ask(self, commands: bytes, count: int, *, raw: bool = False) -> Sequence[Any]:
        """Send so many encoded commands in one go; their replies. Raises DependencyFailed, also where a reply is an error.

        `raw`: errors that Redis tells are left among the replies.
        """
        if not count:
            return []
        if self._down is not None:
            raise DependencyDown(f"Expected Redis to answer, found it down: {self._down}")
        try:
            replies = await self._asked(commands, count)
        except (OSError, DependencyFailed) as error:  # TimeoutError is an OSError
            raise self._failed(error) from error
        if self._connection is not None and self._connection.is_replica and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.create_task(self._renew(self._connection))
        return replies if raw else check(replies)

    async def _asked(self, commands: bytes, count: int) -> Sequence[Any]:
        connection = self._connection
        if connection is None or not connection.is_open:
            async with asyncio.timeout(self._timeout):
                return await (await self._connected()).ask(commands, count)
        answer = connection.ask(commands, count)
        alarm = asyncio.get_running_loop().call_later(self._timeout, _expire, answer)  # 0.7 us; `asyncio.timeout` takes 3.2
        try:
            return await answer
        finally:
            alarm.cancel()

    def _failed(self, error: Exception) -> DependencyFailed:
        problem = str(error) if isinstance(error, DependencyFailed) else f"Expected Redis to answer, got: {error}"
        if isinstance(error, TimeoutError):
            problem = f"Expected Redis to answer within {self._timeout * 1000:g} ms, got nothing"
            if self._connection is not None:
                self._connection.abort()  # its replies would come too late for anyone
        if self._down is None:
            self._down = problem
            now = asyncio.get_running_loop().time()
            self._pause = SHORTEST_PAUSE_S if now - self._since > STEADY_S else min(LONGEST_PAUSE_S, 2 * self._pause)
            self._watching = asyncio.create_task(self._watch())
        return DependencyTimedOut(problem) if isinstance(error, TimeoutError) else DependencyFailed(problem)

    async def _watch(self) -> None:
        """Look until Redis is back."""
        while True:
            try:
                check(await self._asked(TRIAL, 1))
            except (OSError, DependencyFailed) as error:
                if isinstance(error, TimeoutError) and self._connection is not None:
                    self._connection.abort()
                await asyncio.sleep(self._pause)
                self._pause = min(LONGEST_PAUSE_S, 2 * self._pause)
            else:
                self._since = asyncio.get_running_loop().time()
                self._down = None
                return

    async def _connected(self) -> Connection:
        """The open connection; calls that find none wait for the same new one."""
        if self._connection is not None and self._connection.is_open:
            return self._connection
        return await self._opened()

    async def _opened(self) -> Connection:
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(retrieve)
        return await asyncio.shield(self._opening)

    async def _open(self) -> Connection:
        """A new connection, kept here and not by who waits for it: that one may be gone, or come after the next who asks."""
        patience = max(self._timeout, LONGEST_PAUSE_S)  # where packets are dropped, the kernel would go on and on
        self._connection = await asyncio.wait_for(connect(self._address), patience)
        return self._connection

    async def _renew(self, former: Connection) -> None:
        try:
            with contextlib.suppress(OSError, DependencyFailed):
                await self._opened()
            # not sooner again; and nobody waits any more for what was asked over the former one
            await asyncio.sleep(max(self._timeout, LONGEST_PAUSE_S))
        finally:
            if self._connection is not former:
                former.abort()

    async def close(self) -> None:
        """Release the connection."""
        for task in (self._watching, self._opening, self._renewing):
            if task is not None and not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError, DependencyFailed):
                    await task
        if self._connection is not None:
            self._connection.abort()


def _expire(answer: asyncio.Future[list[Any]]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


def retrieve(task: asyncio.Task[Any]) -> None:
    """A failure that nobody waits for any more is told by the next look."""
    if not task.cancelled():
        task.exception()
