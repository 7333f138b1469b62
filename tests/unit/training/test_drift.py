"""Whether new rows look like old ones: the index as its formula, chance that raises no alarm, and a shift that does."""

import math

import numpy as np
import pyarrow as pa
import pytest

from training.drift import DriftReport, drift, stability_index


def table(chance, rows: int, *, mean: float = 0.0, mobile: float = 0.5) -> pa.Table:
    """A number, another one that is sometimes missing, and a category."""
    spend = chance.normal(mean, 1.0, rows)
    age = np.where(chance.random(rows) < 0.1, np.nan, chance.normal(40, 10, rows))
    device = np.where(chance.random(rows) < mobile, "mobile", "desktop")
    return pa.table({"spend": spend, "age": pa.array(age, from_pandas=True), "device": device.tolist()})


def names(found: DriftReport) -> list[str]:
    return [one.column for one in found.shifted]


def test_the_index_is_its_formula():
    """Two bins, three quarters and a half."""
    wanted = 0.25 * math.log(0.75 / 0.5) + (-0.25) * math.log(0.25 / 0.5)
    assert stability_index(np.array([0.5, 0.5]), np.array([0.75, 0.25])) == pytest.approx(wanted)


def test_rows_of_the_same_world_raise_no_alarm():
    """100 pairs of a thousand and five hundred rows."""
    chance = np.random.default_rng(0)
    alarms = sum(bool(drift(table(chance, 1000), table(chance, 500), seed).reasons) for seed in range(100))
    assert alarms <= 1


def test_few_rows_are_not_a_shift_because_their_bins_are_uneven():
    """The index of 30 rows is large by chance alone; what chance explains is no shift."""
    chance = np.random.default_rng(1)
    found = drift(table(chance, 1000), table(chance, 30))
    assert max(one.index for one in found.columns) > 0.1
    assert not found.shifted


def test_a_shift_names_its_column_and_rows_can_be_told_apart():
    """The one that moved, and no other."""
    chance = np.random.default_rng(2)
    found = drift(table(chance, 2000), table(chance, 2000, mean=1.0))
    assert names(found) == ["spend"]
    assert found.auc > 0.7
    assert found.p < 1e-6
    assert any("`spend` has moved" in reason for reason in found.reasons)


@pytest.mark.parametrize("now", [0.0, 3.0, 7.1], ids=["gone", "less", "more"])
def test_an_input_that_was_nearly_always_the_same_and_is_something_else_is_a_shift(now):
    """Nineteen of twenty were 7: its tenths are one value, which has a bin of its own."""
    then = np.where(np.arange(2000) % 20 == 0, 0.0, 7.0)
    found = drift(pa.table({"amount": then}), pa.table({"amount": np.full(2000, now)}))
    assert names(found) == ["amount"]
    same = drift(pa.table({"amount": then}), pa.table({"amount": then[::-1]}))
    assert same.columns[0].index == 0.0


def test_customers_are_not_told_apart_by_heart():
    """300 who came then and 300 others who come now, with ten rows each: who has seen half of somebody's rows knows the rest."""
    chance = np.random.default_rng(5)
    who = np.array([f"c{n}" for n in range(600)])
    some = pa.table({f"x{column}": chance.normal(size=600) for column in range(4)})
    parts = [np.repeat(np.arange(300), 10), np.repeat(np.arange(300, 600), 10)]
    then, now = (some.take(pa.array(part)) for part in parts)
    assert drift(then, now).auc > 0.9
    assert drift(then, now, customers=(who[parts[0]], who[parts[1]])).auc < 0.6


@pytest.mark.parametrize(
    ("column", "value"), [("device", ["watch"] * 400), ("age", [None] * 400)], ids=["an unknown category", "missing throughout"]
)
def test_a_category_that_nobody_knew_and_a_column_that_is_gone_are_shifts(column, value):
    """No index is infinite."""
    chance = np.random.default_rng(3)
    now = table(chance, 400)
    spoiled = now.set_column(now.column_names.index(column), column, pa.array(value, now[column].type))
    found = drift(table(chance, 1000), spoiled)
    assert names(found) == [column]
    assert all(math.isfinite(one.index) for one in found.columns)


def test_no_rows_are_an_error():
    """Expected and found."""
    with pytest.raises(ValueError, match="got 10 and 0"):
        drift(table(np.random.default_rng(0), 10), table(np.random.default_rng(0), 0))
