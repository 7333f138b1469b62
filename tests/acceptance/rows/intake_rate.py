"""Row 5: how many events go in, over HTTP and from a file; and how much is kept of a customer."""

import datetime as dt
import json
import time
from pathlib import Path

import httpx

from features.live import Event as LiveEvent
from features.live import LiveFeatures, encode_state
from features.redis_server import resolve_redis
from tests.acceptance.processes import clean_environment, nextbest, run_or_not
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.rows.live_world import live_home, shop_events

CALLS, A_CALL = 150, 100
FROM_FILE = 200_000
HTTP_BAR, FILE_BAR = 2000, 20_000  # events/s
MOST_KB = 16.0
DAYS = 20.0


def measure(context: Context) -> Measured:
    home = context.scratch / "rate"
    contract = live_home(home, with_journey=False)
    with resolve_redis(None, home):
        with serving(home, context) as (_, url, _ready):
            over_http = _over_http(url, context.seed)
        from_file, rows = _from_file(home, context)
    other = context.scratch / "rate-journey"
    live_home(other)
    with resolve_redis(None, other):
        with_journey, _ = _from_file(other, context)
    live = LiveFeatures(contract)
    properties = [{"category": f"c{n}", "channel": f"x{n}"} for n in range(20_000)]
    flood = (LiveEvent(f"e{n}", "product_viewed", 1e9 + 600.0 * n, some) for n, some in enumerate(properties))
    kilobytes = len(encode_state(live.apply({}, flood))) / 1e3
    figure = (
        f"{over_http:,.0f} events/s over HTTP to one worker in calls of {A_CALL}; {from_file:,.0f}/s from a file of {rows:,}, "
        f"{with_journey:,.0f}/s with three features of a journey beside the 12; "
        f"{kilobytes:.1f} kB kept of a customer with 20,000 events"
    )
    return Measured(figure, over_http >= HTTP_BAR and from_file >= FILE_BAR and kilobytes <= MOST_KB)


def _over_http(url: str, seed: int) -> float:
    events = list(shop_events(CALLS * A_CALL, 3000, time.time() - DAYS * 86_400, DAYS, seed))
    bodies = [
        json.dumps({"events": [{**e, "at": _text(e["at"])} for e in events[n * A_CALL : (n + 1) * A_CALL]]}).encode()
        for n in range(CALLS)
    ]
    with httpx.Client(timeout=10.0) as web:
        web.post(f"{url}/events", content=bodies[0]).raise_for_status()
        started = time.perf_counter()
        accepted = sum(web.post(f"{url}/events", content=body).raise_for_status().json()["accepted"] for body in bodies[1:])
        return accepted / (time.perf_counter() - started)


def _from_file(home: Path, context: Context) -> tuple[float, int]:
    """Events a second of `nextbest ingest`, start of the command included."""
    path = home / "history.jsonl"
    with path.open("w") as file:
        for event in shop_events(FROM_FILE, 5000, time.time() - DAYS * 86_400, DAYS, context.seed + 1):
            file.write(json.dumps(event) + "\n")
    done = run_or_not(nextbest("--home", str(home), "ingest", str(path)), context.root, clean_environment(), limit=300)
    return FROM_FILE / done.seconds, FROM_FILE


def _text(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat()


ROW = Row(
    5,
    "ingest: over HTTP in calls of 100, and from a file",
    f"{HTTP_BAR:,}/s a core; {FILE_BAR:,}/s; at most {MOST_KB:.0f} kB a customer",
    measure,
)
