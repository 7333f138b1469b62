"""Figures are spelt out as msgspec would, byte for byte, so that records of before and after are the same."""

import math
import shutil

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.decision.figures import IS_BUILT, POWERS, _figures, figures, spelt

in_c = pytest.mark.skipif(not IS_BUILT, reason="without a compiler there is nothing to compare")
doubles = st.floats() | st.floats(0.0, 1.0) | st.floats(width=32) | st.integers(-(2**53), 2**53).map(float)


def row(values) -> bytes:
    """As C spells out one row."""
    values = np.array(values, np.float64)
    return bytes(spelt(values, np.array([len(values)]), in_c=True)[0])


def test_what_was_infinite_reads_back_as_no_number():
    """Records of before may have it among their candidates, and are explained all the same."""
    found = figures(msgspec.Raw(b"[1.5,null]"))
    assert found[0] == 1.5
    assert math.isnan(found[1])


@in_c
@given(values=st.lists(doubles, min_size=1, max_size=20))
def test_c_writes_what_msgspec_writes(values):
    """Of any double, infinite ones and those that are no number among them."""
    assert row(values) == msgspec.json.encode(values)


@in_c
def test_c_writes_what_msgspec_writes_at_the_edges():
    """Powers of two and their neighbours, powers of ten, where one way of writing ends and the other begins, the smallest."""
    twos = 2.0 ** np.arange(-1074, 1024)
    tens = np.array([float(f"{digits}e{power}") for power in range(-323, 309) for digits in ("1", "5", "9.999999999999999")])
    odd = np.array(
        [0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 9007199254740993.0, 2e-44, 9.5e-3, np.nan, np.inf]
    )
    for values in (twos, np.nextafter(twos, 0.0), np.nextafter(twos, np.inf), tens, odd):
        assert row(np.append(values, -values)) == msgspec.json.encode(np.append(values, -values).tolist())


@in_c
def test_c_writes_what_msgspec_writes_of_a_million_doubles():
    """Of any bits; of rates; of what was rounded."""
    chance = np.random.default_rng(0)
    bits = chance.integers(0, 2**64, 400_000, dtype=np.uint64).view(np.float64)
    rates = chance.random(400_000) * 10.0 ** chance.integers(-12, 18, 400_000)
    rounded = np.round(chance.random(200_000) * 1000.0, 3)
    for values in (bits, rates, rounded):
        assert row(values) == msgspec.json.encode(values.tolist())


@pytest.mark.parametrize("native", [pytest.param(True, marks=in_c), False], ids=["in C", "by msgspec"])
@given(rows=st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4), max_size=5))
def test_every_row_is_its_own_array_and_reads_back(native, rows):
    """An empty one is what records leave out."""
    values = np.array([number for one in rows for number in one], np.float64)
    found = spelt(values, np.cumsum([len(one) for one in rows], dtype=np.int64), in_c=native)
    assert [figures(text) for text in found] == [tuple(one) for one in rows]
    assert [text is msgspec.UNSET for text in found] == [not one for one in rows]


@in_c
@pytest.mark.parametrize(
    "changed",
    [
        {"values": np.zeros(1)}, {"values": b"1234567"}, {"ends": np.array([1, 3])}, {"ends": np.array([2, 1])},
        {"ends": b"1234"}, {"ends": np.array([-1, 2])}, {"powers": POWERS[16:]}, {"powers": b""}, {"values": [1.0, 2.0]},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changed):
    """Before anything is read beyond an end."""
    given_ = {"values": np.zeros(2), "ends": np.array([1, 2]), "powers": POWERS}
    assert _figures.spelt(*given_.values()) == [b"[0.0]", b"[0.0]"]
    with pytest.raises((ValueError, TypeError)):
        _figures.spelt(*(given_ | changed).values())


def test_where_there_is_a_compiler_it_was_built():
    """Else nobody would notice that decisions take longer."""
    assert IS_BUILT or not (shutil.which("cc") or shutil.which("gcc"))
