"""What the demonstration starts ends with it."""

import os
import signal
import socket
import time

import pytest

from service.errors import NotReady
from training.demo.commands import main
from training.demo.running import interrupted_by_sigterm, running_server


def ended_while_running(left: list[str]) -> None:
    with interrupted_by_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            left.append("server")


def test_sigterm_ends_what_was_started_as_ctrl_c_does():
    """Blocks are left in order; afterwards the signal is what it was."""
    before, left = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(KeyboardInterrupt):
        ended_while_running(left)
    assert left == ["server"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def taken():
    """A port that somebody listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_that_is_taken_is_refused_since_whoever_listens_would_be_taken_for_ours(tmp_path, taken):
    """Nothing is started."""
    with pytest.raises(NotReady, match=f"Expected a free port .*127.0.0.1:{taken}"), running_server(tmp_path, "", taken):
        pass
    assert not list(tmp_path.iterdir())


def test_the_demonstration_looks_at_its_port_before_it_changes_anything(tmp_path, taken):
    """Whoever serves there may serve from the same home."""
    with pytest.raises(NotReady, match="another one: `--port`"):
        main(["demo", "--port", str(taken)], home=tmp_path / "home", redis_url=None)
    assert not list(tmp_path.iterdir())
