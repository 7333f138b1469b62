"""Row 2: how long one request takes, alone and among others."""

import statistics

from loadtests.compare import alone, half_load, ratio, throughput, together
from loadtests.servers import OURS
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.throughput import PEER
from tests.acceptance.speed_place import speed_place

OF_PEER, TIMES_P50 = 0.45, 6.0


def measure(context: Context) -> Measured:
    with speed_place(context) as place, together(place, (OURS, PEER)) as servers:
        found = alone(servers)
        capacity = statistics.median(throughput({OURS: servers[OURS]})[OURS])
        half = half_load(servers, capacity)
    share, p50, peers = ratio(found, OURS, PEER), statistics.median(found[OURS]), statistics.median(found[PEER])
    figure = (
        f"alone p50 {p50 * 1e3:.2f} ms, {share:.2f} of the peer's {peers * 1e3:.2f}; at {half.per_second:.0f}/s "
        f"p50 {half.p50 * 1e3:.2f} ms, p99 {half.p99 * 1e3:.2f} ms: {half.p99 / p50:.1f} x alone"
    )
    return Measured(figure, share <= OF_PEER and half.p99 <= TIMES_P50 * p50)


ROW = Row(
    2,
    "latency alone (1 connection), and at half of the capacity",
    f"p50 alone at most {OF_PEER:g} of the peer's; p99 at half load at most {TIMES_P50:g} x p50 alone",
    measure,
)
