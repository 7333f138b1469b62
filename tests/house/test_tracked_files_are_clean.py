import ast
import re

import pytest

# The patterns are put together here, so that this file does not hold what it forbids.
MACHINE = re.compile(
    "|".join(
        (
            r"\bpypi" + r"\.(org|python)",
            "pythonhosted" + r"\.org",
            r"--(extra-)?index" + r"-url",
            r"--find" + r"-links",
            r"(?<![\w.~-])/(" + "|".join(("ro" + "ot", "wo" + "rk", "Us" + "ers", "tmp/la" + "b")) + r")/",
            r"(?<![\w.~-])/ho" + r"me/[a-z]+/",
        )
    )
)
UNFINISHED = re.compile("|".join((r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b", r"\bXX" + r"X\b")))
LARGEST = 500_000  # bytes; data belongs elsewhere
ROOMS = ("service", "features", "training", "loadtests")


def lines_with(pattern, paths, root):
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        found += [f"{path.relative_to(root)}:{n}" for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
    return found


def test_no_tracked_file_names_a_package_index_or_a_path_of_one_machine(root, tracked):
    """A clone works anywhere: where packages come from and where folders lie is up to the machine."""
    assert lines_with(MACHINE, tracked, root) == []


def test_no_tracked_file_carries_an_unfinished_mark(root, tracked):
    """What is missing is said in an issue, where somebody sees it, not in a mark."""
    assert lines_with(UNFINISHED, tracked, root) == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (MACHINE, "see /ro" + "ot/x"),
        (MACHINE, "--index" + "-url"),
        (MACHINE, "https://py" + "pi.org/simple"),
        (UNFINISHED, "# TO" + "DO later"),
    ],
)
def test_the_patterns_find_what_they_forbid(tmp_path, pattern, text):
    """Each guard trips on a file that deserves it, and names the line."""
    page = tmp_path / "page.md"
    page.write_text(f"fine\n{text}\n")
    assert lines_with(pattern, [page], tmp_path) == ["page.md:2"]


def test_no_tracked_file_is_larger_than_half_a_megabyte(root, tracked):
    """Data and models are not committed."""
    assert [str(path.relative_to(root)) for path in tracked if path.stat().st_size > LARGEST] == []


def test_every_module_says_what_it_is_for(root):
    """The first thing in a module is a docstring; empty `__init__` files of nested folders need none."""
    modules = [path for room in ROOMS for path in (root / room).rglob("*.py") if path.stat().st_size]
    silent = [str(path.relative_to(root)) for path in modules if not ast.get_docstring(ast.parse(path.read_text()))]
    assert modules
    assert silent == []
