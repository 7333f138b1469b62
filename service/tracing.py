"""Where the time of a request went, for whoever collects traces. Where nobody does, nothing is traced and nothing costs."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from prometheus_client import Histogram

Traced = Any  # what a tracer knows a request by; None where this one is not traced


class Lap(NamedTuple):
    """A stage of a batch, from when to when: nanoseconds since 1970 UTC."""

    stage: str
    begun: int
    ended: int


class Tracer(Protocol):
    """Follows requests from the door through the stages of the batch that they are decided in."""

    is_on: bool

    @contextlib.contextmanager
    def request(self, method: str, route: str, headers: Mapping[bytes, bytes]) -> Iterator[Traced]:
        """A request on its way, whose caller may have begun the trace (header `traceparent`)."""

    def current(self) -> Traced:
        """The request that the caller is part of."""

    def answered(self, traced: Traced, status: int) -> None:
        """How the request ended: its HTTP status."""

    def decided(self, traced: Sequence[Traced], laps: Sequence[Lap]) -> None:
        """The stages of one batch belong to each of its requests."""

    def close(self) -> None:
        """Send what is left, within two seconds."""


class NoTracer:
    """Where nobody collects traces."""

    is_on = False

    @contextlib.contextmanager
    def request(self, method: str, route: str, headers: Mapping[bytes, bytes]) -> Iterator[Traced]:  # noqa: ARG002  # the port's names
        yield None

    def current(self) -> Traced:
        return None

    def answered(self, traced: Traced, status: int) -> None:
        """Nobody asks."""

    def decided(self, traced: Sequence[Traced], laps: Sequence[Lap]) -> None:
        """Nobody asks."""

    def close(self) -> None:
        """There is nothing."""


class Timed:
    """Times what happens within. `laps`: where it is written down for who traces; None: nobody does."""

    __slots__ = ("_begun", "_laps", "_name", "_seconds")

    def __init__(self, name: str, seconds: Histogram, laps: list[Lap] | None) -> None:
        self._name, self._seconds, self._laps = name, seconds, laps
        self._begun = 0

    def __enter__(self) -> None:
        self._begun = time.perf_counter_ns()

    def __exit__(self, *error: object) -> None:
        took = time.perf_counter_ns() - self._begun
        self._seconds.observe(took / 1e9)
        if self._laps is not None:
            ended = time.time_ns()
            self._laps.append(Lap(self._name, ended - took, ended))
