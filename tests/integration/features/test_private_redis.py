"""A private Redis: shared by the processes of one home, and gone with the last of them, however it goes."""

import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from features.redis_server import RedisNotStarted, find_server, resolve_redis

USER = """
import sys, threading
from pathlib import Path
from features.redis_server import resolve_redis
threading.Thread(target=threading.Event().wait, daemon=True).start()  # a parent with threads, as every server is
with resolve_redis(None, Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nb-") as folder:  # pytest's own folders are too long for a socket
        yield Path(folder)
        assert _becomes(lambda: not _servers(Path(folder)))  # a server that is on its way out still writes


@pytest.fixture
def start() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Starts other processes that use the private Redis of a home until they are told, or killed."""
    started: list[subprocess.Popen[str]] = []

    def start_user(home: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", USER, str(home)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start_user
    for process in started:
        process.kill()
        process.communicate()


def _url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _process_id(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return client.info("server")["process_id"]


def _listens(home: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(home / "redis" / "redis.sock")) == 0


def _servers(home: Path) -> list[str]:
    """Redis processes of this home, as they call themselves; the guard's shell is not one."""
    titles = [_title(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [title for title in titles if str(home) in title and "redis-server" in title.split("\0")[0]]


def _title(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it ended while we looked
        return ""


def _becomes(condition: Callable[[], bool], patience: float = 5.0) -> bool:
    deadline = time.monotonic() + patience
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_given_url_is_used_as_it_is_and_nothing_is_started(home: Path):
    """Whoever names a Redis gets that one."""
    with resolve_redis("redis://elsewhere:6379/3", home) as url:
        assert url == "redis://elsewhere:6379/3"
    assert list(home.iterdir()) == []


def test_it_listens_on_a_socket_that_only_its_owner_can_reach_and_on_no_port(home: Path):
    """Private means: folder 0700, socket 0600, no TCP."""
    with resolve_redis(None, home) as url, redis.Redis.from_url(url) as client:
        assert stat.S_IMODE((home / "redis").stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "redis" / "redis.sock").stat().st_mode) == 0o600
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_what_was_written_is_there_the_next_time_and_nobody_listens_in_between(home: Path):
    """The append-only file carries values over a restart."""
    with resolve_redis(None, home) as url, redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    assert not _listens(home)
    with resolve_redis(None, home) as url, redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"


def test_it_dies_with_a_parent_that_is_killed(home: Path, start):
    """SIGKILL gives the parent no chance to clean up; the server stops all the same."""
    parent = start(home)
    server = _process_id(_url_of(parent))
    assert _listens(home)
    parent.send_signal(signal.SIGKILL)
    assert _becomes(lambda: not _listens(home))
    assert _becomes(lambda: not Path(f"/proc/{server}").exists()) or not Path("/proc/self").exists()


def test_the_next_user_of_a_killed_parent_gets_a_server_with_what_was_written(home: Path, start):
    """Starting again at once waits for the old server's last write instead of joining or fighting it."""
    parent = start(home)
    with redis.Redis.from_url(_url_of(parent)) as client:
        client.set("kept", "yes")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    with resolve_redis(None, home) as url, redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"
        time.sleep(0.2)  # long enough for a dying server to be gone
        assert client.ping()


def test_a_second_user_joins_and_keeps_the_server_when_the_first_one_is_killed(home: Path, start):
    """The server lives as long as any of its users, not only the one that started it."""
    first = start(home)
    server = _process_id(_url_of(first))
    with resolve_redis(None, home) as url:
        assert _process_id(url) == server
        first.send_signal(signal.SIGKILL)
        first.wait()
        time.sleep(0.2)  # long enough for a guard to act
        assert _process_id(url) == server
    assert not _listens(home)


def test_a_first_user_leaves_in_peace_while_a_second_goes_on(home: Path, start):
    """Leaving does not wait for others, and does not take the server along."""
    with resolve_redis(None, home) as url:
        server = _process_id(url)
        second = start(home)
        assert _url_of(second) == url
    assert _process_id(url) == server


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="counts processes in /proc: run it on Linux")
def test_processes_that_start_at_once_end_up_with_one_server(home: Path, start):
    """The lock lets one start it and the others join."""
    urls = [_url_of(process) for process in [start(home) for _ in range(4)]]
    assert len(set(urls)) == 1
    assert len(_servers(home)) == 1


def test_a_server_that_died_is_started_again_for_the_next_user(home: Path, start):
    """A guard whose server is gone does not pass for an instance."""
    first = start(home)
    url = _url_of(first)
    with redis.Redis.from_url(url) as client:
        client.shutdown(nosave=True)
    with resolve_redis(None, home) as url, redis.Redis.from_url(url) as client:
        assert client.ping()


def test_a_home_with_a_long_path_gets_its_socket_in_the_temporary_directory(home: Path):
    """A socket's path may have about 100 bytes; the data stays under the home."""
    deep = home / ("d" * 60) / ("e" * 60)
    with resolve_redis(None, deep) as url, redis.Redis.from_url(url) as client:
        assert client.ping()
        assert len(url) < 110
        assert stat.S_IMODE(Path(url.removeprefix("unix://")).parent.stat().st_mode) == 0o700
    assert (deep / "redis" / "appendonly.aof").exists() or (deep / "redis" / "appendonlydir").exists()


def test_a_server_that_cannot_start_says_so_with_the_end_of_its_own_log(home: Path):
    """Redis refuses a damaged file; whoever reads the error learns why."""
    folder = home / "redis"
    folder.mkdir()
    (folder / "appendonly.aof").write_bytes(b"this is not an append-only file\r\n" * 3)
    started = time.monotonic()
    with pytest.raises(RedisNotStarted, match=r"within 5 s(.|\n)*Bad file format"), resolve_redis(None, home):
        pass
    assert time.monotonic() - started < 8
    assert not _listens(home)


def test_a_server_program_is_found_on_this_machine():
    """On the PATH, else inside the wheel."""
    assert find_server().name == "redis-server"
