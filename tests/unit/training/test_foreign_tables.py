"""Foreign tables: what is read from any kind of file, what a column may hold, and every row that does not fit."""

import csv
import datetime as dt
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ImportInvalid
from training.tables import MISSING, Columns, absent_columns, read_table

CSV = "who,code,n\nu1,007,1\nu2,7,NA\n"
TABLE = pa.table({"who": ["u1", "u2"], "code": ["007", "7"], "n": [1, None]})
MONDAY = dt.datetime(2026, 11, 2, 9, tzinfo=dt.UTC)
NEW_YORK = pa.timestamp("s", "America/New_York")
finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=12).filter(lambda text: text not in MISSING)
moments = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001  # the zone is drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tables")


def written(path: Path, content: bytes | str | pa.Table) -> Path:
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def columns(values, kind=None) -> Columns:
    """One column `x`, as it came from a file."""
    return Columns(pa.table({"x": pa.array(values, kind)}), "t.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", CSV),
        ("windows.csv", b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()),
        ("t.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("t.parquet", TABLE),
        ("t.pq", TABLE),
    ],
)
def test_a_table_is_the_same_in_any_kind_of_file(folder, name, content):
    """The name of the file says what it is; compression and line ends do not matter."""
    assert read_table(written(folder / name, content), ["code"]).equals(TABLE)


def test_a_column_of_a_csv_gets_the_type_it_looks_like_unless_it_is_wanted_as_text(folder):
    """`007` and `7` are one number and two names."""
    path = written(folder / "codes.csv", CSV)
    assert read_table(path)["code"].to_pylist() == [7, 7]
    assert read_table(path, ["code", "no such column"])["code"].to_pylist() == ["007", "7"]


def test_what_people_write_for_nothing_is_missing_in_a_csv_text_or_number(folder):
    """Empty, NA, NULL and nan are no values."""
    rows = "".join(f"{nothing},{nothing},1\n" for nothing in MISSING)
    read = Columns(read_table(written(folder / "missing.csv", f"n,k,x\n1,k,1\n{rows}"), ["k"]), "missing.csv")
    assert read.number("n").to_pylist() == [1.0] + [None] * len(MISSING)
    assert read.text("k").to_pylist() == ["k"] + [None] * len(MISSING)
    assert read.problems == []


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.csv", "", "Empty CSV file"),
        ("ragged.csv", "a,b\n1,2\n3\n", "Row #3: Expected 2 columns, got 1: 3"),
        ("latin.csv", b"k,n\nx,1\ncaf\xe9,2\n", "Row #3: CSV conversion error to string: invalid UTF8 data"),
        ("plain.csv.gz", CSV, "incorrect header check"),
        ("torn.csv.gz", gzip.compress(CSV.encode() * 100, mtime=0)[:-20], "Truncated compressed stream"),
        ("text.parquet", CSV, "not a parquet file"),
    ],
)
def test_a_file_that_is_no_table_says_so_with_its_row_where_there_is_one(folder, name, content, expected):
    """Rows of the file are counted with its header, as an editor shows them."""
    with pytest.raises(ImportInvalid) as caught:
        read_table(written(folder / name, content), ["k"])
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name}: Expected a table (.csv, .csv.gz, .parquet), got something else: ")
    assert expected in problem


def test_a_table_that_is_not_there_is_named_with_its_path(folder):
    """A folder is no table either."""
    for path in (folder / "none.csv", folder):
        with pytest.raises(ImportInvalid) as caught:
            read_table(path)
        assert caught.value.problems == (f"Expected a table, found none - at `{path}`",)


def test_a_column_that_is_not_there_is_told_with_those_that_are(folder):
    """What for, too; a column that is there twice is as bad as none, since nobody knows which is meant."""
    table = read_table(written(folder / "twice.csv", "a,b,b\n1,2,3\n"))
    assert absent_columns(table, {"a": "log.a"}, "twice.csv") == []
    assert absent_columns(table, {"c": "log.c", "b": "log.b"}, "twice.csv") == [
        "Expected a column of `twice.csv` (a, b, b), got `c` - at `log.c`",
        "Expected a column of `twice.csv` (a, b, b), got `b` twice - at `log.b`",
    ]


def test_names_of_columns_in_another_encoding_are_refused(folder):
    """They cannot be shown, let alone found."""
    table = read_table(written(folder / "header.csv", b"a,caf\xe9\n1,2\n"))
    with pytest.raises(ImportInvalid, match=r"header\.csv: Expected names of columns in UTF-8, got something else: 'utf-8'"):
        absent_columns(table, {"a": "log.a"}, "header.csv")


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None], pa.int32(), [1.0, None]),
        ([0.5, None], pa.float32(), [0.5, None]),
        ([True, False, None], None, [1.0, 0.0, None]),
        (["1.5", " 2 ", None], None, [1.5, 2.0, None]),
        (["1e3"], pa.large_string(), [1000.0]),
        (["3", "3"], pa.dictionary(pa.int8(), pa.string()), [3.0, 3.0]),
        ([None, None], pa.null(), [None, None]),
        ([], pa.string(), []),
    ],
)
def test_numbers_come_in_any_width_as_truths_or_as_text(values, kind, expected):
    """They leave as float64; what is missing stays missing."""
    read = columns(values, kind)
    assert read.number("x").equals(pa.array(expected, pa.float64()))
    assert read.problems == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "x"], "t.csv: row 2: Expected a finite number, got `x` - in column `x`"),
        (["1", "inf"], "t.csv: row 2: Expected a finite number, got `inf` - in column `x`"),
        ([None, float("inf")], "t.csv: row 2: Expected a finite number, got `inf` - in column `x`"),
        ([1.0, float("nan")], "t.csv: row 2: Expected a finite number, got `nan` - in column `x`"),
        ([dt.date(2026, 1, 31)] * 2, "t.csv: Expected numbers, got date32[day] - in column `x`"),
    ],
)
def test_what_is_no_finite_number_is_a_problem_with_its_row(values, expected):
    """Rows are counted from 1; a column of another kind is one problem, not one for each row."""
    read = columns(values)
    assert len(read.number("x")) == len(values)
    assert read.problems == [expected]


def test_three_rows_stand_for_all_that_have_the_same_problem():
    """A million bad rows are not a million lines."""
    read = columns(["1", *"abcde"])
    read.number("x")
    assert [p.split(": ")[1] for p in read.problems] == ["row 2", "row 3", "row 4", "... and 2 more such rows in column `x`"]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["a", None, ""], None, ["a", None, ""]),
        ([7, None], None, ["7", None]),
        ([7.0, None, 12_345_678_901.0], None, ["7", None, "12345678901"]),
        ([7.0, 7.5], None, ["7", "7.5"]),
        ([1e300], None, ["1e+300"]),
        ([True, None], None, ["true", None]),
        (["a", None], pa.dictionary(pa.int8(), pa.string()), ["a", None]),
        ([dt.date(2026, 1, 31)], None, ["2026-01-31"]),
        ([None], pa.null(), [None]),
        ([], pa.float64(), []),
    ],
)
def test_categories_may_look_like_numbers(values, kind, expected):
    """A whole number that a missing value turned into a float is written without its `.0`."""
    read = columns(values, kind)
    assert read.text("x").equals(pa.array(expected, pa.string()))
    assert read.problems == []


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([7.0, float("inf")], None, "t.csv: row 2: Expected a value, got `inf` - in column `x`"),
        ([float("nan")], None, "t.csv: row 1: Expected a value, got `nan` - in column `x`"),
        (["a", None], None, "t.csv: row 2: Expected a value, got `None` - in column `x`"),
        (["a", ""], None, "t.csv: row 2: Expected a value, got `` - in column `x`"),
        ([b"caf\xe9"], None, "t.csv: Expected texts, got binary: Invalid UTF8 payload - in column `x`"),
        ([["a"]], None, "t.csv: Expected texts, got list<"),
    ],
)
def test_what_is_no_text_where_one_is_required_is_a_problem(values, kind, expected):
    """Missing and empty are the same to whoever needs a name."""
    read = columns(values, kind)
    assert len(read.text("x", required=True)) == len(values)
    (problem,) = read.problems
    assert problem.startswith(expected)


@pytest.mark.parametrize(("value", "fits"), [("a b", True), ("ü" * 128, True), ("x" * 129, False), ("a\tb", False), ("", False)])
def test_an_identifier_is_a_text_that_a_catalog_takes(value, fits):
    """What the log calls an action, the catalog must be able to call it too."""
    read = columns(["fine", value, None])
    read.identifier("x", required=False)
    expected = f"t.csv: row 2: Expected a text of 1 to 128 characters, none a control character, got `{value}` - in column `x`"
    assert read.problems == [] if fits else [expected]


def test_an_identifier_that_is_required_may_not_be_missing():
    """Something was shown, so it has a name."""
    read = columns(["fine", None])
    read.identifier("x")
    assert "row 2: Expected a text of 1 to 128 characters, none a control character, got `None`" in read.problems[0]


@pytest.mark.parametrize(
    ("read", "right", "wrong", "expected"),
    [
        (Columns.probability, [1.0, 0.001], [0.0, -0.1, 1.1, None], "a probability above 0 and at most 1"),
        (Columns.binary, [0, 1, None], [2, 0.5, -1], "0 or 1 for a binary outcome"),
        (Columns.slot, [1, 3], [0, -1, 1.5, None, 1e12], "a slot, counted from 1"),
    ],
)
def test_numbers_that_mean_something_keep_within_their_bounds(read, right, wrong, expected):
    """Each value out of bounds is a problem with its row; what may be missing may be."""
    fine = columns(right)
    assert read(fine, "x").to_pylist() == right
    assert fine.problems == []
    for value in wrong:
        spoiled = columns([*right, value], pa.float64())
        read(spoiled, "x")
        got = None if value is None else float(value)
        assert spoiled.problems == [f"t.csv: row {len(right) + 1}: Expected {expected}, got `{got}` - in column `x`"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["2026-11-02T09:00:00Z"], None),
        (["2026-11-02T04:00:00-05:00"], None),
        (["2026-11-02 09:00:00"], pa.large_string()),
        (["2026-11-02T09:00:00.000000000"], pa.dictionary(pa.int8(), pa.string())),
        ([MONDAY.replace(tzinfo=None)], pa.timestamp("ns")),
        ([MONDAY], NEW_YORK),
        ([round(MONDAY.timestamp())], None),
        ([MONDAY.timestamp()], None),
    ],
)
def test_a_moment_is_the_same_in_any_form(values, kind):
    """Text or time without a zone is UTC; a number is seconds since 1970."""
    read = columns(values, kind)
    assert read.moment("x").equals(pa.array([MONDAY], pa.timestamp("us", "UTC")))
    assert read.problems == []


@pytest.mark.parametrize(
    ("values", "kind"), [([MONDAY.date()], pa.date32()), ([MONDAY.date()], pa.date64()), (["2026-11-02"], None)]
)
def test_a_date_is_its_first_moment_in_utc(values, kind):
    """A log by day is a log."""
    assert columns(values, kind).moment("x").to_pylist() == [MONDAY.replace(hour=0)]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("soon", None), ("31/01/2026", None), ("", None), (None, pa.string()), (None, pa.null()), (None, pa.timestamp("us")),
        (float("nan"), None), (float("inf"), None), (-1, None), (round(MONDAY.timestamp() * 1000), None),
    ],
)  # fmt: skip
def test_what_is_no_time_is_a_problem_with_its_row(value, kind):
    """Milliseconds are taken for what they are: not the year 58,000."""
    read = columns([value], kind)
    assert len(read.moment("x")) == 1
    assert read.problems == [
        f"t.csv: row 1: Expected a time such as `2026-01-31T09:00:00Z`, or seconds since 1970, got `{value}` - in column `x`"
    ]


@pytest.mark.parametrize("values", [[True], [[1]], [dt.time(9)]])
def test_a_column_of_another_kind_holds_no_times(values):
    """One problem names what the column holds."""
    read = columns(values)
    assert len(read.moment("x")) == 1
    assert read.problems == [f"t.csv: Expected times, got {read.table['x'].type} - in column `x`"]


@settings(max_examples=25)
@given(st.lists(st.tuples(names, finite), min_size=1, max_size=5))
def test_whatever_is_written_to_a_csv_is_read_back(folder, rows):
    """Any name and any number survive the file: quotes, commas, leading zeros and the last digit."""
    with (folder / "any.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "number"), *rows])
    read = Columns(read_table(folder / "any.csv", ["name"]), "any.csv")
    assert read.identifier("name").to_pylist() == [name for name, _ in rows]
    assert read.number("number").to_pylist() == [number for _, number in rows]
    assert read.problems == []


@settings(max_examples=25)
@given(st.lists(moments, min_size=1, max_size=5))
def test_any_moment_is_read_to_the_microsecond_from_text(moments):
    """ISO 8601 with or without its zone."""
    for texts in ([m.isoformat() for m in moments], [m.replace(tzinfo=None).isoformat(" ") for m in moments]):
        assert columns(texts).moment("x").to_pylist() == moments


@settings(max_examples=25)
@given(st.lists(st.none() | st.booleans() | st.integers(-(2**60), 2**60) | finite | st.text(max_size=6), min_size=1, max_size=4))
def test_nonsense_of_any_shape_is_a_problem_and_never_a_crash(values):
    """Each way to read a column gives as many values as there are rows, whatever it holds."""
    for read in (
        Columns.number,
        Columns.text,
        Columns.identifier,
        Columns.binary,
        Columns.slot,
        Columns.probability,
        Columns.moment,
    ):
        for column in (pa.array([None if v is None else str(v) for v in values]), *(pa.array([v]) for v in values)):
            assert len(read(Columns(pa.table({"x": column}), "t.csv"), "x")) == len(column)
