"""Where the time of a request went, for whoever collects traces. Where nobody does, nothing is traced and nothing costs."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

Traced = Any  # what a tracer knows a request by; None where this one is not traced


class Lap(NamedTuple):
    """A stage of a batch, from when to when: nanoseconds of `time.perf_counter_ns`."""

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
    """Times what happens within, and writes it down among the laps."""

    __slots__ = ("_begun", "_laps", "_name")

    def __init__(self, name: str, laps: list[Lap]) -> None:
        self._name, self._laps = name, laps
        self._begun = 0

    def __enter__(self) -> None:
        self._begun = time.perf_counter_ns()

    def __exit__(self, *error: object) -> None:
        self._laps.append(Lap(self._name, self._begun, time.perf_counter_ns()))
