"""Row 5: what the serving process loads, how soon it is ready, and how much memory a worker holds."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.prepared import prepared_home
from tests.acceptance.processes import clean_environment, nextbest, run_or_not
from tests.acceptance.row import Context, Measured, NotRun, Row

HEAVY = ("feast", "lightgbm", "pandas")
READY_LIMIT = 2.0  # seconds from the start of the process
MEMORY_LIMIT = 200.0  # MB, resident, of the worker alone: the private Redis is a process of its own
REQUESTS = 500  # answered before memory is read: the first ones fill the caches


def measure(context: Context) -> Measured:
    loaded = heavy_modules(context.root)
    with serving(prepared_home(context), context) as (process, url, ready):
        _ask(url, placement_of(context.scratch / "home"))
        memory = resident_megabytes(process.pid)
    figure = f"loads {', '.join(loaded) or 'none of them'}; ready after {ready:.2f} s; {memory:.0f} MB after {REQUESTS} requests"
    return Measured(figure, not loaded and ready <= READY_LIMIT and memory <= MEMORY_LIMIT)


def heavy_modules(root: Path) -> list[str]:
    """Which of the heavy packages importing the service brings in."""
    code = f"import sys, json, service.app; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = run_or_not([sys.executable, "-c", code], root, clean_environment(), limit=60)
    found: list[str] = json.loads(done.output.splitlines()[-1])
    return found


@contextlib.contextmanager
def serving(home: Path, context: Context, redis_url: str | None = None) -> Iterator[tuple[subprocess.Popen[bytes], str, float]]:
    """A real server on a free port: the process, its address, and the seconds until /ready said yes."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    log = context.scratch / f"serve-{port}.log"
    started = time.monotonic()
    with log.open("wb") as output:
        where = ("--redis-url", redis_url) if redis_url else ()
        command = nextbest("--home", str(home), *where, "serve", "--port", str(port))
        process = subprocess.Popen(
            command, cwd=context.root, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait_until_ready(process, url, log)
        yield process, url, time.monotonic() - started
    finally:
        process.terminate()
        process.wait(timeout=15)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, limit: float = 30.0) -> None:
    give_up = time.monotonic() + limit
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/ready", timeout=1.0).status_code == httpx.codes.OK:
                return
        time.sleep(0.02)
    raise NotRun(f"the server was not ready within {limit:.0f} s: {log.read_text(errors='replace')[-400:]}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def resident_megabytes(pid: int) -> float:
    """Memory of one process, as the Linux kernel counts it."""
    path = Path(f"/proc/{pid}/status")
    if not path.exists():
        raise NotRun("memory is read from /proc, which this machine does not have")
    line = next(line for line in path.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def placement_of(home: Path) -> str:
    """A placement of the newest catalog."""
    newest = max((home / "registry" / "catalogs").glob("*.json"), key=lambda path: int(path.stem), default=None)
    if newest is None:
        raise NotRun(f"no catalog was published in {home}, so there is nothing to recommend")
    document: dict[str, Any] = json.loads(newest.read_text())["document"]
    return str(document["placements"][0]["id"])


def _ask(url: str, placement: str) -> None:
    with httpx.Client(base_url=url, timeout=5.0) as client:
        for number in range(REQUESTS):
            answer = client.post("/recommend", json={"customer_id": f"c{number}", "placement": placement})
            answer.raise_for_status()


ROW = Row(
    5,
    "importing service.app; a real server's start and memory",
    f"no {', '.join(HEAVY)}; ready <= {READY_LIMIT:.0f} s; <= {MEMORY_LIMIT:.0f} MB a worker",
    measure,
)
