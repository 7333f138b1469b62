import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = ("serving", "training", "dev")
PINNED = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>.*?))? \\$", re.MULTILINE)
TRAINERS = {"feast", "lightgbm", "pandas", "duckdb", "pyarrow", "onnx", "scipy"}
OUTSIDE = {"certifi"}  # requirements/roots.txt says why


def pins(root, lock):
    """(name, version, marker) of every line that pins a package."""
    return {(canonicalize_name(m["name"]), m["version"], m["marker"]) for m in PINNED.finditer(text_of(root, lock))}


def text_of(root, lock):
    return (root / "requirements" / f"{lock}.txt").read_text()


def declared(root, lock):
    """The requirements that pyproject.toml declares for a lock."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    found = [*project["project"]["dependencies"], *extras["tracing"]]
    if lock != "serving":
        found += extras["training"]
    if lock == "dev":
        found += [*extras["mlflow"], *extras["tuning"]]
        found += [line for group in project["dependency-groups"].values() for line in group]
    return [Requirement(line) for line in found]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_locked_file_names_no_address(root, lock):
    """Versions and hashes say what to install; the machine says from where."""
    assert "://" not in text_of(root, lock)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_hash(root, lock):
    """Pip refuses a package whose content differs from what was locked."""
    blocks = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text_of(root, lock), flags=re.MULTILINE).strip())
    assert len(blocks) == len(pins(root, lock))
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_declared_requirement_is_locked_within_its_bounds(root, lock):
    """pyproject.toml and the locks move together: `make lock` after a change."""
    locked = pins(root, lock)
    for requirement in declared(root, lock):
        versions = [version for name, version, _ in locked if name == canonicalize_name(requirement.name)]
        assert versions, requirement
        assert all(requirement.specifier.contains(version, prereleases=True) for version in versions), requirement


def test_the_locks_agree_on_every_version(root):
    """What is tested is what is served: serving is part of training, training is part of dev, version by version."""
    serving, training, dev = ({(name, version) for name, version, _ in pins(root, lock)} for lock in LOCKS)
    assert serving <= training <= dev


def test_the_serving_lock_holds_no_trainer(root):
    """The image of the service stays small, and so does what can be attacked in it."""
    names = {name for name, _, _ in pins(root, "serving")}
    assert "litestar" in names
    assert names.isdisjoint(TRAINERS)


def test_only_root_certificates_stay_outside_of_the_locks(root):
    """Whatever uv left out of a lock is named in requirements/roots.txt, and nothing else is."""
    roots = {line for line in text_of(root, "roots").splitlines() if line and not line.startswith("#")}
    left_out = {
        line.removeprefix("# ")
        for lock in LOCKS
        for line in text_of(root, lock).partition("were excluded from the output:\n")[2].splitlines()
    }
    assert roots == left_out == OUTSIDE
