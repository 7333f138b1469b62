"""Row 6: the habits of the code, counted by a script from outside, beside the ranges of codebases people admire."""

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.processes import clean_environment, run_or_not
from tests.acceptance.row import Context, Measured, NotRun, Row

LINE = re.compile(r"^(?P<name>\S.*?)\s{2,}(?P<found>[\d.]+).*anchors: (?P<range>[\d.]+(?: to [\d.]+)?)")


class Figure(NamedTuple):
    """One habit: what was counted, and the most that an admired codebase shows."""

    name: str
    found: float
    most: float


def measure(context: Context) -> Measured:
    script = Path(os.environ.get("HOUSE") or context.root.parent / "shared" / "tools" / "house.py")
    if not script.is_file():
        raise NotRun("there is no script to count with: set HOUSE to the path of house.py")
    done = run_or_not([sys.executable, str(script), "."], context.root, clean_environment(), limit=120)
    return judged(figures(done.output))


def figures(output: str) -> list[Figure]:
    """The lines of the script's table."""
    found = [LINE.match(line) for line in output.splitlines()]
    return [Figure(m["name"], float(m["found"]), float(m["range"].split(" to ")[-1])) for m in found if m]


def judged(counted: list[Figure]) -> Measured:
    """No figure may lie above its range; below it is no fault, since each counts something that readers stumble over."""
    if not counted:
        raise NotRun("the script printed no figure that could be read")
    over = [figure for figure in counted if figure.found > figure.most]
    listed = ", ".join(f"{figure.name} {figure.found:g} (at most {figure.most:g})" for figure in over)
    return Measured(f"{len(counted) - len(over)} of {len(counted)} within{': above: ' + listed if over else ''}", not over)


ROW = Row(6, "the house, counted", "no figure above the range of the admired codebases", measure)
