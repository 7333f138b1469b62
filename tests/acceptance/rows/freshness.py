"""Row 4: from the acknowledgement of an event to a decision, on another worker, that knows of it."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import httpx
import numpy as np

from features.redis_server import resolve_redis
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.rows.live_world import live_home

PER_SECOND = 200
SECONDS = 10
PROBES = 300
LIMIT_MS = 50.0
GIVE_UP_S = 2.0


def measure(context: Context) -> Measured:
    home = context.scratch / "fresh"
    live_home(home)
    with resolve_redis(None, home), serving(home, context) as first, serving(home, context) as second:
        stop, sent = Event(), []
        load = Thread(target=_load, args=(first[1], stop, sent))
        load.start()
        try:
            delays = [_delay(first[1], second[1], f"probe{n}") for n in range(PROBES)]
        finally:
            stop.set()
            load.join()
    unseen = sum(delay is None for delay in delays)
    known = [delay for delay in delays if delay is not None]
    p50, p99 = np.percentile(known, [50, 99]).tolist()
    rate = len(sent) / (sent[-1] - sent[0])
    figure = f"{PROBES} probes beside {rate:.0f} events/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms to the answer; {unseen} never seen"
    return Measured(figure, not unseen and p99 <= LIMIT_MS and rate >= 0.9 * PER_SECOND)


def _delay(taking: str, deciding: str, customer: str) -> float | None:
    """Milliseconds from the 202 of one worker to an answer of the other that shows what needs the event."""
    with httpx.Client(timeout=5.0) as web:
        event = {"event_id": f"e-{customer}", "customer_id": customer, "type": "product_viewed", "channel": "web"}
        web.post(f"{taking}/events", json={"events": [event]}).raise_for_status()
        acknowledged = time.perf_counter()
        while time.perf_counter() - acknowledged < GIVE_UP_S:
            answer = web.post(f"{deciding}/recommend", json={"customer_id": customer, "placement": "hero"}).json()
            if not answer["placements"][0]["fallback"]:
                return (time.perf_counter() - acknowledged) * 1e3
    return None


def _load(url: str, stop: Event, sent: list[float]) -> None:
    """So many events a second, whoever waits for them."""

    def one(number: int) -> None:
        event = {"event_id": f"l{number}", "customer_id": f"c{number % 500}", "type": "product_viewed", "channel": "app"}
        web.post(f"{url}/events", json={"events": [event]}).raise_for_status()
        sent.append(time.perf_counter())

    with httpx.Client(timeout=5.0) as web, ThreadPoolExecutor(8) as pool:
        started, number = time.perf_counter(), 0
        while not stop.is_set():
            pool.submit(one, number)
            number += 1
            time.sleep(max(0.0, started + number / PER_SECOND - time.perf_counter()))


ROW = Row(4, "an event on one worker, a decision on another", f"p99 <= {LIMIT_MS:.0f} ms at {PER_SECOND} events/s", measure)
