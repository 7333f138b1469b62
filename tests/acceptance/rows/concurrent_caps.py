"""Row 3: a cap holds however many ask at once, on whichever worker, and a worker that is killed takes nothing with it."""

import asyncio
import datetime as dt
import os
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from features.redis_server import resolve_redis
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.rows.frequencies import logged
from tests.acceptance.whole import command

EACH = 100  # requests at once to a server
AT_ONCE = 2 * EACH
CAP = 3
ROUNDS = 5  # customers who are asked for by 200 at once
RESERVED_S = 3.0
KILLED_AFTER_S = 0.05
DOCUMENT = """catalog: 1
issues: [{id: all}]
groups: [{id: all, issue: all}]
actions:
  - {id: card, group: all, kind: offer, value: 1, treatments: [{id: card, placements: [hero]}]}
  - {id: loan, group: all, kind: offer, value: 1, treatments: [{id: loan, placements: [free]}]}
placements:
  - {id: hero, channel: web, fallback: {action: welcome, kind: content}}
  - {id: free, channel: web, fallback: {action: welcome, kind: content}}
contact:
  reservation: 3 s
  caps: [{name: three, at_most: 3, per: action, window: 1d, where: {actions: card}}]
"""


class Burst(NamedTuple):
    """What 200 requests at once got: decision ids of offers, and how many of them were not answered."""

    offers: list[str]
    unanswered: int


def measure(context: Context) -> Measured:
    home = context.scratch / "caps"
    home.mkdir(exist_ok=True)
    (home / "catalog.yaml").write_text(DOCUMENT)
    command(home, "catalog", "publish", str(home / "catalog.yaml"))
    with resolve_redis(None, home), serving(home, context) as first, serving(home, context) as second:
        urls = (first[1], second[1])
        rounds = [asyncio.run(burst(urls, f"round{number}")) for number in range(ROUNDS)]
        control = asyncio.run(burst(urls, "control", "free"))
        impressions = asyncio.run(_confirm(urls[1], rounds[0].offers))
        killed = asyncio.run(_killed(urls, "killed", first[0].pid))
        told = len(killed.offers)
        written = _written(home, "killed")
        time.sleep(RESERVED_S + 0.5)
        again = asyncio.run(burst(urls[1:], "killed"))
        confirmed = asyncio.run(burst(urls[1:], "round0"))
    most = max(len(r.offers) for r in rounds)
    figure = (
        f"{ROUNDS} x {AT_ONCE} at once on 2 processes: at most {most} offers (without a cap {len(control.offers)}); one killed "
        f"under way ({killed.unanswered} unanswered): {told} told, {written} logged; after the reservation {len(again.offers)} "
        f"again; after {impressions} impressions {len(confirmed.offers)}"
    )
    holds = (
        most == CAP
        and min(len(r.offers) for r in rounds) == CAP
        and len(control.offers) == AT_ONCE
        and killed.unanswered > 0
        and max(told, written) <= CAP
        and len(again.offers) == CAP
        and impressions == CAP
        and not confirmed.offers
        and not any(r.unanswered for r in (*rounds, control, again, confirmed))
    )
    return Measured(figure, holds)


async def burst(urls: tuple[str, ...], customer: str, placement: str = "hero") -> Burst:
    """Requests for one customer at the same moment, 100 to each server."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=10.0, limits=limits) as client:
        answers = await asyncio.gather(*(_ask(client, urls[n % len(urls)], customer, placement) for n in range(EACH * len(urls))))
    offers = [a["decision_id"] for a in answers if a is not None and not a["placements"][0]["fallback"]]
    return Burst(offers, sum(a is None for a in answers))


async def _ask(client: httpx.AsyncClient, url: str, customer: str, placement: str) -> dict[str, Any] | None:
    body = {"customer_id": customer, "placement": placement, "deadline_ms": 9000}
    try:
        answer = await client.post(f"{url}/recommend", json=body)
    except httpx.TransportError:
        return None
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


async def _killed(urls: tuple[str, ...], customer: str, pid: int) -> Burst:
    """The same, while one of the two servers is killed."""
    asked = asyncio.create_task(burst(urls, customer))
    await asyncio.sleep(KILLED_AFTER_S)
    os.kill(pid, signal.SIGKILL)
    return await asked


async def _confirm(url: str, decisions: list[str]) -> int:
    """Report an impression of each; how many were accepted."""
    shown = {"placement": "hero", "action_id": "card", "type": "impression", "at": dt.datetime.now(dt.UTC).isoformat()}
    outcomes = [{"outcome_id": f"i-{d}", "decision_id": d, **shown} for d in decisions]
    async with httpx.AsyncClient(timeout=10.0) as client:
        answer = await client.post(f"{url}/outcomes", json={"outcomes": outcomes})
    accepted: int = answer.raise_for_status().json()["accepted"]
    return accepted


def _written(home: Path, customer: str) -> int:
    """Offers to a customer that the log knows of."""
    return sum(r.customer_id == customer and not r.placements[0].fallback for r in logged(home))


ROW = Row(
    3,
    f"{AT_ONCE} concurrent requests over 2 worker processes against a cap of {CAP}; one killed",
    f"{CAP} offers, never {CAP + 1}; what a killed worker reserved is free again",
    measure,
)
