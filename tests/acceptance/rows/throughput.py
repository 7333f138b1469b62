"""Row 1: how many decisions a second one core makes, beside what people put together today and beside the floor."""

import statistics

from loadtests.compare import ratio, throughput, together
from loadtests.servers import OURS
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.speed_place import speed_place

PEER, FLOOR = "feast-lightgbm", "floor"
TIMES_PEER, OF_FLOOR = 6.0, 0.6


def measure(context: Context) -> Measured:
    with speed_place(context) as place, together(place, (OURS, PEER, FLOOR)) as servers:
        found = throughput(servers)
    times, share = ratio(found, OURS, PEER), ratio(found, OURS, FLOOR)
    told = ", ".join(f"{name} {statistics.median(rates):.0f}" for name, rates in found.items())
    return Measured(f"{told} /s: {times:.1f} x the peer, {share:.2f} of the floor", times >= TIMES_PEER and share >= OF_FLOOR)


ROW = Row(
    1,
    "throughput of the full pipeline at 32 connections, one core, beside FastAPI + Feast + LightGBM and the floor",
    f"at least {TIMES_PEER:g} x the peer and {OF_FLOOR:g} of the floor",
    measure,
)
