"""Row 4: the disk is full, fails, and stalls, while customers are being answered."""

import contextlib
import errno
import http.client
import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from features.redis_server import resolve_redis
from tests.acceptance.processes import clean_environment
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.crashes import lines_of, wait_until_ready
from tests.acceptance.rows.footprint import free_port
from tests.acceptance.rows.live_world import live_home

PHASES = {
    "healthy": "",
    "no space": f"write {errno.ENOSPC}",
    "sync fails": f"sync {errno.EIO}",
    "sync stalls": "sync stall 0.5",
    "no new segment": f"sync {errno.EIO}\ncreate {errno.ENOSPC}",
    "healthy again": "",
}
PHASE_S = 5.0
PER_SECOND = 60.0  # requests to decide, and half as many outcomes
CLIENTS = 6
ANSWERED = 0.999


@dataclass
class Tally:
    """Answers by phase and status; ids that were acknowledged."""

    recommended: Counter[tuple[str, int]] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, int]] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    decisions: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)

    @property
    def share_answered(self) -> float:
        good = sum(count for (_, status), count in self.recommended.items() if status == http.client.OK)
        return good / (sum(self.recommended.values()) or 1)

    def false_acknowledgements(self, home: Path) -> int:
        """Acknowledged, and in no segment."""
        decisions = {record["decision_id"] for record in lines_of(home, "decisions")}
        outcomes = {record["outcome_id"] for record in lines_of(home, "outcomes")}
        return sum(one not in decisions for one in self.decisions) + sum(one not in outcomes for one in self.acknowledged)


class _Load:
    """Clients that ask and tell at a steady pace."""

    def __init__(self, port: int) -> None:
        self.phase, self.tally = "", Tally()
        self._port, self._stop, self._numbers = port, threading.Event(), itertools.count()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def _work(self) -> None:
        due = time.perf_counter()
        while not self._stop.is_set():
            due = max(due + CLIENTS / PER_SECOND, time.perf_counter() - 1.0)
            time.sleep(max(0.0, due - time.perf_counter()))
            self._ask(next(self._numbers))

    def _ask(self, number: int) -> None:
        phase = self.phase
        status, answer = self._post("/recommend", {"customer_id": f"c{number % 500}", "placement": "hero"})
        self.tally.recommended[phase, status] += 1
        if status != http.client.OK:
            return
        if "not_logged" in answer["degraded"]:
            self.tally.degraded[phase] += 1
        else:
            self.tally.decisions.append(answer["decision_id"])
        if number % 2:
            shown = {"decision_id": answer["decision_id"], "placement": "hero", "action_id": "welcome", "type": "impression"}
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            status, _ = self._post("/outcomes", {"outcomes": [{"outcome_id": f"o{number}", "at": at, **shown}]})
            self.tally.outcomes[phase, status] += 1
            if status == http.client.ACCEPTED:
                self.tally.acknowledged.append(f"o{number}")

    def _post(self, path: str, body: dict[str, object]) -> tuple[int, dict[str, list[str] | str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10.0)
        try:
            with contextlib.closing(connection):
                connection.request("POST", path, json.dumps(body))
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            return 0, {}


@contextlib.contextmanager
def faulty(home: Path, context: Context, url: str, control: Path, *flags: str) -> Iterator[int]:
    """A real server whose disk does what the file says; its port."""
    port = free_port()
    control.write_text("")
    command = [sys.executable, "-m", "tests.acceptance.faulty_server", str(home), str(port), url, str(control), *flags]
    with (context.scratch / f"faulty-{port}.log").open("wb") as output:
        process = subprocess.Popen(command, cwd=context.root, env=clean_environment(), stdout=output, stderr=output)
    try:
        wait_until_ready(port)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=15)


def through_phases(home: Path, context: Context, *flags: str, phase_s: float = PHASE_S) -> Tally:
    """What clients were told while the disk went through everything that can happen to it."""
    live_home(home)
    control = home / "control"
    with resolve_redis(None, home) as url, faulty(home, context, url, control, *flags) as port:
        load = _Load(port)
        load.phase = next(iter(PHASES))
        load.start()
        for phase, does in PHASES.items():
            control.with_suffix(".next").write_text(does)
            control.with_suffix(".next").replace(control)
            load.phase = phase
            time.sleep(phase_s)
        load.stop()
    return load.tally


def measure(context: Context) -> Measured:
    home = context.scratch / "faulty"
    tally = through_phases(home, context)
    lies = tally.false_acknowledgements(home)
    lenient = context.scratch / "lenient"
    control = through_phases(lenient, context, "--lenient", phase_s=1.0).false_acknowledgements(lenient)
    asked, refused = sum(tally.recommended.values()), sum(c for (_, s), c in tally.outcomes.items() if s == 503)
    again = tally.outcomes["healthy again", http.client.ACCEPTED]
    figure = (
        f"{asked:,} requests through {', '.join(PHASES)}: {tally.share_answered:.2%} answered 200, "
        f"{sum(tally.degraded.values())} of them `not_logged`; {len(tally.decisions):,} decisions and {len(tally.acknowledged):,}"
        f" outcomes acknowledged, {lies} of them not on disk; {refused} outcomes refused with 503, {again} taken once the disk "
        f"was well; with a failed sync passed over: {control} false acknowledgements"
    )
    tried = tally.degraded["sync fails"] > 0 and tally.degraded["sync stalls"] > 0 and refused > 0 and again > 0
    return Measured(figure, tally.share_answered >= ANSWERED and not lies and tried and control > 0)


ROW = Row(
    4,
    "disk: full, failing, a sync that stalls 500 ms",
    f"no false acknowledgement; >= {ANSWERED:.1%} of /recommend answered 200",
    measure,
)
