"""Row 1: writers and servers are killed without warning, and clients send again what nobody acknowledged."""

import contextlib
import http.client
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import redis

from features.redis_server import resolve_redis
from service.decision.contacts import SIZE, type_code
from tests.acceptance.processes import clean_environment, nextbest
from tests.acceptance.row import Context, Measured, NotRun, Row
from tests.acceptance.rows.footprint import free_port
from tests.acceptance.rows.live_world import live_home

WRITERS, SERVERS = 100, 15
PER_SECOND = 500.0
AGAIN = 20  # acknowledged ones that are sent again, as a client does that never got the answer
RECOVERY_S = 2.0
CLIENTS = 6
AGAIN_S = 0.1  # between two tries
ALIVE_S = (0.3, 1.0)


class Killed(NamedTuple):
    """What became of numbered outcomes: those acknowledged, and how often each is in the log."""

    acknowledged: set[int]
    written: Counter[str]
    slowest: float

    @property
    def lost(self) -> int:
        return sum(not self.written[f"o{number}"] for number in self.acknowledged)

    @property
    def doubled(self) -> int:
        return sum(count > 1 for count in self.written.values())


def lines_of(home: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Records of a log, read by nothing of ours: checksum, length and JSON of each line that has an end."""
    for path in sorted((home / "log" / kind).glob("*.log")):
        for line in path.read_bytes().split(b"\n")[:-1]:
            checksum, length, record = line.split(b" ", 2)
            if int(checksum, 16) == google_crc32c.value(record) and int(length) == len(record):
                yield json.loads(record)


def kill_writers(home: Path, root: Path, kills: int, seed: int, *flags: str) -> Killed:
    """Each writer goes on where the one before stopped, and begins with what was not acknowledged."""
    chance, acknowledged, slowest, number = random.Random(seed), set[int](), 0.0, 0
    for _ in range(kills):
        command = [sys.executable, "-m", "tests.acceptance.writer", str(home), str(number), str(PER_SECOND), *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env=clean_environment(), text=True) as process:
            if process.stdout is None:
                raise NotRun("the writer has no output")
            slowest = max(slowest, float(process.stdout.readline().split()[1]))
            lines = [process.stdout.readline() for _ in range(chance.randint(20, 150))]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        acknowledged |= {int(line) for line in lines if line.endswith("\n")}
        first_missing = next(n for n in range(len(acknowledged) + 1) if n not in acknowledged)
        number = max(0, first_missing - AGAIN)
    return Killed(acknowledged, Counter(record["outcome_id"] for record in lines_of(home, "outcomes")), slowest)


@dataclass
class Told:
    """What clients were told: ids of decisions, outcomes and events that were acknowledged, and by which customer."""

    decisions: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    sent_again: int = 0


class _Client(threading.Thread):
    """Does something, asks, and tells what came of it, over and over; sends the same again until it is answered."""

    def __init__(self, name: str, port: int, stop: threading.Event, told: Told) -> None:
        super().__init__(daemon=True)
        self._id, self._port, self._stop_, self._told = name, port, stop, told

    def run(self) -> None:
        number = 0
        while not self._stop_.is_set():
            self._round(f"{self._id}-{number}", f"{self._id}-{number % 40}")
            number += 1

    def _round(self, name: str, customer: str) -> None:
        event = {"event_id": name, "customer_id": customer, "type": "product_viewed", "channel": "web"}
        if self._send("/events", {"events": [event]}) is None:
            return
        self._told.events.append(name)
        answer = self._send("/recommend", {"customer_id": customer, "placement": "hero", "deadline_ms": 1000})
        if answer is None:
            return
        if "not_logged" not in answer["degraded"]:
            self._told.decisions.append(answer["decision_id"])
        shown = {"decision_id": answer["decision_id"], "placement": "hero", "action_id": "thanks", "type": "click"}
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._send("/outcomes", {"outcomes": [{"outcome_id": name, "at": at, **shown}]}) is not None:
            self._told.outcomes.append(name)

    def _send(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer, however often it takes; None where the row is over."""
        tries = 0
        while not self._stop_.is_set() or not tries:
            self._told.sent_again += tries > 0
            tries += 1
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5.0)
                with contextlib.closing(connection):
                    connection.request("POST", path, json.dumps(body))
                    answer = connection.getresponse()
                    found: dict[str, Any] = json.loads(answer.read())
                    if answer.status < http.client.MULTIPLE_CHOICES:
                        return found
            time.sleep(AGAIN_S)
        return None


def kill_servers(home: Path, context: Context, kills: int, url: str) -> tuple[Told, list[float]]:
    """What clients were told meanwhile, and how long each server took until it was ready."""
    chance, told, stop, port, recoveries = random.Random(context.seed), Told(), threading.Event(), free_port(), list[float]()
    clients = [_Client(f"c{number}", port, stop, told) for number in range(CLIENTS)]
    command = nextbest("--home", str(home), "--redis-url", url, "serve", "--port", str(port))
    for number in range(kills + 1):
        started = time.perf_counter()
        with (context.scratch / "killed.log").open("ab") as output:
            process = subprocess.Popen(command, cwd=context.root, env=clean_environment(), stdout=output, stderr=output)
        wait_until_ready(port)
        recoveries.append(time.perf_counter() - started)
        if not number:
            for client in clients:
                client.start()
        time.sleep(chance.uniform(*ALIVE_S))
        if number < kills:
            process.kill()
            process.wait()
    stop.set()
    for client in clients:
        client.join(timeout=10)
    process.terminate()
    process.wait(timeout=15)
    return told, recoveries


def wait_until_ready(port: int, limit: float = 30.0) -> None:
    give_up = time.monotonic() + limit
    while time.monotonic() < give_up:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/ready")
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(0.01)
    raise NotRun(f"the server was not ready within {limit:.0f} s")


class Found(NamedTuple):
    """In the log and in Redis: what is missing of what was acknowledged, and what is there twice."""

    lost: int
    twice_written: int
    twice_applied: int
    not_applied: int


def found_after(home: Path, told: Told, url: str) -> Found:
    """Lines of the log, and clicks among the contacts in Redis."""
    decisions = Counter(record["decision_id"] for record in lines_of(home, "decisions"))
    outcomes = Counter(record["outcome_id"] for record in lines_of(home, "outcomes"))
    events = Counter(record["event_id"] for record in lines_of(home, "events"))
    lost = sum(not decisions[one] for one in told.decisions) + sum(not outcomes[one] for one in told.outcomes)
    lost += sum(not events[one] for one in told.events)
    twice = sum(count > 1 for counts in (decisions, outcomes, events) for count in counts.values())
    clicks: list[bytes] = []
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter("nb:contacts:*"):
            entries = client.get(key) or b""
            clicks += [entries[n : n + SIZE] for n in range(0, len(entries), SIZE)]
    counted = Counter(entry for entry in clicks if int.from_bytes(entry[-2:], "little") == type_code("click"))
    return Found(lost, twice, sum(count > 1 for count in counted.values()), len(outcomes) - len(counted))


def measure(context: Context) -> Measured:
    writers = kill_writers(context.scratch / "writers", context.root, WRITERS, context.seed)
    reckless = kill_writers(context.scratch / "reckless", context.root, 5, context.seed, "--reckless")
    home = context.scratch / "servers"
    live_home(home)
    with resolve_redis(None, home) as url:
        told, recoveries = kill_servers(home, context, SERVERS, url)
        found = found_after(home, told, url)
    figure = (
        f"{WRITERS} writers killed at {PER_SECOND:.0f}/s: {len(writers.acknowledged):,} acknowledged, {writers.lost} lost, "
        f"{writers.doubled} twice, log open after {writers.slowest:.2f} s; {SERVERS} servers killed: {len(told.decisions):,} "
        f"decisions, {len(told.outcomes):,} outcomes, {len(told.events):,} events acknowledged ({told.sent_again} sent again): "
        f"{found.lost} lost, {found.twice_written} twice in the log, {found.twice_applied} twice in Redis, {found.not_applied} "
        f"wait there for a rebuild; ready again after at most {max(recoveries):.2f} s; acknowledged 20 ms before the sync: "
        f"{reckless.lost} lost"
    )
    holds = not (writers.lost or writers.doubled or found.lost or found.twice_written or found.twice_applied)
    busy = len(writers.acknowledged) >= 20 * WRITERS and len(told.outcomes) >= 20 * SERVERS
    return Measured(figure, holds and busy and reckless.lost > 0 and max(*recoveries, writers.slowest) <= RECOVERY_S)


ROW = Row(
    1,
    f"crash: {WRITERS} SIGKILLs of a writer, {SERVERS} of a server under load",
    f"0 lost, 0 applied twice; recovery <= {RECOVERY_S:.0f} s",
    measure,
)
