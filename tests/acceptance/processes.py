"""Starting the project's own commands the way a person would: from a clean environment, with everything they print kept."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.row import NotRun

OURS = ("NEXTBEST_", "MAKE", "PYTEST_", "PROMETHEUS_")  # variables that would make a child behave as this process does
TAIL = 600  # characters of output that an error quotes


class Finished(NamedTuple):
    """A command that came to its end."""

    code: int
    seconds: float
    output: str

    @property
    def tail(self) -> str:
        return self.output[-TAIL:].strip()


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment without this project's settings, this virtual environment, and make's own variables."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "ROW", "OUT", "AREA", "ARGS", "MFLAGS"):
        kept.pop(name, None)
    return {**kept, **extra}


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str], limit: float) -> Finished:
    """Run to the end, output and errors together. Raises NotRun past `limit` seconds."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotRun(f"`{' '.join(command)}` did not end within {limit:.0f} s") from error
    return Finished(done.returncode, time.monotonic() - started, done.stdout)


def run_or_not(command: Sequence[str], folder: Path, environment: Mapping[str, str], limit: float) -> Finished:
    """Like `run`, for preparations: raises NotRun where the command fails."""
    done = run(command, folder, environment, limit)
    if done.code != 0:
        raise NotRun(f"`{' '.join(command)}` ended with exit code {done.code}: {done.tail}")
    return done


def nextbest(*arguments: str) -> list[str]:
    """The command line of `nextbest` under this interpreter."""
    return [sys.executable, "-m", "service.cli", *arguments]
