"""Row 9: clients send everything fifty times at once, and the server is killed in the middle of it."""

import asyncio
import contextlib
import json
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import redis

from features.homes import home_contract
from features.redis_server import resolve_redis
from service.catalog.hashed import hash32
from service.decision.contacts import CANCELLED, ENTRY, SERVED, type_code
from service.ids import customer_key
from service.stores.contact_history import contacts_key
from service.stores.customer_reader import RedisCustomerReader
from service.stores.redis_link import RedisLink
from tests.acceptance.open_loop import Call, OpenLoop, call
from tests.acceptance.processes import clean_environment, nextbest
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.crashes import lines_of, wait_until_ready
from tests.acceptance.rows.footprint import free_port
from tests.acceptance.rows.live_world import CATALOG, live_home
from tests.acceptance.whole import command

IDS, TIMES = 200, 50
LISTENERS = 64  # connections that send at the same time
# with a cap, each decision must hold before it is told
CAP = "contact: {caps: [{name: daily_cap, at_most: 384, per: action, window: 1d}]}\n"
AGAIN_S = 0.02
LIMIT_S = 60.0
DECISION, OUTCOME, EVENT = "/recommend", "/outcomes", "/events"
REUSED = 422


class Traffic(NamedTuple):
    """One request for each id on each route; all duplicates of it are the same bytes. `others` have another content."""

    asks: Mapping[str, Call]
    outcomes: Mapping[str, Call]
    events: Mapping[str, Call]

    @property
    def all(self) -> list[Call]:
        return [*self.events.values(), *self.asks.values(), *self.outcomes.values()]


def traffic(ids: int, at: str, *, device: str = "mobile", value: float = 1.0) -> Traffic:
    """The customer of an id does something, is decided for, and clicks; `device` and `value` are what may differ."""
    asks, outcomes, events = {}, {}, {}
    for n in range(ids):
        customer, context = {"customer_id": f"c{n}"}, {"device": device}
        shown = {"decision_id": f"d{n}", "placement": "hero", "action_id": "thanks", "type": "click", "value": value}
        event = {"event_id": f"e{n}", **customer, "type": "product_viewed", "channel": "web", "properties": {"price": value}}
        asks[f"d{n}"] = call(
            DECISION, {**customer, "placement": "hero", "decision_id": f"d{n}", "context": context, "deadline_ms": 1000}
        )
        outcomes[f"o{n}"] = call(OUTCOME, {"outcomes": [{"outcome_id": f"o{n}", "at": at, **shown}]})
        events[f"e{n}"] = call(EVENT, {"events": [event]})
    return Traffic(asks, outcomes, events)


@dataclass
class Answers:
    """Every answer that came, by the bytes that were sent."""

    given: dict[bytes, list[tuple[int, Any]]] = field(default_factory=dict)
    sent_again: int = 0
    count: int = 0
    _awaited: dict[int, asyncio.Event] = field(default_factory=dict)

    def add(self, data: bytes, status: int, answer: Any) -> None:  # whatever was answered
        self.given.setdefault(data, []).append((status, answer))
        self.count += 1
        if self.count in self._awaited:
            self._awaited[self.count].set()

    async def reach(self, count: int) -> None:
        """Return when there are so many."""
        await self._awaited.setdefault(count, asyncio.Event()).wait()


class _Sender:
    """Sends each call so many times at once, and again what nobody answered, until all are answered."""

    def __init__(self, port: int, found: Answers) -> None:
        self._loop = OpenLoop("127.0.0.1", port)
        self._found = found
        self._open = asyncio.Semaphore(LISTENERS)

    async def send(self, calls: Sequence[Call], times: int) -> None:
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(self._answered(one) for one in calls for _ in range(times)))
        self._loop.close()

    async def _answered(self, one: Call) -> None:
        while True:
            async with self._open:
                with contextlib.suppress(OSError, EOFError, ValueError):
                    status, body = await self._loop.ask(one.data)
                    if status not in {429, 503}:
                        self._found.add(one.data, status, json.loads(body))
                        return
            self._found.sent_again += 1
            await asyncio.sleep(AGAIN_S)


class _Servers:
    """One server after the other on the same port."""

    def __init__(self, home: Path, url: str, context: Context) -> None:
        self.port = free_port()
        self._command = nextbest("--home", str(home), "--redis-url", url, "serve", "--port", str(self.port))
        self._context = context

    def start(self) -> "subprocess.Popen[bytes]":
        with (self._context.scratch / "repeats.log").open("ab") as output:
            process = subprocess.Popen(
                self._command, cwd=self._context.root, env=clean_environment(), stdout=output, stderr=output
            )
        wait_until_ready(self.port)
        return process


async def _across_a_restart(servers: _Servers, wanted: Traffic, others: Traffic, times: int) -> tuple[Answers, Answers]:
    """Half of the duplicates before a SIGKILL, the other half around and after it; then the same ids with other content."""
    process = await asyncio.to_thread(servers.start)
    told, refused = Answers(), Answers()
    for calls in ([*wanted.events.values()], [*wanted.asks.values()], [*wanted.outcomes.values()]):
        half = told.count + len(calls) * times // 2
        sending = asyncio.create_task(_Sender(servers.port, told).send(calls, times))
        await told.reach(half)
        process.kill()
        await asyncio.to_thread(process.wait)
        process = await asyncio.to_thread(servers.start)
        await sending
    await _Sender(servers.port, refused).send(others.all, 2)
    process.terminate()
    await asyncio.to_thread(process.wait, 15)
    return told, refused


class Effects(NamedTuple):
    """How often each id is in the log; how often each decision and click is in Redis, and what customers' features counted.

    `shown`: items of each decision in the log. A customer whose event a kill kept from Redis is shown the fallback: no item.
    """

    written: Mapping[str, Counter[str]]
    shown: list[int]
    served: list[int]
    clicks: list[int]
    views: list[float]

    def exactly_once(self, ids: int) -> bool:
        once = all(len(counts) == ids and set(counts.values()) == {1} for counts in self.written.values())
        return once and self.served == self.shown and set(self.clicks) == {1} and set(self.views) == {1.0}

    @property
    def twice(self) -> int:
        """Effects that happened more than once, wherever."""
        written = sum(count > 1 for counts in self.written.values() for count in counts.values())
        return written + sum(count > 1 for count in (*self.served, *self.clicks, *self.views))


def effects(home: Path, url: str, ids: int) -> Effects:
    """As they are at this moment."""
    kinds = {"decisions": "decision_id", "outcomes": "outcome_id", "events": "event_id"}
    written = {kind: Counter(record[field] for record in lines_of(home, kind)) for kind, field in kinds.items()}
    items = {record["decision_id"]: _items(record) for record in lines_of(home, "decisions")}
    served, clicks = [], []
    with redis.Redis.from_url(url) as client:
        for n in range(ids):
            history = client.get(contacts_key(customer_key(f"c{n}"))) or b""
            types = Counter(entry["type"] for entry in _entries(history) if entry["decision"] == hash32(f"d{n}"))
            served.append(types[SERVED] - types[CANCELLED])
            clicks.append(types[type_code("click")])
    return Effects(written, [items[f"d{n}"] for n in range(ids)], served, clicks, asyncio.run(_views(home, url, ids)))


def _items(record: dict[str, Any]) -> int:
    return sum(len(placement["items"]) for placement in record["placements"] if not placement["fallback"])


def _entries(history: bytes) -> list[dict[str, int]]:
    size = ENTRY.itemsize
    return [
        {
            "decision": int.from_bytes(history[n + 8 : n + 12], "little"),
            "type": int.from_bytes(history[n + 14 : n + 16], "little"),
        }
        for n in range(0, len(history), size)
    ]


async def _views(home: Path, url: str, ids: int) -> list[float]:
    link = RedisLink(url, timeout_ms=10_000)
    reader = RedisCustomerReader(link, home_contract(home), lambda: False)
    reading = await reader.read([f"c{n}" for n in range(ids)], time.time())
    await link.close()
    return [float(state.values.get("views_24h", 0.0)) for state in reading.states]


class Outcome(NamedTuple):
    """What a run found."""

    told: Answers
    refused: Answers
    before: Effects
    after: Effects
    differing: int

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for answers in self.refused.given.values() for status, _ in answers)


def run(home: Path, context: Context, ids: int, times: int) -> Outcome:
    """Everything sent, what became of it, and what a rebuild makes of it."""
    live_home(home)
    (home / "catalog.yaml").write_text(CATALOG + CAP)
    command(home, "catalog", "publish", str(home / "catalog.yaml"))
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    wanted, others = traffic(ids, at), traffic(ids, at, device="desktop", value=2.0)
    with resolve_redis(None, home) as url:
        told, refused = asyncio.run(_across_a_restart(_Servers(home, url, context), wanted, others, times))
        before = effects(home, url, ids)
        command(home, "--redis-url", url, "rebuild")
        after = effects(home, url, ids)
    differing = sum(len({_answered(a) for _, a in told.given[one.data]}) > 1 for one in wanted.asks.values())
    return Outcome(told, refused, before, after, differing)


def _answered(answer: dict[str, Any]) -> str:
    """An answer but for the time it took."""
    return json.dumps({key: value for key, value in answer.items() if key != "took_ms"}, sort_keys=True)


def measure(context: Context) -> Measured:
    found = run(context.scratch / "repeats", context, IDS, TIMES)
    answers, once = found.told.count, "exactly one each" if found.after.exactly_once(IDS) else "NOT exactly one each"
    figure = (
        f"{3 * IDS} ids x {TIMES}, {answers:,} answered ({found.told.sent_again:,} sent again), 3 SIGKILLs: "
        f"{found.before.twice} effects twice, {once} after `nextbest rebuild`; "
        f"{found.differing} of {IDS} decisions answered differently; other content: "
        + ", ".join(f"{count} x {status}" for status, count in sorted(found.statuses.items()))
    )
    holds = not found.before.twice and found.after.exactly_once(IDS) and not found.differing
    complete = sum(found.after.shown) >= IDS // 2 and answers == 3 * IDS * TIMES and found.statuses == {REUSED: 2 * 3 * IDS}
    return Measured(figure, holds and complete)


ROW = Row(
    9, f"{IDS} ids x {TIMES} concurrent duplicates across a restart", "exactly one effect each; a different body: 422", measure
)
