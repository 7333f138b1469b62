"""Row 6: Redis is emptied while customers are being served, and put back from what was written down."""

import asyncio
import datetime as dt
import hashlib
import json
import threading
import time

import httpx
import redis

from features.contract import Contract
from features.redis_server import resolve_redis
from service.catalog.policies import Purpose
from service.ports import Terms
from service.stores.customer_reader import RedisCustomerReader
from service.stores.redis_link import RedisLink
from tests.acceptance.processes import clean_environment, nextbest, run_or_not
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.rows.live_world import live_home, shop_events
from training.event_commands import live_differences

EVENTS, CUSTOMERS = 100_000, 3000
DECIDED = 500  # customers who were shown something before
LIMIT_S = 30.0
PER_SECOND = 50.0


def measure(context: Context) -> Measured:
    home = context.scratch / "rebuilt"
    contract, now = live_home(home), time.time()
    history = home / "history.jsonl"
    with history.open("w") as file:
        for event in shop_events(EVENTS, CUSTOMERS, now - 20 * 86_400, 20.0, context.seed):
            file.write(json.dumps(event) + "\n")
    with resolve_redis(None, home) as url:
        run_or_not(nextbest("--home", str(home), "ingest", str(history)), context.root, clean_environment(), limit=120)
        with serving(home, context) as (_, address, _ready):
            _decide(address)
            moment = time.time()
            before = asyncio.run(state_hash(url, contract, moment))
            stop, failed, doubted = threading.Event(), list[str](), list[float]()
            load = threading.Thread(target=_load, args=(address, stop, failed, doubted))
            load.start()
            time.sleep(1.0)
            with redis.Redis.from_url(url) as client:
                client.flushall()
            emptied = time.perf_counter()
            done = run_or_not(nextbest("--home", str(home), "rebuild"), context.root, clean_environment(), limit=120)
            rebuilt = time.perf_counter()
            time.sleep(1.0)
            stop.set()
            load.join()
            after = asyncio.run(state_hash(url, contract, moment))
        differences, compared = live_differences(home, url, CUSTOMERS)
    late = [at for at in doubted if at > rebuilt + 0.5]
    missed = sum(emptied < at for at in doubted)
    figure = (
        f"{EVENTS:,} events back in {done.seconds:.1f} s; state hash {before[:12]} before, {after[:12]} after; {len(failed)} "
        f"requests failed; {missed} answers said that live features were missing, {len(late)} of them afterwards; {compared:,} "
        f"customers online against offline: {len(differences)} differ"
    )
    holds = before == after and done.seconds <= LIMIT_S and not failed and not late and not differences and bool(doubted)
    return Measured(figure, holds)


def _decide(url: str) -> None:
    """Some customers look around, are shown something and consent to something, so that there is something to lose."""
    with httpx.Client(timeout=5.0) as web:
        for number in range(DECIDED):
            event = {"event_id": f"look{number}", "customer_id": f"c{number}", "type": "product_viewed", "channel": "web"}
            asked = {"customer_id": f"c{number}", "placement": "hero"}
            answer = web.post(f"{url}/events", json={"events": [event], "decide": asked}).raise_for_status().json()["decision"]
            shown = {"decision_id": answer["decision_id"], "placement": "hero", "action_id": "thanks", "type": "impression"}
            outcome = {"outcome_id": f"i{number}", "at": dt.datetime.now(dt.UTC).isoformat(), **shown}
            web.post(f"{url}/outcomes", json={"outcomes": [outcome]}).raise_for_status()
            consent = {"customer_id": f"c{number}", "purpose": "marketing", "given": number % 3 > 0}
            web.post(f"{url}/consents", json={"consents": [consent]}).raise_for_status()


async def state_hash(url: str, contract: Contract, moment: float) -> str:
    """One figure for all that Redis says of the customers of the history, at one moment."""
    link, digest = RedisLink(url, timeout_ms=30_000), hashlib.sha256()
    reader = RedisCustomerReader(link, contract, lambda: False)
    terms = Terms(purposes=(Purpose("marketing"),))
    states = (await reader.read([f"c{n}" for n in range(CUSTOMERS)], moment, terms)).states
    for state in states:
        values = {name: f"{value:.9g}" if isinstance(value, float) else value for name, value in sorted(state.values.items())}
        contacts = state.contacts or b""
        entries = sorted(contacts[start : start + 16] for start in range(0, len(contacts), 16))
        digest.update(json.dumps(values).encode() + b"".join(entries))
    await reader.close()
    return digest.hexdigest()


def _load(url: str, stop: threading.Event, failed: list[str], doubted: list[float]) -> None:
    """Other customers, who go on doing things and asking."""
    number = 0
    with httpx.Client(timeout=5.0) as web:
        while not stop.is_set():
            event = {"event_id": f"load{number}", "customer_id": f"x{number % 200}", "type": "product_viewed", "channel": "app"}
            asked = {"customer_id": f"x{number % 200}", "placement": "hero"}
            answer = web.post(f"{url}/events", json={"events": [event], "decide": asked})
            if answer.status_code != httpx.codes.ACCEPTED:
                failed.append(answer.text[:100])
            elif any(reason.startswith("stale:") for reason in answer.json()["decision"]["degraded"]):
                doubted.append(time.perf_counter())
            number += 1
            time.sleep(1.0 / PER_SECOND)


ROW = Row(
    6,
    f"FLUSHALL under load, then `nextbest rebuild`: {EVENTS:,} events",
    f"the same state hash; within {LIMIT_S:.0f} s; no request failed",
    measure,
)
