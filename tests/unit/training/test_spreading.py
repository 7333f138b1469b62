"""Processes that work for one that starts them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from training.spreading import Workers, spread

CALLING = """
import json, subprocess, sys
from training.spreading import Workers, spread
list(spread(subprocess.call, json.loads(sys.argv[1]), Workers(2)))
"""


def children(process: int) -> list[int]:
    """Whom it has started."""
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_there(process: int) -> bool:
    """And is no mere entry that nobody has asked about."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def becomes(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    give_up = time.monotonic() + seconds
    while not holds() and time.monotonic() < give_up:
        time.sleep(0.02)
    return holds()


def test_what_comes_of_each_item_is_told_by_several_processes():
    """In whatever order."""
    assert sorted(spread(abs, [-3, 1, -2, 5], Workers(2))) == [1, 2, 3, 5]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_they_go_with_the_one_that_started_them_however_it_went(tmp_path):
    """One that waits for more to do, and one that works: it comes to the end of what it does."""
    long = f"touch {tmp_path}/begun; sleep 2; touch {tmp_path}/ended"
    told = json.dumps([["true"], ["sh", "-c", long], ["sleep", "0.01"]])
    with subprocess.Popen([sys.executable, "-c", CALLING, told], stderr=subprocess.DEVNULL) as parent:
        try:
            assert becomes((tmp_path / "begun").exists)
            started = children(parent.pid)
        finally:
            parent.kill()
    assert len(started) >= 2
    assert becomes(lambda: not any(map(is_there, started)))
    assert (tmp_path / "ended").exists()
