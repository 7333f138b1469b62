"""What the demonstration starts ends with it."""

import os
import signal
import time

import pytest

from training.demo.running import interrupted_by_sigterm


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
