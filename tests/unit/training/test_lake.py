"""The lake: one file for each day and import, replaced as a whole, read oldest day first."""

import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.lake import imported_rows, read_tables, write_by_day

MONDAY = dt.datetime(2026, 11, 2, 23, 30, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
MOMENT = pa.timestamp("us", tz="UTC")
moments = st.datetimes(dt.datetime(1902, 1, 2), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001  # the zone is drawn


def rows(*moments: dt.datetime, start: int = 0) -> pa.Table:
    """Numbered rows at these moments."""
    return pa.table({"n": pa.array(range(start, start + len(moments))), "at": pa.array(moments, MOMENT)})


def numbers(home, kind="decisions") -> list[list[int]]:
    return [table["n"].to_pylist() for table in read_tables(home, kind)]


def test_rows_lie_in_the_folder_of_their_day_in_utc(tmp_path):
    """Half an hour before and after midnight are two days, whatever the clock on the wall says."""
    there = dt.timezone(-5 * HOUR)
    written = write_by_day(tmp_path, "decisions", "a", rows(MONDAY, MONDAY + HOUR, MONDAY.astimezone(there)), "at")
    assert written == ["decisions/date=2026-11-02/a.parquet", "decisions/date=2026-11-03/a.parquet"]
    assert numbers(tmp_path) == [[0, 2], [1]]


def test_the_oldest_day_is_read_first_whenever_it_was_written(tmp_path):
    """Order is that of what happened, not of imports."""
    write_by_day(tmp_path, "decisions", "a", rows(MONDAY), "at")
    write_by_day(tmp_path, "decisions", "b", rows(MONDAY - 400 * 24 * HOUR, start=1), "at")
    assert numbers(tmp_path) == [[1], [0]]


def test_writing_again_under_the_same_name_replaces_and_under_another_adds(tmp_path):
    """A repeated import leaves one copy, and nothing half written."""
    for start in (0, 5):
        write_by_day(tmp_path, "decisions", "a", rows(MONDAY, start=start), "at")
    write_by_day(tmp_path, "decisions", "b", rows(MONDAY, start=7), "at")
    assert numbers(tmp_path) == [[5], [7]]
    assert {path.suffix for path in (tmp_path / "lake" / "decisions").rglob("*") if path.is_file()} == {".parquet"}


def test_decisions_and_outcomes_lie_apart_and_an_empty_lake_has_neither(tmp_path):
    """Readers need no special case."""
    assert numbers(tmp_path) == []
    write_by_day(tmp_path, "outcomes", "a", rows(MONDAY), "at")
    assert (numbers(tmp_path), numbers(tmp_path, "outcomes")) == ([], [[0]])


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_an_import_that_lacks_a_day_has_fewer_rows_than_it_should(tmp_path, lost):
    """That is how an interrupted one is told from a complete one."""
    assert imported_rows(tmp_path, "a") == 0
    write_by_day(tmp_path, "decisions", "b", rows(MONDAY), "at")
    written = write_by_day(tmp_path, "decisions", "a", rows(MONDAY, MONDAY + 24 * HOUR, MONDAY + 25 * HOUR), "at")
    for name in written[:lost]:
        (tmp_path / "lake" / name).unlink()
    assert imported_rows(tmp_path, "a") == 3 - lost


@settings(max_examples=15)
@given(st.lists(moments, min_size=1, max_size=6))
def test_every_row_is_in_the_lake_once(tmp_path_factory, moments):
    """Whatever the days, no row is lost and none is doubled; days come in order."""
    home = tmp_path_factory.mktemp("lake")
    write_by_day(home, "decisions", "a", rows(*moments), "at")
    found = numbers(home)
    assert sorted(n for table in found for n in table) == list(range(len(moments)))
    days = [[f"{moments[n]:%Y-%m-%d}" for n in table] for table in found]
    assert [table[0] for table in days] == sorted({d for table in days for d in table})
