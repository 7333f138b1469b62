"""Where the time of a decision goes."""

import json
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from loadtests.compare import CONNECTIONS, good, requests
from loadtests.generator import closed
from loadtests.sampled import LOOP, OTHERS, STAGES, Seen
from loadtests.servers import OURS, Place

SECONDS, WARM_UP_S = 10.0, 3.0
BEGIN, END = "<!-- stages: begin -->", "<!-- stages: end -->"
IDLE = "waiting, and what others took of the core"


class Stages(NamedTuple):
    """Microseconds a decision by stage; all of it, by the clock; and how many samples and decisions they come from."""

    by_stage: dict[str, float]
    total_us: float
    samples: int
    decisions: int

    @property
    def told(self) -> float:
        """The share of the time by the clock that the stages tell, waiting aside."""
        return sum(us for stage, us in self.by_stage.items() if stage != IDLE) / self.total_us


def stages(place: Place) -> Stages:
    """Of a server that answers as many as it can, on one core."""
    told = place.logs / "stages.json"
    with place.running(OURS, under=("loadtests.sampled", str(told))) as server:
        closed(server.port, requests(), CONNECTIONS, seconds=WARM_UP_S)
        _looked(told, server.process.pid)
        load = good(OURS, closed(server.port, requests(), CONNECTIONS, seconds=SECONDS, warm_up=0.0))
        seen = _looked(told, server.process.pid)
    return by_stage(seen, load.good, load.seconds)


def by_stage(seen: Seen, decisions: int, seconds: float) -> Stages:
    """Samples share out the main thread's processor time; other threads have what is left of the process's."""
    samples = sum(seen.samples.values())
    each = {name: seen.samples.get(name, 0) / samples * seen.main_s for name in (*STAGES, LOOP)}
    each |= {OTHERS: seen.process_s - seen.main_s, IDLE: max(0.0, seconds - seen.process_s)}
    return Stages({name: 1e6 * took / decisions for name, took in each.items()}, 1e6 * seconds / decisions, samples, decisions)


def _looked(told: Path, process: int) -> Seen:
    """What was seen since the last look."""
    told.unlink(missing_ok=True)
    os.kill(process, signal.SIGUSR1)
    give_up = time.monotonic() + 5.0
    while not told.exists():
        if time.monotonic() > give_up:
            raise RuntimeError("Expected the server to tell what it saw, got nothing within 5 s")
        time.sleep(0.01)
    return Seen(*json.loads(told.read_text()))


def markdown(found: Stages) -> str:
    """The table of docs/performance.md."""
    lines = ["| stage | us a decision | share |", "|---|---:|---:|"]
    lines += [f"| {stage} | {us:.0f} | {us / found.total_us:.0%} |" for stage, us in found.by_stage.items()]
    lines.append(f"| **all** | **{sum(found.by_stage.values()):.0f}** | {sum(found.by_stage.values()) / found.total_us:.0%} |")
    source = f"{found.samples:,} samples over {found.decisions:,} decisions; by the clock {found.total_us:.0f} us each."
    return "\n".join([*lines, "", source])
