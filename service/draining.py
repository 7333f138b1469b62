"""Told to stop, the service first says that it is not ready, and answers on: whoever sends it requests has time to notice."""

import asyncio
import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from types import FrameType

from litestar import Litestar


def drained(app: Litestar, seconds: float) -> Litestar:
    """The application, which after a SIGTERM stops so much later; a second signal ends the wait."""

    async def listen() -> None:
        _defer_sigterm(app, seconds)

    app.on_startup.append(listen)
    return app


def _defer_sigterm(app: Litestar, seconds: float) -> None:
    """Between the signal and the server's own handler, which stops accepting and answers what was asked."""
    stop, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()

    def told(number: int, frame: FrameType | None) -> None:
        if not callable(stop):
            return
        if app.state.draining:
            stop(number, frame)
            return
        app.state.draining = True
        loop.call_soon_threadsafe(loop.call_later, seconds, stop, number, frame)

    signal.signal(signal.SIGTERM, told)


def stop_with_parent() -> None:
    """One of several workers is told to stop once the process that started them is gone, however it went.

    Else it would answer on, with nobody to stop it, and keep the address from the next service.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_stop_after, args=(parent,), daemon=True).start()


def _stop_after(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
