"""Row 3: what Redis says after 100,000 events in disorder, against DuckDB over what was written down."""

import asyncio
import datetime as dt
import random
import time

import msgspec

from features.event_types import home_event_types
from features.redis_server import resolve_redis
from service.api.events import record_of
from service.api.wire import EventSent
from service.events import EventIntake
from service.metrics import Metrics
from service.stores.live_features import RedisLiveFeatures
from service.stores.redis_link import RedisLink
from service.stores.segment_log import SegmentLog
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.live_world import live_home, shop_events
from training.event_commands import live_differences
from training.event_history import read_events
from training.live_log import segments

EVENTS, CUSTOMERS = 100_000, 2000
TWICE, LATE = 0.05, 0.05
A_CALL = 200
START_DAYS = 40.0


def measure(context: Context) -> Measured:
    home = context.scratch / "online"
    contract = live_home(home)
    now = time.time()
    chance = random.Random(context.seed)  # a repeatable disorder, no secret
    events = list(shop_events(EVENTS, CUSTOMERS, now - START_DAYS * 86_400, START_DAYS, context.seed))
    late = set(chance.sample(range(EVENTS), int(LATE * EVENTS)))
    sent = [e for n, e in enumerate(events) if n not in late] + chance.sample(events, int(TWICE * EVENTS))
    chance.shuffle(sent)
    sent += [events[n] for n in sorted(late)]  # after everything else
    with resolve_redis(None, home) as url:
        counts = asyncio.run(_send(home, url, contract, sent))
        differences, customers = live_differences(home, url, CUSTOMERS)
    kept = sum(1 for _ in read_events(home))
    values = customers * len(contract.live)
    figure = (
        f"{len(sent):,} sent ({sum(counts):,} new, {len(sent) - sum(counts):,} twice, {len(late):,} last of all), {kept:,} kept; "
        f"{values:,} values of {customers:,} customers: {len(differences)} differ{': ' + differences[0] if differences else ''}"
    )
    return Measured(figure, not differences and kept == EVENTS and sum(counts) == EVENTS and bool(segments(home, "events")))


async def _send(home, url, contract, sent) -> list[int]:
    """Through the part that takes events in the service: on disk, then into Redis."""
    link, log = RedisLink(url, timeout_ms=30_000), SegmentLog(home / "log")
    intake = EventIntake(log, RedisLiveFeatures(link, contract), home_event_types(home, contract), Metrics(), time.time)
    counts = []
    for start in range(0, len(sent), A_CALL):
        call = [record_of(_as_sent(event), intake, time.time()) for event in sent[start : start + A_CALL]]
        taken = await intake.write_down(call, [])
        await intake.follow(taken.new)
        counts.append(len(taken.new))
    await log.close()
    await link.close()
    return counts


def _as_sent(event: dict[str, object]) -> EventSent:
    moment = dt.datetime.fromtimestamp(float(event["at"]), dt.UTC)
    return msgspec.convert({**event, "at": moment}, EventSent)


ROW = Row(
    3,
    f"online against offline: {EVENTS:,} events in random order, 5 % twice, 5 % late",
    "0 differences: counters exact, decayed ones within 1e-6",
    measure,
)
