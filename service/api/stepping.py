"""A coroutine without a task: what the event loop keeps of a task takes 5 us, and a request has no use for it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Stepping:
    """Takes a coroutine to its end, from the next turn of the loop on: a step whenever what it waits for is there.

    It may await futures and tasks. What asks for the current task, as `asyncio.timeout` does, finds none. `ended` is called once,
    whichever way it ends; an error that it leaves goes to the loop's handler of exceptions.
    """

    __slots__ = ("_coroutine", "_ended", "_is_cancelled", "_loop", "_waits_for")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], ended: Callable[["Stepping"], object]
    ) -> None:
        self._loop, self._coroutine, self._ended = loop, coroutine, ended
        self._waits_for: asyncio.Future[Any] | None = None
        self._is_cancelled = False  # between two steps
        loop.call_soon(self._step)

    def cancel(self, msg: object = None) -> bool:
        """As of a task: it is told where it waits, or with its next step; False where it has ended."""
        if self._waits_for is not None:
            return self._waits_for.cancel(msg)
        if self._coroutine.cr_frame is None:  # type: ignore[attr-defined]  # a native coroutine has it
            return False
        self._is_cancelled = True
        return True

    def _step(self, _there: asyncio.Future[Any] | None = None) -> None:
        self._waits_for = None
        try:
            waits_for = self._coroutine.throw(asyncio.CancelledError()) if self._is_cancelled else self._coroutine.send(None)
        except (StopIteration, asyncio.CancelledError):
            self._ended(self)
        except BaseException as error:
            self._ended(self)
            if not isinstance(error, Exception):
                raise
            self._loop.call_exception_handler({"message": "Expected a request to be answered", "exception": error})
        else:
            self._is_cancelled = False
            self._wait(waits_for)

    def _wait(self, waits_for: asyncio.Future[Any] | None) -> None:
        if waits_for is None:  # `asyncio.sleep(0)`
            self._loop.call_soon(self._step)
            return
        waits_for._asyncio_future_blocking = False  # noqa: SLF001  # a future's word to whoever steps that it is waited for
        waits_for.add_done_callback(self._step)
        self._waits_for = waits_for
