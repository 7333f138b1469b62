"""What the demonstration starts ends with it."""

import os
import signal
import socket
import time

import pytest

from service.errors import NotReady
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


def test_a_port_that_is_taken_is_refused_since_whoever_listens_would_be_taken_for_ours(tmp_path):
    """Nothing is started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(NotReady, match=f"Expected a free port, .*127.0.0.1:{port}"), running_server(tmp_path, "", port):
            pass
    assert not list(tmp_path.iterdir())
