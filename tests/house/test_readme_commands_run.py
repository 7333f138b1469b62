"""A block of shell under the comment `<!-- runs -->` in a Markdown page is run here, in a home of its own."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli import COMMANDS

HOUSE = Path(__file__).resolve().parents[2]
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").rglob("*.md")), *sorted((HOUSE / "features").glob("*.md"))]
SHELL = re.compile(r"^```sh\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
RUNS = re.compile(r"^<!-- runs -->\n```sh\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(pattern):
    return [
        pytest.param(found["code"], id=f"{page.relative_to(HOUSE)}-{number}")
        for page in PAGES
        if page.exists()
        for number, found in enumerate(pattern.finditer(page.read_text()), 1)
    ]


@pytest.fixture
def shell(tmp_path):
    """Runs shell code as a reader would: in a checkout, with `nextbest` on the path. What it writes is gone afterwards."""
    checkout, command = tmp_path / "checkout", tmp_path / "bin" / "nextbest"
    checkout.mkdir()
    for entry in HOUSE.iterdir():
        if entry.name not in (".nextbest", "mine", "world"):
            (checkout / entry.name).symlink_to(entry)
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m service.cli "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join([str(command.parent), os.environ["PATH"]])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NEXTBEST_")}
    environment |= {"PATH": path, "PYTHONPATH": str(HOUSE)}

    def run(code):
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code], cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_the_readme_exists_and_marks_commands_that_run():
    """A stranger finds a page, and at least one block in it is proven."""
    assert RUNS.search((HOUSE / "README.md").read_text())


@pytest.mark.timeout(300)  # a dozen commands, each a process that imports: 45 s, and 100 on a busy machine
@pytest.mark.parametrize("code", blocks(RUNS))
def test_a_marked_block_runs(shell, code):
    """What a page shows with the mark works as it stands."""
    done = shell(code)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("code", blocks(SHELL))
def test_every_command_that_a_page_shows_exists(code):
    """A `make` target or a `nextbest` command named in a page is there."""
    targets = set(re.findall(r"^([a-z]+):", (HOUSE / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^\s*make ([a-z]+)", code, re.MULTILINE)) <= targets
    assert set(re.findall(r"^\s*nextbest ([a-z]+)", code, re.MULTILINE)) <= set(COMMANDS)


def test_a_block_that_fails_is_noticed(shell):
    """The first failing command of a block ends it with its exit code."""
    assert shell("nextbest no-such-command\ntrue").returncode == 2
