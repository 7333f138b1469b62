"""The history of a view: rows are added, corrected, validated; nothing else gets in."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from features.contract import Contract, ContractError, Feature
from features.homes import home_contract, write_home_contract
from features.offline import offline_path, read_view, used_views, write_view

MONDAY = datetime(2026, 11, 2, tzinfo=UTC)
TUESDAY = MONDAY + timedelta(days=1)
AGE = Feature(name="age", type="number", origin="profile", max_age=1.0)
REGION = Feature(name="region", type="category", origin="profile", max_age=1.0, categories=("north",))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_home_contract(tmp_path, Contract((AGE, REGION)))
    return tmp_path


def rows(*entries, **replaced) -> pa.Table:
    """A table from (customer, moment, age, region)."""
    names = ["customer_id", "event_timestamp", "age", "region"]
    columns = {name: pa.array([entry[i] for entry in entries]) for i, name in enumerate(names)}
    return pa.table({name: column for name, column in (columns | replaced).items() if column is not None})


def test_two_who_write_at_once_lose_nothing(home):
    """Each of them reads what is there and puts all of it back."""
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(write_view, home, "profile", rows((f"c{n}", MONDAY, n, "north"))) for n in range(24)]
        for one in done:
            one.result()
    assert sorted(read_view(home, "profile")["age"].to_pylist()) == [float(n) for n in range(24)]


def test_rows_are_added_to_the_history_and_the_last_word_on_a_moment_counts(home):
    """The same customer at the same moment is a correction; another moment is history."""
    write_view(home, "profile", rows(("b", MONDAY, 1, "north"), ("a", MONDAY, 2, None)))
    write_view(home, "profile", rows(("b", TUESDAY, 3, "north"), ("a", MONDAY, None, "north")))
    assert [tuple(row.values()) for row in read_view(home, "profile").to_pylist()] == [
        ("a", MONDAY, None, "north"), ("b", MONDAY, 1.0, "north"), ("b", TUESDAY, 3.0, "north"),
    ]  # fmt: skip
    assert [path.name for path in offline_path(home, "profile").parent.iterdir()] == ["profile.parquet"]


def test_columns_may_come_in_any_order_and_any_width(home):
    """Whole numbers, dictionaries, empty columns and moments of another zone are what people have."""
    table = pa.table(
        {
            "region": pa.array(["north", None]).dictionary_encode(),
            "age": pa.nulls(2),
            "event_timestamp": pa.array([MONDAY, TUESDAY], pa.timestamp("ns", "America/New_York")),
            "customer_id": pa.array(["a", "b"], pa.large_string()),
        }
    )
    write_view(home, "profile", table)
    read = read_view(home, "profile")
    assert read.schema.types == [pa.string(), pa.timestamp("us", "UTC"), pa.float64(), pa.string()]
    assert read["event_timestamp"].to_pylist() == [MONDAY, TUESDAY]


def test_a_view_that_nobody_wrote_is_empty_with_its_columns(home):
    """Readers need no special case."""
    assert read_view(home, "profile").num_rows == 0
    assert read_view(home, "profile").column_names == ["customer_id", "event_timestamp", "age", "region"]
    assert used_views(home_contract(home)) == ("profile",)


def test_a_feature_added_since_is_missing_in_what_was_written_before(home):
    """Adding a feature needs no migration."""
    write_view(home, "profile", rows(("a", MONDAY, 1, "north")))
    write_home_contract(home, Contract((AGE, REGION, Feature(name="tenure", type="number", origin="profile", max_age=1.0))))
    assert read_view(home, "profile").to_pylist()[0] == {
        "customer_id": "a", "event_timestamp": MONDAY, "age": 1.0, "region": "north", "tenure": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("replaced", "problem"),
    [
        ({"age": None}, "got without `age` - at `profile`"),
        ({"shoe_size": pa.array([1])}, "got unknown `shoe_size` - at `profile`"),
        ({"age": pa.array(["old"])}, r"Expected `double`, got `string` - at `profile\.age`"),
        ({"region": pa.array([7])}, r"Expected `string`, got `int64` - at `profile\.region`"),
        ({"age": pa.array([[1]])}, r"Expected `double`, got `list<"),
        ({"event_timestamp": pa.array([MONDAY.replace(tzinfo=None)])}, "a moment with its time zone"),
        ({"event_timestamp": pa.array(["yesterday"])}, "a moment with its time zone, got `string`"),
        (
            {"customer_id": pa.array([None], pa.string())},
            r"Expected a value in every row, got 1 nulls - at `profile\.customer_id`",
        ),
        ({"event_timestamp": pa.nulls(1, pa.timestamp("us", "UTC"))}, r"1 nulls - at `profile\.event_timestamp`"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_column_and_nothing_is_written(home, replaced, problem):
    """Expected, found, where; and the history stays what it was."""
    with pytest.raises(ContractError, match=problem):
        write_view(home, "profile", rows(("a", MONDAY, 1, "north"), **replaced))
    assert not offline_path(home, "profile").exists()


def test_a_view_without_features_is_refused_naming_those_that_have_some(home):
    """A misspelt view must not become a file that nobody reads."""
    with pytest.raises(ContractError, match=r"Expected a view with features \(`profile`\), got `activity`"):
        write_view(home, "activity", rows(("a", MONDAY, 1, "north")))
