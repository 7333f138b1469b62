"""A real Redis that can be stopped, and a line to it that can be cut, slowed and delayed: in a process of its own.

`python -m tests.acceptance.redis_proxy PORT TARGET` takes a trouble a line and says `ok` once it is made.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import redis
import uvloop

from features.redis_server import find_server
from tests.acceptance.processes import clean_environment
from tests.acceptance.rows.footprint import free_port

Trouble = Literal["none", "refused", "delayed", "reset", "slow"]

DELAY_S = 0.2
SLOW_BYTES_A_SECOND = 1000
STARTED_WITHIN_S = 10.0


class RealRedis:
    """A server process on a port of its own, which keeps what it holds across a restart."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [str(find_server()), "--port", str(self.port), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", "",
                   "--dir", str(self._folder)]  # fmt: skip
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + STARTED_WITHIN_S
        while time.monotonic() < give_up:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                if client.ping():
                    return
            time.sleep(0.02)
        raise RuntimeError("redis-server did not start")

    def client(self) -> "redis.Redis":
        """Past the proxy."""
        return redis.Redis(port=self.port, socket_timeout=5.0)

    def signal(self, number: signal.Signals) -> None:
        """To the process that we started."""
        if self.process is not None:
            self.process.send_signal(number)

    def stop(self) -> None:
        """End it, wherever it is."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(timeout=10)


class Proxy:
    """Carries bytes between the service and Redis, or makes trouble."""

    def __init__(self, port: int, target: int) -> None:
        self._port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._trouble: Trouble = "none"
        self._talks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self._port, limit=2**20)

    async def make(self, trouble: Trouble) -> None:
        """From now on; `refused` and `reset` also end what is under way."""
        self._trouble = trouble
        if trouble == "refused":
            await self.close()
        elif self._server is None:
            await self.open()

    async def close(self) -> None:
        """Stop listening and cut every line."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for talk in list(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._talks.add(task)
            task.add_done_callback(self._talks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(writer):
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            with contextlib.closing(back):
                there_and_back = [
                    asyncio.create_task(self._carry(reader, back)),
                    asyncio.create_task(self._answer(there, writer)),
                ]
                try:
                    await asyncio.wait(there_and_back, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for one in there_and_back:
                        one.cancel()
                    await asyncio.gather(*there_and_back, return_exceptions=True)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()

    async def _answer(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """What Redis says, with the trouble of the moment."""
        while data := await source.read(65_536):
            match self._trouble:
                case "delayed":
                    asyncio.get_running_loop().call_later(DELAY_S, _write_if_open, target, data)
                    continue
                case "reset":
                    target.write(data[: len(data) // 2])
                    await target.drain()
                    target.transport.abort()
                    return
                case "slow":
                    for start in range(0, len(data), 20):
                        target.write(data[start : start + 20])
                        await asyncio.sleep(20 / SLOW_BYTES_A_SECOND)
                    continue
                case _:
                    target.write(data)
            await target.drain()


def _write_if_open(target: asyncio.StreamWriter, data: bytes) -> None:
    if not target.is_closing():
        target.write(data)


class ProxyProcess:
    """The proxy, where nothing else keeps it waiting."""

    def __init__(self, target: int, root: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "tests.acceptance.redis_proxy", str(self.port), str(target)]
        self._process = subprocess.Popen(
            command, cwd=root, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.make("none")

    def make(self, trouble: Trouble) -> None:
        """From now on."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the proxy has no pipes")
        print(trouble, file=self._process.stdin, flush=True)
        if self._process.stdout.readline() != "ok\n":
            raise RuntimeError("the proxy ended")

    def close(self) -> None:
        """End the process."""
        with self._process:  # closes its pipes
            self._process.terminate()


async def _serve(port: int, target: int) -> None:
    proxy, loop = Proxy(port, target), asyncio.get_running_loop()
    while word := await loop.run_in_executor(None, sys.stdin.readline):
        await proxy.make(word.strip())  # type: ignore[arg-type]  # the words are `Trouble`
        print("ok", flush=True)  # the answer to who started us


@contextlib.contextmanager
def running(server: RealRedis) -> Iterator[RealRedis]:
    """A server for as long as the block lasts."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
