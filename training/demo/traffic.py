"""Customers at a running service: they ask what to show, look at it, and sometimes respond."""

import datetime as dt
import http.client
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from training.demo.client import Client

WORKERS = 8
TAKEN = 202  # HTTP's word for it
OUTCOMES_AT_ONCE = 50  # a back end gathers them; one by one they would double the number of calls


class Reaction(NamedTuple):
    """What a customer did with an item: an outcome type and a value."""

    type: str
    value: float = 0.0


class Visit(NamedTuple):
    """One customer who comes by: the request, and how they react to the action they are shown."""

    request: dict[str, object]
    react: Callable[[str], tuple[Reaction, ...]]


class Tally:
    """What the customers saw. Shared by the workers."""

    def __init__(self) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self.degraded: Counter[str] = Counter()
        self.outcomes = 0
        self.bundles: Counter[str] = Counter()
        self.first_seen: dict[str, float] = {}  # bundle -> time.perf_counter() of the first answer that carried it
        self.milliseconds: list[float] = []
        self._lock = threading.Lock()

    def answer(self, body: dict[str, Any], took_ms: float) -> None:
        bundle = str(body["versions"]["bundle"])
        with self._lock:
            self.answered += 1
            self.degraded.update(body["degraded"])
            self.bundles[bundle] += 1
            self.first_seen.setdefault(bundle, time.perf_counter())
            self.milliseconds.append(took_ms)

    def acknowledge(self, outcomes: int) -> None:
        with self._lock:
            self.outcomes += outcomes

    def fail(self, why: str) -> None:
        with self._lock:
            self.failures.append(why)

    def percentile(self, share: float) -> float:
        """Milliseconds that this share of the requests took at most."""
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def play(url: str, visits: Iterable[Visit], tally: Tally, advance: Callable[[], None] = lambda: None) -> None:
    """Every visit, by several customers at a time, as fast as they are answered. `advance` is called after each."""
    waiting: queue.SimpleQueue[Visit | None] = queue.SimpleQueue()
    for visit in (*visits, *[None] * WORKERS):
        waiting.put(visit)

    def work() -> None:
        with Client(url) as client:
            outcomes: list[dict[str, object]] = []
            for visit in iter(waiting.get, None):
                outcomes += make_visit(client, visit, tally)
                if len(outcomes) >= OUTCOMES_AT_ONCE:
                    report(client, outcomes, tally)
                    outcomes = []
                advance()
            report(client, outcomes, tally)

    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(work) for _ in range(WORKERS)]:
            done.result()


@contextmanager
def steady(url: str, visits: Iterator[Visit], tally: Tally, per_second: float) -> Iterator[None]:
    """Visits at an even rate in the background while the block runs."""
    stop = threading.Event()
    due = _Schedule(per_second)

    def work() -> None:
        with Client(url) as client:
            while not stop.wait(due.wait_for_turn()):
                report(client, make_visit(client, due.take(visits), tally), tally)

    with ThreadPoolExecutor(WORKERS) as pool:
        working = [pool.submit(work) for _ in range(WORKERS)]
        try:
            yield
        finally:
            stop.set()
        for done in working:
            done.result()


class _Schedule:
    """Whose turn it is: one visit every 1/rate seconds, shared by the workers."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1.0 / per_second
        self._next = time.perf_counter()
        self._lock = threading.Lock()

    def wait_for_turn(self) -> float:
        with self._lock:
            turn, self._next = self._next, self._next + self._interval
        return max(0.0, turn - time.perf_counter())

    def take(self, visits: Iterator[Visit]) -> Visit:
        with self._lock:
            return next(visits)


def make_visit(client: Client, visit: Visit, tally: Tally) -> list[dict[str, object]]:
    """Ask, look, respond: the outcomes to report. A failure is told, not raised."""
    started = time.perf_counter()
    try:
        status, body = client.post("/recommend", visit.request)
    except (OSError, http.client.HTTPException) as error:
        tally.fail(f"/recommend: {type(error).__name__}: {error}")
        return []
    if status != 200:  # noqa: PLR2004  # HTTP's word for yes
        tally.fail(f"/recommend: {status} {body}")
        return []
    tally.answer(body, (time.perf_counter() - started) * 1000)
    return _outcomes(body, visit)


def report(client: Client, outcomes: list[dict[str, object]], tally: Tally) -> None:
    """Tell the service what came of what it showed. A failure is told, not raised."""
    if not outcomes:
        return
    try:
        status, told = client.post("/outcomes", {"outcomes": outcomes})
    except (OSError, http.client.HTTPException) as error:
        tally.fail(f"/outcomes: {type(error).__name__}: {error}")
        return
    if status != TAKEN or told["accepted"] != len(outcomes):
        tally.fail(f"/outcomes: {status} {told}")
    if status == TAKEN:
        tally.acknowledge(told["accepted"])


def _outcomes(body: dict[str, Any], visit: Visit) -> list[dict[str, object]]:
    at = dt.datetime.now(dt.UTC).isoformat()
    placement, decision = body["placements"][0], body["decision_id"]
    action = placement["items"][0]["action_id"]
    shown = {"decision_id": decision, "placement": placement["id"], "action_id": action, "at": at}
    return [
        shown | {"outcome_id": f"{decision}-{reaction.type}", "type": reaction.type, "value": reaction.value}
        for reaction in visit.react(action)
    ]
