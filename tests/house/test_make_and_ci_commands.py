import os
import re
import shutil
import subprocess

import pytest


@pytest.fixture
def make(root, tmp_path):
    """Runs make in a copy of what an installation reads, so that no real environment is touched."""
    if shutil.which("make") is None:
        pytest.skip("make is not on the path: install it")
    shutil.copy(root / "Makefile", tmp_path)
    shutil.copy(root / "pyproject.toml", tmp_path)
    shutil.copytree(root / "requirements", tmp_path / "requirements")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "PYTHON"}

    def run(*arguments):
        return subprocess.run(["make", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_an_old_python_is_refused_with_what_was_expected_and_found(make, tmp_path):
    """Nothing is installed with a Python that is too old; the message says which one was tried."""
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = make("install", f"PYTHON={old}")
    assert done.returncode == 2
    assert f"Expected Python 3.11 or newer, found Python 3.9.1 - at PYTHON={old}" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_alone_lists_every_target(make, root):
    """A target without a line in the list would not be found by a stranger."""
    [declared] = re.findall(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), re.MULTILINE)
    assert sorted(line.split()[1] for line in make().stdout.splitlines()) == sorted(declared.split())


def test_a_changed_setting_of_a_tool_does_not_need_a_new_environment(make, tmp_path):
    """Only a changed lock does: pyproject.toml is newer than the stamps here, and the long step is left out."""
    stamps = [tmp_path / ".venv" / name for name in ("locked", "installed")]
    stamps[0].parent.mkdir()
    for stamp in stamps:
        stamp.touch()
    later = stamps[0].stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    planned = make("--dry-run", "install").stdout
    assert "--editable ." in planned
    assert "--require-hashes" not in planned
    os.utime(tmp_path / "requirements" / "dev.txt", (later, later))
    assert "--require-hashes" in make("--dry-run", "install").stdout


def test_the_one_command_of_ci_can_be_executed_and_checks_before_it_tests(root):
    """CI does what the README tells people to do, in that order, and stops at the first failure."""
    script = root / ".ci" / "run"
    lines = script.read_text().splitlines()
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in lines
    assert [line for line in lines if line.startswith("make ")] == ["make check", "make test"]
