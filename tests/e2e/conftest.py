"""A real server on a trained home, over a real Redis that Feast filled."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from features.materialize import materialize
from service.registry import Registry
from training.demo.running import RunningServer, running_server
from training.promotion import promote_without_evidence

DATABASE = "?db=2"  # its own: nobody empties it


@pytest.fixture(scope="session")
def filled_redis(shared_redis_url: str, trained_home: Path) -> str:
    """The shop's customers, by Feast."""
    url = shared_redis_url + DATABASE
    materialize(trained_home, url)
    return url


@pytest.fixture
def serving_home(own_home: Path) -> Path:
    """A home whose one bundle serves."""
    promote_without_evidence(own_home, Registry(own_home / "registry").bundles()[0], "for a test")
    return own_home


@pytest.fixture
def server(serving_home: Path, filled_redis: str) -> Iterator[RunningServer]:
    with running_server(serving_home, filled_redis) as running:
        yield running


@pytest.fixture
def nextbest() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line, in a process of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "service.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)

    return run


@pytest.fixture
def short_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nb-") as folder:
        yield Path(folder)
