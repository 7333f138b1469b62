"""`python -m tests.acceptance AREA`: exit code 0 where every row of the area holds. Reads ROW, OUT and SEED."""

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.acceptance.row import Context
from tests.acceptance.runner import all_hold, markdown_table, run_rows, text_table

ROOT = Path(__file__).resolve().parents[2]
AREA = "\nROWS = ["  # what a module here that is an area says


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """ROW=2,4 runs some rows; OUT=FILE writes the table as Markdown too; SEED=n replaces the seed 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance")
    parser.add_argument("area", choices=areas())
    area = parser.parse_args(arguments).area
    rows = importlib.import_module(f"tests.acceptance.{area}").ROWS
    only = {int(number) for number in environment.get("ROW", "").split(",") if number.strip()}
    seed = int(environment.get("SEED") or 0)
    with tempfile.TemporaryDirectory(prefix="nextbest-accept-") as scratch:
        results = run_rows(rows, Context(ROOT, Path(scratch), seed, _tell), only)
    print(text_table(results, seed))
    if environment.get("OUT"):
        Path(environment["OUT"]).write_text(markdown_table(results, seed))
    return 0 if all_hold(results) else 1


def areas() -> list[str]:
    """The areas that have a module here."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if AREA in path.read_text())


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
