"""Row 9: what a second worker adds."""

import contextlib
import statistics

from loadtests.compare import ratio, throughput
from loadtests.servers import OURS, place
from tests.acceptance.row import Context, Measured, Row

CORES = (0, 1)
TIMES = 1.7
ONE, TWO = "one worker", "two workers"


def measure(context: Context) -> Measured:
    folder = context.scratch / "speed"
    folder.mkdir(exist_ok=True)
    with place(folder) as made, contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(made.running(OURS, cores=CORES, options=("--workers", str(workers))))
            for workers, name in enumerate((ONE, TWO), 1)
        }
        throughput(servers, rounds=1)
        found = throughput(servers)
    times = ratio(found, TWO, ONE)
    told = ", ".join(f"{name} {statistics.median(rates):.0f}/s" for name, rates in found.items())
    return Measured(f"{told}: {times:.2f} x; load generator and Redis share the two cores with them", times >= TIMES)


ROW = Row(
    9,
    f"two workers beside one, both free to use {len(CORES)} cores, which the load generator and Redis use as well",
    f"at least {TIMES:g} x",
    measure,
)
