"""What `nextbest decide` takes: customers a second, and memory."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from loadtests.redis_memory import customer_name
from loadtests.servers import ROOT, Place, environment
from loadtests.world import PLACEMENT

LOOK_EVERY_S = 0.25


class Run(NamedTuple):
    """Customers decided for in a second of the whole command, and the most memory that its processes held at once, in MB."""

    per_second: float
    megabytes: float


def decided(place: Place, folder: Path, name: str, customers: int, cores: Sequence[int]) -> Run:
    """From the start of the command to its end: claimed in Redis, written to the log, one row for each in the result.

    The customers are those of `redis_memory.load`, and their campaign has the name. Raises RuntimeError where it fails.
    """
    table, out, log = (folder / f"{name}{kind}" for kind in (".parquet", "-decided.parquet", ".log"))
    out.unlink(missing_ok=True)
    pq.write_table(pa.table({"customer_id": [customer_name(number) for number in range(customers)]}), table)
    words = (
        "decide", str(table), "--out", str(out), "--placement", PLACEMENT, "--context", "device=mobile", "--campaign", name,
        "--processes", str(len(cores)),
    )  # fmt: skip
    begun = time.perf_counter()
    with log.open("wb") as output:
        command, without = place.command(*words, cores=cores), subprocess.DEVNULL
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=without, stdout=output, stderr=output)
        with _memory_of(process.pid) as megabytes:
            code = process.wait()
    took = time.perf_counter() - begun
    if code or pq.read_metadata(out).num_rows != customers:
        raise RuntimeError(f"Expected a decision for each of {customers} customers, got: {log.read_text()[-500:]}")
    return Run(customers / took, max(megabytes))


@contextlib.contextmanager
def _memory_of(pid: int) -> Iterator[list[float]]:
    """Meanwhile, again and again, the resident memory of a process and of those that it has started, together."""
    ended, found = threading.Event(), [0.0]

    def look() -> None:
        while not ended.wait(LOOK_EVERY_S):
            found.append(sum(_resident(one) for one in _tree(pid)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):  # it may have ended
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _tree(int(child))


def _resident(pid: int) -> float:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
    return 0.0
