"""A process that writes outcomes until it is killed: `python -m tests.acceptance.writer HOME FROM PER_SECOND [--reckless]`.

Says `ready SECONDS` once the log is open, and the number of each outcome when it is acknowledged. `--reckless` acknowledges
20 ms before the log has it.
"""

import asyncio
import sys
import time
from pathlib import Path

from service.decision.records import OutcomeRecord
from service.stores.segment_log import SegmentLog

EARLY_S = 0.02  # how long before the log has it a reckless writer says so


async def main(home: Path, number: int, per_second: float, *, reckless: bool) -> None:
    started = time.perf_counter()
    log = SegmentLog(home / "log")
    print(f"ready {time.perf_counter() - started}", flush=True)
    began, first, running = time.perf_counter(), number, set[asyncio.Task[None]]()
    while True:
        await asyncio.sleep(max(0.0, began + (number - first) / per_second - time.perf_counter()))
        task = asyncio.create_task(append(log, number, reckless=reckless))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1


async def append(log: SegmentLog, number: int, *, reckless: bool) -> None:
    if reckless:
        print(number, flush=True)
        await asyncio.sleep(EARLY_S)
    at = time.time()
    await log.append_outcomes([OutcomeRecord(f"o{number}", f"d{number}", "click", at, at)])
    if not reckless:
        print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), reckless="--reckless" in sys.argv))
