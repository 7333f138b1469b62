"""Named values to a matrix: missing, defaults, categories, and one row at a time or all at once."""

import math
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import native
from features.contract import Feature
from features.vectors import UNSEEN, RowEncoder, encode_column, encode_value, vectorize

AGE = Feature(name="age", type="number", origin="profile")
REGION = Feature(name="region", type="category", origin="profile", categories=("north", "south"))
anything = st.none() | st.floats() | st.booleans() | st.integers() | st.sampled_from(["north", "south", "west", ""])


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf, 1e39, "12"])
def test_what_is_no_finite_number_is_missing(missing):
    """NaN without a default, the default where there is one."""
    assert math.isnan(encode_value(AGE, missing))
    with_default = Feature(name="age", type="number", origin="profile", default=40.0)
    assert encode_value(with_default, missing) == 40.0


def test_a_category_is_its_position_and_an_unseen_one_is_told_from_a_missing_one():
    """Unseen has a code of its own; missing is NaN, or the default's code."""
    codes = encode_column(REGION, ["south", "north", "west", None, 3.0])
    assert codes[:3].tolist() == [1.0, 0.0, UNSEEN]
    assert np.isnan(codes[3:]).all()
    assert encode_value(Feature(name="r", type="category", origin="profile", categories=("a", "b"), default="b"), None) == 1.0


def test_columns_stand_in_the_order_of_the_inputs_and_an_absent_one_is_missing_throughout():
    """The order of a model's inputs is the contract's, not the table's."""
    matrix = vectorize([REGION, AGE], {"customer.age": [1, 2.5]}, rows=2)
    assert matrix.dtype == np.float32
    assert np.isnan(matrix[:, 0]).all()
    assert matrix[:, 1].tolist() == [1.0, 2.5]


KIND = Feature(name="kind", type="number", origin="match", matches="customer.region")
PAIR = Feature(
    name="kind", type="number", origin="pair", matches="customer.region", rates={"shoes": {"south": 0.25, "west": 0.5}}
)


def test_a_match_is_worked_out_from_its_two_sides():
    """1, 0, or missing; whatever a column of its own would say."""
    columns = {"customer.region": ["north", "south", "west", None], "action.kind": ["north"] * 4, "match.kind": [7.0] * 4}
    np.testing.assert_array_equal(vectorize([KIND, REGION], columns, 4)[:, 0], [1.0, 0.0, 0.0, np.nan])
    assert np.isnan(vectorize([REGION, KIND], {"customer.region": ["north"]}, 1)[0, 1])


def test_a_pair_is_what_the_manifest_says_of_it():
    """By the names of both sides; missing where it says nothing, or the vocabulary does not hold the category."""
    columns = {"customer.region": ["south", "north", "west", None, "south"], "action.kind": [*["shoes"] * 4, "books"]}
    np.testing.assert_array_equal(vectorize([PAIR, REGION], columns, 5)[:, 0], [0.25, *[np.nan] * 4])


def test_a_match_with_what_is_no_input_is_refused():
    """The model's inputs alone say what it is."""
    with pytest.raises(ValueError, match=r"customer\.region"):
        vectorize([AGE, KIND], {}, 1)


def test_a_column_of_another_length_is_refused():
    """Values must never slide to another customer."""
    with pytest.raises(ValueError, match="broadcast"):
        vectorize([AGE], {"customer.age": [1.0, 2.0, 3.0]}, rows=2)


@given(st.lists(anything, max_size=8))
def test_a_batch_says_what_its_rows_say_one_by_one(values):
    """Live decisions and training share one function; a batch must not change a value."""
    for feature in (AGE, REGION):
        one_by_one = np.array([encode_value(feature, value) for value in values], np.float32)
        np.testing.assert_array_equal(encode_column(feature, values), one_by_one)


@given(st.lists(st.floats(width=32), max_size=8), st.lists(st.sampled_from(["north", "west"]), max_size=8))
def test_an_array_says_what_a_list_says(numbers, names):
    """Training hands in arrays, requests hand in lists."""
    np.testing.assert_array_equal(encode_column(AGE, np.array(numbers, np.float64)), encode_column(AGE, numbers))
    np.testing.assert_array_equal(encode_column(REGION, np.array(names, "U")), encode_column(REGION, names))


DEVICE = Feature(name="device", type="category", origin="context", categories=("mobile", "desktop"), default="desktop")
HOUR = Feature(name="hour", type="number", origin="request_time", default=12.0)
INPUTS = (REGION, HOUR, AGE, DEVICE)
rows = st.fixed_dictionaries({}, optional={feature.name: anything for feature in INPUTS})


@given(st.lists(st.tuples(rows, rows), max_size=5))
def test_rows_say_what_columns_say(told):
    """Live decisions come in rows, training in columns: whatever is missing, too large, unseen or of the wrong type."""
    customers, contexts = [c for c, _ in told], [c for _, c in told]
    of = {
        feature.key: [r.get(feature.name) for r in (customers if feature.scope == "customer" else contexts)] for feature in INPUTS
    }
    for in_c in (None, native.rows):
        found = RowEncoder(INPUTS, rows=in_c).encode(customers, contexts)
        np.testing.assert_array_equal(found, vectorize(INPUTS, of, len(told)))


def test_rows_without_inputs_are_rows():
    """A scorer that reads nothing still answers for everybody."""
    assert RowEncoder([]).encode([{}, {}], [{}, {}]).shape == (2, 0)


def test_what_is_in_c_was_built_where_there_is_a_compiler():
    """Else nobody would notice that rows take five times as long."""
    assert native.rows is not None or not (shutil.which("cc") or shutil.which("gcc"))


@pytest.mark.skipif(native.rows is None, reason="without a compiler there is nothing to call")
@pytest.mark.parametrize("change", [{"names": ()}, {"sources": b""}, {"codes": (None, None)}, {"defaults": 2}, {"out": 3}])
def test_sizes_that_do_not_fit_are_refused(change):
    """What is in C writes nowhere else than it was told."""
    told = {
        "names": ("a",),
        "sources": b"\0",
        "codes": (None,),
        "defaults": 1,
        "customers": [{}, {}],
        "contexts": [{}, {}],
        "out": 2,
    }
    changed = [np.zeros(v, np.float32) if k in ("defaults", "out") else v for k, v in (told | change).items()]
    with pytest.raises(ValueError, match="Expected as much of each input"):
        native.rows.encode(*changed)
