"""Row 5: everything that can become of Redis, for ten seconds each, at half of what the server can answer."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import redis
import uvloop

from service.api.wire import RecommendResponse
from tests.acceptance.capacity import capacity
from tests.acceptance.open_loop import Answer, Call, OpenLoop, call
from tests.acceptance.prepared import prepared_home
from tests.acceptance.processes import clean_environment, nextbest, run_or_not
from tests.acceptance.redis_proxy import ProxyProcess, RealRedis, Trouble, running
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import serving

DEADLINE_MS = 200
FAULT_S = 10.0
LONGEST_S = 180.0  # a rebuild is a process that shares the cores: beside 500,000 decisions in the log it took more than 40 s
HEALED_WITHIN_S = 5.0
MOST_WAITING = 20
MOST_COMMANDS = 1.1
SHARE, PROBE_S = 0.5, 2.5  # of the capacity, which is measured for so many seconds
QUIET_S = 0.3  # asking for figures keeps the load generator busy, and what it owes then comes at once: not into the fault

GONE, UNWRITABLE = "no_customer_features", "no_contact_history"
CATALOG = """
catalog: 1
issues: [{id: all}]
groups: [{id: all, issue: all}]
actions:
  - {id: tips, group: all, kind: content, value: 1, treatments: [{id: t, placements: [home_hero]}]}
  - {id: sale, group: all, kind: offer, value: 2, treatments: [{id: t, placements: [home_hero]}]}
placements: [{id: home_hero, channel: web, fallback: {action: welcome, kind: content}}]
contact: {caps: [{name: few_offers, at_most: 384, per: action, window: 1d, where: {kinds: offer}}]}
"""


class Spell(NamedTuple):
    """Seconds of load before a fault, while it lasts, and after it was mended."""

    before: float = 2.0
    fault: float = FAULT_S
    after: float = 6.0


class Setting(NamedTuple):
    """What a fault may lay hands on. `load`: the rate of requests."""

    home: Path
    server: RealRedis
    proxy: ProxyProcess
    address: httpx.URL
    per_second: float
    context: Context
    spell: Spell = Spell()


Act = Callable[[Setting], Awaitable[None]]


class Fault(NamedTuple):
    """What happens, what mends it, and which part of the service is named as missing meanwhile."""

    begin: Act
    mend: Act
    rung: str


def measure(context: Context) -> Measured:
    home = prepared_home(context)
    with redis_with(home, context) as server:
        found = uvloop.run(_all(context, home, server))
    problems = [f"{name}: {what}" for name, some in found.items() for what in some if what.endswith("!")]
    told = "; ".join(f"{name}: {', '.join(some)}" for name, some in found.items())
    return Measured(told, not problems and len(found) == len(FAULTS))


@contextlib.contextmanager
def redis_with(home: Path, context: Context) -> Iterator[RealRedis]:
    """A server of its own that holds what the home's customers need, and a catalog with a cap."""
    (home / "few.yaml").write_text(CATALOG)
    _do(context, home, None, "catalog", "publish", str(home / "few.yaml"))
    folder = context.scratch / "real-redis"
    folder.mkdir(exist_ok=True)
    with running(RealRedis(folder)) as server:
        _do(context, home, server, "features", "materialize")
        _do(context, home, server, "rebuild")
        yield server


def _do(context: Context, home: Path, server: RealRedis | None, *words: str) -> None:
    where = ("--redis-url", f"redis://127.0.0.1:{server.port}") if server else ()
    command = ["nice", "-n", "10", *nextbest("--home", str(home), *where, *words)]  # as the guide to operating says
    run_or_not(command, context.root, clean_environment(), limit=120)


async def _all(context: Context, home: Path, server: RealRedis) -> dict[str, list[str]]:
    proxy, found = ProxyProcess(server.port, context.root), dict[str, list[str]]()
    manager = serving(home, context, f"redis://127.0.0.1:{proxy.port}")
    _, url, _ready = await asyncio.to_thread(manager.__enter__)
    try:
        address = httpx.URL(url)
        for name, fault in FAULTS.items():
            most = await capacity(address.host, address.port or 80, asks(), PROBE_S)  # each time: a shared machine changes
            setting = Setting(home, server, proxy, address, SHARE * most, context)
            found[f"{name} ({setting.per_second:.0f}/s)"] = await suffered(setting, fault)
            context.tell(f"{name}: {list(found.values())[-1]}")
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)
        proxy.close()
    return found


async def suffered(setting: Setting, fault: Fault) -> list[str]:
    """One fault: figures, those that break the bar with an exclamation mark."""
    loop = OpenLoop(setting.address.host, setting.address.port or 80)
    load = asyncio.create_task(loop.run(asks(), setting.per_second, LONGEST_S))
    first = _commands(setting.server)
    await asyncio.sleep(setting.spell.before)
    normal = (_commands(setting.server) - first) / setting.spell.before
    before = await _waits(loop)
    await asyncio.sleep(QUIET_S)
    began = time.perf_counter()
    await fault.begin(setting)
    await asyncio.sleep(max(0.0, began + setting.spell.fault - time.perf_counter()))
    waited, mending = await _waits(loop) - before, time.perf_counter()
    await fault.mend(setting)
    mended = time.perf_counter()
    loop.end_in(setting.spell.after + 1.0)
    second = _commands(setting.server)
    await asyncio.sleep(setting.spell.after)
    again = (_commands(setting.server) - second) / (time.perf_counter() - mended)
    answers = await load
    loop.close()
    return judged(answers, fault.rung, Moments(began, mending, mended), waited, again / normal)


class Moments(NamedTuple):
    """When it began, when mending began, and when it was mended: time.perf_counter(). A rebuild takes its time, and a core."""

    began: float
    mending: float
    mended: float


async def _waits(loop: OpenLoop) -> int:
    """How many requests have waited for Redis in vain, as the service counts them."""
    _, body = await loop.ask(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")  # a client of its own takes 100 ms to make
    found = next(line for line in body.splitlines() if line.startswith(b"nextbest_redis_waits_total "))
    return int(float(found.split()[1]))


def judged(answers: Sequence[Answer], rung: str, when: Moments, waited: int, commands: float) -> list[str]:
    """The bars of this row. `waited`: requests that paid the time-out."""
    bad = [a for a in answers if not is_answer(a)]
    kinds = ", ".join(f"{count} x {status}" for status, count in Counter(a.status for a in bad).items())
    late = [a for a in answers if a.seconds * 1000 > DEADLINE_MS]
    good = [(a, msgspec.json.decode(a.body, type=RecommendResponse)) for a in answers if is_answer(a)]
    during = [r for a, r in good if when.began + 1.0 < a.due < when.mending]
    named = sum(any(d == rung or d.startswith(rung) for d in r.degraded) for r in during)
    missing = [a.due for a, r in good if a.due > when.mended and any(d.startswith(rung) for d in r.degraded)]
    back = max(missing, default=when.mended) - when.mended
    healed = sum(a.due > when.mended for a in answers)
    return [
        f"{len(bad)} of {len(answers)} bad" + f" ({kinds})!" * bool(bad),
        f"{len(late)} late" + "!" * bool(late),
        f"{rung} named in {named / max(1, len(during)):.0%}" + "!" * (named == 0),
        f"{waited} waited" + "!" * (waited > MOST_WAITING),
        f"back after {back:.1f} s" + "!" * (back > HEALED_WITHIN_S) + ", nobody asked any more!" * (not healed),
        f"commands x{commands:.2f}" + "!" * (commands > MOST_COMMANDS),
    ]


def is_answer(answer: Answer) -> bool:
    """200, and as the interface describes it."""
    if answer.status != httpx.codes.OK:
        return False
    try:
        msgspec.json.decode(answer.body, type=RecommendResponse)
    except msgspec.DecodeError:
        return False
    return True


def asks() -> Iterator[Call]:
    """Customers of the simulated world."""
    for number in itertools.count():
        asked = {"customer_id": f"c{number % 2000}", "placement": "home_hero", "deadline_ms": DEADLINE_MS}
        yield call("/recommend", {**asked, "context": {"channel": "web", "device": "mobile"}})


def _commands(server: RealRedis) -> int:
    """How many commands Redis has worked on; none where it does not say."""
    try:
        with server.client() as client:
            return int(client.info("stats")["total_commands_processed"])
    except redis.RedisError:
        return 0


def _signalled(number: signal.Signals) -> Act:
    async def act(setting: Setting) -> None:
        setting.server.signal(number)

    return act


def _line(trouble: Trouble) -> Act:
    async def act(setting: Setting) -> None:
        await asyncio.to_thread(setting.proxy.make, trouble)

    return act


def _command(*words: str) -> Act:
    async def act(setting: Setting) -> None:
        def send() -> None:
            with setting.server.client() as client:
                client.execute_command(*words)

        await asyncio.to_thread(send)

    return act


async def _restarted(setting: Setting) -> None:
    await asyncio.to_thread(setting.server.stop)
    await asyncio.sleep(0.7 * setting.spell.fault)


async def _started(setting: Setting) -> None:
    await asyncio.to_thread(setting.server.start)


async def _rebuilt(setting: Setting) -> None:
    await asyncio.to_thread(_do, setting.context, setting.home, setting.server, "rebuild")


FAULTS = {
    "refused": Fault(_line("refused"), _line("none"), GONE),
    "SIGSTOP": Fault(_signalled(signal.SIGSTOP), _signalled(signal.SIGCONT), GONE),
    "+200 ms": Fault(_line("delayed"), _line("none"), GONE),
    "reset mid-reply": Fault(_line("reset"), _line("none"), GONE),
    "1 KB/s": Fault(_line("slow"), _line("none"), GONE),
    "READONLY": Fault(_command("REPLICAOF", "127.0.0.1", "1"), _command("REPLICAOF", "NO", "ONE"), UNWRITABLE),
    "OOM": Fault(_command("CONFIG", "SET", "maxmemory", "1"), _command("CONFIG", "SET", "maxmemory", "0"), UNWRITABLE),
    "FLUSHALL": Fault(_command("FLUSHALL"), _rebuilt, UNWRITABLE),
    "restart": Fault(_restarted, _started, GONE),
}

ROW = Row(
    5,
    f"Redis for {FAULT_S:.0f} s each at half capacity: refused, stopped, slow, reset, READONLY, OOM, emptied, restarted",
    f"100% valid 200 within {DEADLINE_MS} ms, the right rung named, at most {MOST_WAITING} requests pay the time-out, full "
    f"service within {HEALED_WITHIN_S:.0f} s, commands at most {MOST_COMMANDS} x normal",
    measure,
)
