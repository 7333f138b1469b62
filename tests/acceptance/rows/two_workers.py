"""Row 9: what a second worker adds, where the machine has a second core to give it.

On a machine of two cores Redis and the load generator need a part of them, too, and a second worker gets what they leave. So
one worker shares one core with Redis and the load generator, and two workers share two cores with them: twice of everything.
Each has as many connections as it answers most at: with as many for both, each of two would decide batches of half the size. What
two cores are worth is told beside it: of loops that share nothing, two do so much more than one alone.

How soon they are answered is not the subject here: with 128 at once on one core one answer of ten may take more than half of the
usual deadline, and where clients ask with no other, some of them are turned away then.
"""

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence

import redis

from loadtests.compare import ROUNDS, ratio, throughput
from loadtests.servers import OURS, Server, place
from tests.acceptance.row import Context, Measured, Row

CORES = (0, 1)
TIMES = 1.7
TRIED = 32, 64, 128, 256, 512  # connections: two workers answered 11,384 a second at 512, and 10,944 at 256
DEADLINE_MS = 1000
ONE, TWO = "one worker", "two workers"
LOOP = """
import time
end, n = time.perf_counter() + 1.0, 0
while time.perf_counter() < end:
    for _ in range(1000): pass
    n += 1
print(n)
"""


def measure(context: Context) -> Measured:
    folder = context.scratch / "speed"
    folder.mkdir(exist_ok=True)
    with place(folder) as made, contextlib.ExitStack() as stack:
        with redis.Redis.from_url(made.redis_url) as client:
            redis_process = int(client.info("server")["process_id"])
        servers = {
            name: (cores, stack.enter_context(made.running(OURS, cores=cores, options=("--workers", str(len(cores))))))
            for name, cores in ((ONE, CORES[:1]), (TWO, CORES))
        }
        most: dict[str, int] = {}
        for name, (cores, server) in servers.items():
            with _kept_to(cores, redis_process, 0):
                most[name] = max(TRIED, key=lambda count, server=server: _answered(server, count))
        found: dict[str, list[float]] = {ONE: [], TWO: []}
        loops: list[float] = []
        for _ in range(ROUNDS):
            loops.append(_loops(CORES) / _loops(CORES[:1]))
            for name, (cores, server) in servers.items():
                with _kept_to(cores, redis_process, 0):
                    found[name] += throughput({name: server}, rounds=1, connections=most[name], deadline_ms=DEADLINE_MS)[name]
    times = ratio(found, TWO, ONE)
    told = ", ".join(f"{name} {statistics.median(rates):.0f}/s at {most[name]} connections" for name, rates in found.items())
    return Measured(f"{told}: {times:.2f} x; of loops that share nothing two do {statistics.median(loops):.2f} x", times >= TIMES)


def _answered(server: Server, connections: int) -> float:
    """Answers a second, the median of three rounds; none where some are turned away. The first round fills caches."""
    try:
        return statistics.median(throughput({OURS: server}, rounds=4, connections=connections, deadline_ms=DEADLINE_MS)[OURS][1:])
    except RuntimeError:
        return 0.0


def _loops(cores: Sequence[int]) -> float:
    """How often a process on each of these cores has counted to a thousand, together."""
    commands = [["taskset", "--cpu-list", str(core), sys.executable, "-c", LOOP] for core in cores]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    return sum(float(process.communicate(timeout=30)[0]) for process in started)


@contextlib.contextmanager
def _kept_to(cores: Sequence[int], *processes: int) -> Iterator[None]:
    """Meanwhile these processes, 0 for this one, are on these cores."""
    before = {process: os.sched_getaffinity(process) for process in processes}
    for process in processes:
        os.sched_setaffinity(process, cores)
    try:
        yield
    finally:
        for process, had in before.items():
            os.sched_setaffinity(process, had)


ROW = Row(
    9,
    "one worker, Redis and the load generator on one core; two workers and the same on two cores; in turn",
    f"at least {TIMES:g} x",
    measure,
)
