"""Ours, the peers and the floor, one after the other on the same core, again and again: medians of rounds, ratios of one run."""

import contextlib
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from loadtests.generator import GRACE_S, Load, closed, open_loop, post
from loadtests.servers import OURS, Place, Server
from loadtests.world import CUSTOMERS, asks

CONNECTIONS = 32
ROUNDS = 5
SECONDS, ALONE_S, HALF_S = 2.5, 1.5, 2.4  # a round
WARM_UP_S = 1.0  # the first answers fill caches

Servers = Mapping[str, Server]
Figures = dict[str, list[float]]  # by server, one a round


class Half(NamedTuple):
    """At half of what ours can do: requests a second, and latencies in seconds."""

    per_second: float
    p50: float
    p99: float


def requests(**told: object) -> Iterator[bytes]:
    """One for each customer, encoded beforehand, again and again; `told` is in each of them."""
    return itertools.cycle([post("/recommend", {**asked, **told}) for asked in itertools.islice(asks(), CUSTOMERS)])


@contextlib.contextmanager
def together(place: Place, names: Sequence[str]) -> Iterator[Servers]:
    """All of them running on the first core; who is not asked takes none of it. Each has answered once before."""
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(place.running(name)) for name in names}
        for server in servers.values():
            closed(server.port, requests(), CONNECTIONS, seconds=WARM_UP_S)
        yield servers


def throughput(
    servers: Servers, rounds: int = ROUNDS, seconds: float = SECONDS, connections: int = CONNECTIONS, **told: object
) -> Figures:  # fmt: skip
    """Answers a second at so many connections, in turn: A B C A B C. Raises RuntimeError where an answer is not 200.

    `told` is in each request.
    """
    found: Figures = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            found[name].append(good(name, closed(server.port, requests(**told), connections, seconds=seconds)).per_second)
    return found


def alone(servers: Servers, rounds: int = ROUNDS) -> Figures:
    """The median latency of one connection, seconds, in turn."""
    found: Figures = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            found[name].append(good(name, closed(server.port, requests(), 1, seconds=ALONE_S)).percentile(0.5))
    return found


def half_load(servers: Servers, capacity: float, rounds: int = ROUNDS) -> Half:
    """What arrives at half of the capacity, whatever the server is doing: medians of the rounds."""
    port = servers[OURS].port
    loads = [good(OURS, open_loop(port, requests(), capacity / 2, seconds=HALF_S)) for _ in range(rounds)]
    p50, p99 = (statistics.median(load.percentile(share) for load in loads) for share in (0.5, 0.99))
    return Half(capacity / 2, p50, p99)


def ratio(figures: Figures, name: str, other: str) -> float:
    """The median over the rounds of one by the other: what disturbs a round disturbs both."""
    return statistics.median(a / b for a, b in zip(figures[name], figures[other], strict=True))


def good(name: str, load: Load) -> Load:
    """The load, where every answer was 200. Raises RuntimeError."""
    if not load.good or load.good < load.answers:
        others = load.answers - load.good
        never = f", {load.unanswered} of them without an answer for {GRACE_S:g} s and more" if load.unanswered else ""
        raise RuntimeError(f"Expected 200 for every request, got {others} others of {load.answers}{never} - at `{name}`")
    return load
