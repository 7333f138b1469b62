"""What the tests of the house share: where it stands, and which files belong to it."""

import shutil
import subprocess
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return HOUSE


@pytest.fixture(scope="session")
def tracked(root: Path) -> list[Path]:
    """Every file that git knows."""
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("the tracked files are listed by git: install git and work in a clone")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [path for name in names.split("\0") if name and (path := root / name).is_file()]
