"""Row 6: how soon a worker answers, what it weighs, and that it does not grow."""

import time
from typing import NamedTuple

import numpy as np

from loadtests.compare import good, requests
from loadtests.generator import closed
from loadtests.servers import OURS, Server
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import resident_megabytes
from tests.acceptance.speed_place import speed_place

READY_S, MOST_MB, MOST_MB_A_MINUTE = 2.0, 200.0, 1.0
MINUTES, WARM_UP_MINUTES = 10.0, 1.0  # the first answers fill caches: to be seen in the figure, and not a slope
PAUSE_S = 2.0  # between two looks at its memory


class Sample(NamedTuple):
    """Minutes since the load began, and megabytes."""

    minute: float
    megabytes: float


def measure(context: Context) -> Measured:
    with speed_place(context) as place, place.running(OURS) as server:
        begun, answers = time.monotonic(), 0
        samples = [Sample(0.0, resident_megabytes(server.process.pid))]
        while samples[-1].minute < WARM_UP_MINUTES + MINUTES:
            answers += _load(server)
            samples.append(Sample((time.monotonic() - begun) / 60.0, resident_megabytes(server.process.pid)))
    slope = megabytes_a_minute([s for s in samples if s.minute >= WARM_UP_MINUTES])
    first = next(s.megabytes for s in samples if s.minute >= WARM_UP_MINUTES)
    figure = (
        f"ready after {server.ready_s:.2f} s; {samples[0].megabytes:.0f} MB at the start, {first:.0f} after a minute, "
        f"{samples[-1].megabytes:.0f} after {samples[-1].minute:.0f} minutes and {answers:,} answers: {slope:+.2f} MB a minute"
    )
    holds = server.ready_s <= READY_S and max(s.megabytes for s in samples) <= MOST_MB and slope <= MOST_MB_A_MINUTE
    return Measured(figure, holds)


def _load(server: Server) -> int:
    """As many as it answers at 32 connections, for a while."""
    return good(OURS, closed(server.port, requests(), seconds=PAUSE_S, warm_up=0.0)).good


def megabytes_a_minute(samples: list[Sample]) -> float:
    """The slope of the straight line through all of them that misses them least (least squares)."""
    minutes, megabytes = zip(*samples, strict=True)
    return float(np.polyfit(minutes, megabytes, 1)[0])


ROW = Row(
    6,
    f"a worker: start, memory, and {MINUTES:.0f} minutes of as much load as it can answer",
    f"ready <= {READY_S:.0f} s; <= {MOST_MB:.0f} MB; grows by at most {MOST_MB_A_MINUTE:.0f} MB a minute",
    measure,
)
