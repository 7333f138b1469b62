"""A real server in a process of its own, for as long as a block lasts."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from service.errors import NotReady
from training.demo.client import Client

READY_WITHIN_S = 20.0  # takes 1.5 s on an idle machine of 2 cores
STOPS_WITHIN_S = 10.0


class RunningServer(NamedTuple):
    """Where it answers, which process it is, and how long it took to be ready, in seconds."""

    url: str
    pid: int
    ready_after: float
    log: Path


@contextlib.contextmanager
def running_server(home: Path, redis_url: str, port: int | None = None, **settings: str) -> Iterator[RunningServer]:
    """Start `nextbest serve`, wait until it is ready, stop it at the end. Raises NotReady with the end of its log.

    `settings`: variables of its environment.
    """
    port = free_port() if port is None else unused(port)
    log = home / "server.log"
    command = [sys.executable, "-m", "service.cli", "--home", str(home), "--redis-url", redis_url, "serve", "--port", str(port)]
    started = time.perf_counter()
    # Feast, where it was imported here, would have the server keep its metrics in files that go with this process
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_")}
    environment = {**kept, **settings}
    with log.open("ab") as output, subprocess.Popen(command, stderr=output, stdout=output, env=environment) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", process, log)
            yield RunningServer(f"http://127.0.0.1:{port}", process.pid, time.perf_counter() - started, log)
        finally:
            _stop(process)


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Within the block SIGTERM is what Ctrl-C is: what was started ends with it, instead of holding its port for ever."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def free_port() -> int:
    """A port of the loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unused(port: int) -> int:
    """A port that nobody listens on: whoever does would be taken for the service that was started. Raises NotReady."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            problem = f"Expected a free port (another one: `--port`), found one that is taken: {error}"
            raise NotReady(f"{problem} - at `127.0.0.1:{port}`") from error
    return port


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Poll `/ready`. Raises NotReady where the process ends or takes too long."""
    give_up = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < give_up:
        if _is_ready(url):
            return
        time.sleep(0.02)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise NotReady(f"Expected the service to be ready within {READY_WITHIN_S:g} s, found it is not; its log ends with:\n{tail}")


def _is_ready(url: str) -> bool:
    with Client(url) as client:
        try:
            return client.get("/ready")[0] == 200  # noqa: PLR2004  # HTTP's word for yes
        except (OSError, http.client.HTTPException):
            return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
