"""Work beside answers: the thread that loads a version shares the interpreter with the one that answers, and gives way to it.

Loading is the interpreter's own work, from the bytes of a model to the bits of its trees. At 70 % load a thread that takes every
other turn for 30 ms leaves more waiting than are let in.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar

WORK_S = 0.001  # between two rests
SHARE = 0.25  # of the time is worked
LONGEST_S = 0.02  # a rest


class Pace:
    """Works a quarter of the time, and rests three. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock, self._sleep = clock, sleep
        self._since = clock()

    def step(self) -> None:
        """Rest, where it is time."""
        worked = self._clock() - self._since
        if worked >= WORK_S:
            self._sleep(min(LONGEST_S, worked * (1.0 / SHARE - 1.0)))
            self._since = self._clock()


_pace: ContextVar[Pace | None] = ContextVar("pace", default=None)


def breathe() -> None:
    """To be called every few hundred microseconds by what may take long; nothing where nobody has to give way."""
    pace = _pace.get()
    if pace is not None:
        pace.step()


def paced(work: Callable[[], None], pace: Pace | None = None) -> None:
    """Work that gives way, in a thread of its own."""
    token = _pace.set(pace or Pace())
    try:
        work()
    finally:
        _pace.reset(token)
