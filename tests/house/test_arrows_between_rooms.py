import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("service", "features", "training")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copied_house(root, tmp_path):
    for room in ROOMS:
        shutil.copytree(root / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


def test_no_room_imports_against_the_arrows(root):
    """Every contract of import-linter in pyproject.toml is kept."""
    done = lint_imports(root)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("service/decision/entities.py", "import time"),
        ("service/decision/entities.py", "import service.pipeline"),
        ("service/errors.py", "import training"),
        ("features/vectors.py", "import service.errors"),
        ("training/__init__.py", "import service.pipeline"),
        ("service/bundles/manifest.py", "import onnx"),
    ],
)
def test_an_import_against_the_arrows_is_found(copied_house, module, forbidden):
    """The guard itself is guarded: one wrong import in a copy of the house breaks a contract."""
    path = copied_house / module
    path.write_text(f"{path.read_text()}\n{forbidden}\n")
    done = lint_imports(copied_house)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout
