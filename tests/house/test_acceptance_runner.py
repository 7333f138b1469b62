import os
import subprocess
import sys

import pytest

from tests.acceptance.processes import Finished
from tests.acceptance.row import Context, Measured, NotRun, Row
from tests.acceptance.rows.fresh_clone import judged as judge_clone
from tests.acceptance.rows.house_figures import figures
from tests.acceptance.rows.house_figures import judged as judge_figures
from tests.acceptance.runner import all_hold, markdown_table, run_rows, text_table


def holding(_context):
    return Measured("42 ms", holds=True)


def failing(_context):
    return Measured("99 ms", holds=False)


def lacking(_context):
    raise NotRun("no data: set DATA")


def raising(_context):
    raise ZeroDivisionError("division by zero")


def row(number, measure):
    return Row(number, f"thing {number}", "<= 50 ms", measure)


@pytest.fixture
def context(tmp_path):
    return Context(tmp_path, tmp_path, 7, lambda _message: None)


def test_a_table_holds_only_where_every_row_holds(context):
    """All green is the one way to exit code 0."""
    assert all_hold(run_rows([row(1, holding), row(2, holding)], context))


@pytest.mark.parametrize(
    ("measure", "verdict", "figure"),
    [
        (failing, "FAILS", "99 ms"),
        (lacking, "not run", "no data: set DATA"),
        (raising, "not run", "ZeroDivisionError: division by zero"),
    ],
)
def test_one_row_that_does_not_hold_fails_the_table_and_leaves_the_others_alone(context, measure, verdict, figure):
    """A failing, a lacking and a raising row each say so, and the row after them is still measured."""
    results = run_rows([row(1, measure), row(2, holding)], context)
    assert [(result.figure, result.verdict) for result in results] == [(figure, verdict), ("42 ms", "holds")]
    assert not all_hold(results)


def test_rows_that_were_left_out_count_as_not_run(context):
    """A part of a table is no proof of the whole."""
    results = run_rows([row(1, holding), row(2, holding)], context, only={2})
    assert [result.verdict for result in results] == ["not run", "holds"]
    assert not all_hold(results)


def test_an_area_without_rows_shows_nothing_and_does_not_hold(context):
    """Nothing measured is nothing proven."""
    assert not all_hold(run_rows([], context))


def test_progress_names_the_row_before_and_after_it_runs(context):
    """Whoever waits sees which row is at work, and what it found."""
    told = []
    run_rows([row(3, holding)], context._replace(tell=told.append))
    assert told[0] == "row 3: thing 3 ..."
    assert told[1].startswith("row 3: holds after")


def test_both_tables_show_what_figure_bar_verdict_and_seed(context):
    """The terminal and the page show the same cells; a bar in a cell does not break the page."""
    results = run_rows([Row(1, "a | b", "<= 50 ms", holding)], context)
    assert all(cell in text_table(results, 7) for cell in ("a | b", "42 ms", "<= 50 ms", "holds", "seed"))
    assert markdown_table(results, 7).splitlines()[-1] == r"| 1 | a \| b | 42 ms | <= 50 ms | holds | 7 |"


def test_the_command_writes_the_table_where_out_says_and_fails_when_rows_are_left_out(root, tmp_path):
    """`ROW` that names no row leaves all out: exit code 1, and a page that says so."""
    page = tmp_path / "table.md"
    environment = {**os.environ, "ROW": "999", "OUT": str(page)}
    command = [sys.executable, "-m", "tests.acceptance", "loop"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "left out by ROW" in page.read_text()


def test_an_unknown_area_is_refused_with_the_known_ones(root):
    """Usage errors have exit code 2 and name what there is."""
    command = [sys.executable, "-m", "tests.acceptance", "moon"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "loop" in done.stderr


def test_the_numbers_of_an_areas_rows_are_distinct(root):
    """Two engineers who add rows notice when they took the same number."""
    code = "from tests.acceptance.loop import ROWS; n = [r.number for r in ROWS]; assert sorted(set(n)) == sorted(n), n"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("demo", "tests", "holds"),
    [
        (Finished(0, 80, ""), Finished(0, 300, ""), True),
        (Finished(1, 80, "boom"), Finished(0, 300, ""), False),
        (Finished(0, 91, ""), Finished(0, 300, ""), False),
        (Finished(0, 80, ""), Finished(0, 361, ""), False),
        (Finished(0, 80, ""), Finished(2, 300, "boom"), False),
    ],
)
def test_a_fresh_clone_holds_where_both_commands_end_well_and_in_time(demo, tests, holds):
    """Exit code and time both count, for the demo and for the tests."""
    assert judge_clone(demo, tests, "").holds is holds


def test_the_counted_house_fails_on_a_figure_above_its_range_and_not_on_one_below():
    """Each figure counts something that readers stumble over: less of it is no fault."""
    below = "median function, lines      3   anchors: 4 to 8"
    above = "broad except, share of handlers      40 % of 5   anchors: 2 to 33 %"
    assert judge_figures(figures(below)).holds
    judged = judge_figures(figures(f"{below}\n{above}\nlongest functions\n  40 x.py"))
    assert not judged.holds
    assert judged.figure == "1 of 2 within: above: broad except, share of handlers 40 (at most 33)"
