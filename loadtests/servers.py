"""Starts what is measured, on a core of its own; Redis and whoever generates the load have the others."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

from features.redis_server import find_server
from loadtests.world import build

ROOT = Path(__file__).resolve().parents[1]
READY_WITHIN_S = 60.0  # Feast takes its time
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
OURS, CLI = "nextbest", "service.cli"
PEERS = ("feast-lightgbm", "feast-onnx", "served", "floor")


class Server(NamedTuple):
    """A process that answers at a port of this machine, and how long it took to say so."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    ready_s: float


class Place(NamedTuple):
    """A home with its Redis."""

    home: Path
    redis_url: str
    logs: Path

    @contextlib.contextmanager
    def running(
        self, name: str, *, cores: Sequence[int] | None = None, options: Sequence[str] = (), under: Sequence[str] = (CLI,)
    ) -> Iterator[Server]:
        """Ours or one of the peers, pinned to the first core unless told otherwise. `under`: the module that starts ours."""
        with contextlib.ExitStack() as stack:
            extra: list[str] = []
            if name == "served":
                feast = stack.enter_context(self.running("feast", cores=cores))
                extra = ["--feast-url", f"http://127.0.0.1:{feast.port}"]
            port = free_port()
            if name == OURS:
                command = [*self._nextbest(under), "serve", "--port", str(port), "--log-level", "warning", *options]
            else:
                where = ["--home", str(self.home), "--redis-url", self.redis_url, "--port", str(port)]
                command = [sys.executable, "-m", "loadtests.peers", name, *where, *extra]
            yield stack.enter_context(_started(name, _pinned(command, cores if cores is not None else (0,)), port, self.logs))

    @contextlib.contextmanager
    def beside(self, module: str, *words: str) -> Iterator[int]:
        """A module that listens, away from the first core: its port, which is the first word that it is told."""
        port = free_port()
        command = [sys.executable, "-m", module, str(port), *words]
        with _started(module, _pinned(command, _others()), port, self.logs, is_ready=_listens):
            yield port

    def run(self, *words: str) -> None:
        """A command of ours on this home."""
        command = self.command(*words)
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"Expected `{' '.join(words)}` to succeed: {done.stderr[-500:]}")

    def command(self, *words: str, cores: Sequence[int] = ()) -> list[str]:
        """A command of ours on this home, on these cores where some are named."""
        return _pinned([*self._nextbest(), *words], cores)

    def _nextbest(self, under: Sequence[str] = (CLI,)) -> list[str]:
        return [sys.executable, "-m", *under, "--home", str(self.home), "--redis-url", self.redis_url]


@contextlib.contextmanager
def place(folder: Path) -> Iterator[Place]:
    """The shop, its features in a Redis of its own."""
    if not (folder / "home" / "registry" / "current").exists():
        build(folder / "home")
    shutil.rmtree(folder / "home" / "log", ignore_errors=True)  # else a new Redis counts as one that has lost something
    with redis_server(folder) as url:
        made = Place(folder / "home", url, folder)
        made.run("features", "materialize")
        yield made


@contextlib.contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[str]:
    """A Redis on loopback that writes nothing to disk."""
    port = free_port()
    command = [str(find_server()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        os.sched_setaffinity(process.pid, _others())
        _wait(lambda: _listens(port), process, folder / "redis.log")
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _pinned(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *command] if cores else [*command]


@contextlib.contextmanager
def _started(
    name: str, command: Sequence[str], port: int, logs: Path, *, is_ready: Callable[[int], bool] | None = None
) -> Iterator[Server]:
    log, begun = logs / f"{name}-{port}.log", time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )  # fmt: skip
    try:
        _wait(lambda: (is_ready or _is_ready)(port), process, log)
        yield Server(name, port, process, time.monotonic() - begun)
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextlib.contextmanager
def pin_generator() -> Iterator[None]:
    """Meanwhile this process leaves the first core to whoever is measured."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _others())
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _others() -> tuple[int, ...]:
    return tuple(range(1, os.cpu_count() or 1)) or (0,)


def environment() -> Mapping[str, str]:
    """Of this process, without settings of ours, one thread for each library, and nobody telling Feast's statistics.

    Bytecode is kept, as an installed package has it: without, 0.1 s of each start are for the compiler.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("NEXTBEST_") and key != NO_BYTECODE}
    return {**kept, "OMP_NUM_THREADS": "1", "FEAST_USAGE": "False", "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND)  # Feast's server has no such page
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _wait(done: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up and process.poll() is None:
        if done():
            return
        time.sleep(0.01)
    told = log.read_text(errors="replace")[-600:] if log.exists() else "it wrote nothing"
    raise RuntimeError(f"Expected a server within {READY_WITHIN_S:.0f} s, got none: {told}")
