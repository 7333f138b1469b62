"""`make loadtest`: every scenario of budget.toml, as Locust's users; a table beside the budget, and a page for each scenario.

Exit code 1 where a figure is over its budget.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from loadtests.servers import OURS, ROOT, Place, Server, environment, place
from loadtests.world import another_bundle
from service.registry import Registry

BUDGET = ROOT / "loadtests" / "budget.toml"
REPORTS = ROOT / "build" / "loadtests"
GRACE_S = 30.0  # for Locust to start and to write its report
HOLDS, OVER, TOO_FEW = "holds", "OVER", "TOO FEW CAME"  # all but the first are a breach
HEADINGS = ("scenario", "customers/s", "answered", "p50, ms", "budget", "p99, ms", "budget", "failed", "budget", "verdict")


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens, and what it may cost. `failed`: a share of all requests."""

    arrivals: str
    rate: float
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: float
    swap_every_s: float | None = None
    redis_delay_ms: float = 0.0


class Seen(NamedTuple):
    """What Locust saw: requests, a share of failed ones, milliseconds."""

    requests: int
    failed: float
    p50_ms: float
    p99_ms: float


def read_budget(path: Path = BUDGET) -> dict[str, Scenario]:
    """By name. Raises SystemExit where the file cannot be used."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), dict[str, Scenario])
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SystemExit(f"error: Expected a budget of scenarios, found another: {error} - at `{path}`") from error


def measured(made: Place, name: str, scenario: Scenario) -> Seen:
    """One scenario, from the start of a server to its end."""
    with (
        _redis(made, scenario.redis_delay_ms) as url,
        made._replace(redis_url=url).running(OURS) as server,
        _swaps(made.home, scenario.swap_every_s),
    ):
        return _locust(server, name, scenario)


@contextlib.contextmanager
def _redis(made: Place, delay_ms: float) -> Iterator[str]:
    """Its address, by a slower line where one is wanted."""
    if not delay_ms:
        yield made.redis_url
        return
    with made.beside("loadtests.slow_line", made.redis_url.rpartition(":")[2], str(delay_ms)) as port:
        yield f"redis://127.0.0.1:{port}"


@contextlib.contextmanager
def _swaps(home: Path, every_s: float | None) -> Iterator[None]:
    """Meanwhile one bundle and the other are made to serve in turn."""
    if every_s is None:
        yield
        return
    registry, ended = Registry(home / "registry"), threading.Event()
    bundles = sorted(path.name for path in (home / "registry" / "bundles").iterdir())

    def swap() -> None:
        number = 0
        while not ended.wait(every_s):
            registry.promote(bundles[number % len(bundles)], at="2026-01-01T00:00:00Z", why="a load test swaps bundles")
            number += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _locust(server: Server, name: str, scenario: Scenario) -> Seen:
    command = [
        sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), scenario.arrivals, "--headless",
        "--host", f"http://127.0.0.1:{server.port}", "--users", "1", "--spawn-rate", "1", "--run-time", f"{scenario.seconds:g}s",
        "--rate", f"{scenario.rate:g}", "--html", str(REPORTS / f"{name}.html"), "--json", "--skip-log", "--loglevel", "ERROR",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=scenario.seconds + GRACE_S, check=False
    )  # fmt: skip
    try:
        [told] = json.loads(done.stdout)
    except ValueError as error:
        raise SystemExit(f"error: Expected figures from Locust, got `{(done.stdout + done.stderr)[-500:]}`") from error
    return seen(told)


def seen(told: dict[str, Any]) -> Seen:
    """One line of Locust's figures."""
    times = sorted((float(ms), count) for ms, count in told["response_times"].items())
    requests = int(told["num_requests"])
    return Seen(requests, told["num_failures"] / max(1, requests), _percentile(times, 0.5), _percentile(times, 0.99))


def _percentile(times: Sequence[tuple[float, int]], share: float) -> float:
    """The milliseconds that this share of the answers stays within; infinite where there are none."""
    left = share * sum(count for _, count in times)
    for ms, count in times:
        left -= count
        if left <= 0:
            return ms
    return float("inf")


def verdict(scenario: Scenario, found: Seen) -> str:
    """Whether it keeps to the budget; a scenario in which hardly anybody came proves nothing."""
    if found.requests < 0.8 * scenario.rate * scenario.seconds:
        return TOO_FEW
    keeps = found.p50_ms <= scenario.p50_ms and found.p99_ms <= scenario.p99_ms and found.failed <= scenario.failed
    return HOLDS if keeps else OVER


def markdown(budget: dict[str, Scenario], found: dict[str, Seen]) -> str:
    """The table."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" + "|---:" * (len(HEADINGS) - 2) + "|---|"]
    for name, one in found.items():
        allowed = budget[name]
        figures = (
            f"{allowed.rate:g}", f"{one.requests:,}", f"{one.p50_ms:.0f}", f"{allowed.p50_ms:g}", f"{one.p99_ms:.0f}",
            f"{allowed.p99_ms:g}", f"{one.failed:.2%}", f"{allowed.failed:.2%}", verdict(allowed, one),
        )  # fmt: skip
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.run", description="Load tests beside their budget.")
    parser.add_argument("scenario", nargs="*", help="some of them; all where none is named")
    parser.add_argument(
        "--budget", type=Path, default=BUDGET, metavar="FILE", help="of your own (default: loadtests/budget.toml)"
    )
    parser.add_argument("--shop", type=Path, metavar="FOLDER", help="where the shop lies, or is to be left for the next time")
    options = parser.parse_args(argv)
    wanted, budget = options.scenario, read_budget(options.budget)
    unknown = set(wanted) - budget.keys()
    if unknown:
        parser.error(f"Expected scenarios of {', '.join(budget)}, got {', '.join(sorted(unknown))}")
    REPORTS.mkdir(parents=True, exist_ok=True)
    found: dict[str, Seen] = {}
    with tempfile.TemporaryDirectory(prefix="nextbest-load-") as folder, place(options.shop or Path(folder)) as made:
        if any(budget[name].swap_every_s for name in wanted or budget):
            another_bundle(made.home)
        for name in wanted or budget:
            print(f"{name} ...", file=sys.stderr, flush=True)
            found[name] = measured(made, name, budget[name])
    print(markdown(budget, found))
    print(f"reports: {REPORTS.relative_to(ROOT)}/*.html")
    return 0 if all(verdict(budget[name], one) == HOLDS for name, one in found.items()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
