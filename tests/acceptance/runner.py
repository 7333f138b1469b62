"""Runs rows one after the other and draws the table. A row that raises is `not run`, and counts as failed."""

import textwrap
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

from tests.acceptance.row import Context, NotRun, Row

HOLDS, FAILS, NOT_RUN = "holds", "FAILS", "not run"
HEADINGS = ("row", "what", "figure", "bar", "verdict", "seed")
WIDTHS = (3, 36, 52, 36, 7, 4)  # characters; longer text wraps


class Result(NamedTuple):
    """A row and what became of it."""

    row: Row
    figure: str
    verdict: str
    seconds: float

    def cells(self, seed: int) -> tuple[str, ...]:
        return (str(self.row.number), self.row.name, self.figure, self.row.bar, self.verdict, str(seed))


def run_rows(rows: Sequence[Row], context: Context, only: Collection[int] = ()) -> list[Result]:
    """One result per row, in order; `only`: the numbers to run, all where empty."""
    return [_run(row, context) if not only or row.number in only else _left_out(row) for row in rows]


def all_hold(results: Sequence[Result]) -> bool:
    """Whether every row ran and holds; an empty table shows nothing and does not."""
    return bool(results) and all(result.verdict == HOLDS for result in results)


def text_table(results: Sequence[Result], seed: int) -> str:
    """The table for a terminal."""
    lines = [_wrapped(HEADINGS), "  ".join("-" * width for width in WIDTHS)]
    return "\n".join([*lines, *(_wrapped(result.cells(seed)) for result in results)])


def markdown_table(results: Sequence[Result], seed: int) -> str:
    """The table for a page."""
    rows = [HEADINGS, ("---",) * len(HEADINGS), *(result.cells(seed) for result in results)]
    return "".join("| " + " | ".join(_in_one_line(cell) for cell in row) + " |\n" for row in rows)


def _run(row: Row, context: Context) -> Result:
    context.tell(f"row {row.number}: {row.name} ...")
    started = time.monotonic()
    try:
        figure, holds = row.measure(context)
        verdict = HOLDS if holds else FAILS
    except NotRun as reason:
        figure, verdict = str(reason), NOT_RUN
    except Exception as error:  # noqa: BLE001  # whatever a row meets, the other rows are still measured
        figure, verdict = f"{type(error).__name__}: {error}", NOT_RUN
    seconds = time.monotonic() - started
    context.tell(f"row {row.number}: {verdict} after {seconds:.1f} s: {figure}")
    return Result(row, figure, verdict, seconds)


def _left_out(row: Row) -> Result:
    return Result(row, "left out by ROW", NOT_RUN, 0.0)


def _wrapped(cells: Sequence[str]) -> str:
    columns = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, WIDTHS, strict=True)]
    height = max(len(column) for column in columns)
    filled = [column + [""] * (height - len(column)) for column in columns]
    return "\n".join(
        "  ".join(part.ljust(width) for part, width in zip(line, WIDTHS, strict=True)).rstrip()
        for line in zip(*filled, strict=True)
    )


def _in_one_line(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")
