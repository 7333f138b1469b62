"""Values and timestamps as protobuf writes them, without protobuf: against Feast's and Google's own messages."""

import math

import pytest
from feast.protos.feast.types.Value_pb2 import Null, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from features.protobuf import MalformedValue, decode_timestamp, decode_value, encode_timestamp, encode_value

int32, int64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
TAGS = (0x12, 0x18, 0x20, 0x29, 0x35, 0x38, 0x98)
messages = st.one_of(
    st.builds(Value, double_val=st.floats(allow_nan=False)),
    st.builds(Value, float_val=st.floats(width=32, allow_nan=False)),
    st.builds(Value, int32_val=int32),
    st.builds(Value, int64_val=int64),
    st.builds(Value, bool_val=st.booleans()),
    st.builds(Value, string_val=st.text()),
)


@given(messages)
def test_every_value_that_feast_writes_is_read_as_feast_reads_it(message):
    """Numbers and booleans become floats, text stays text."""
    expected = getattr(message, message.WhichOneof("val"))
    expected = expected if isinstance(expected, str) else float(expected)
    assert decode_value(message.SerializeToString()) == expected


def test_nothing_and_null_are_missing_and_nan_stays_nan():
    """Feast writes a missing value as an empty message; newer writers may say null."""
    assert decode_value(Value().SerializeToString()) is None
    assert decode_value(Value(null_val=Null.NULL).SerializeToString()) is None
    assert math.isnan(decode_value(Value(double_val=math.nan).SerializeToString()))


@given(st.none() | st.floats(allow_nan=False) | st.text())
def test_what_we_write_feast_reads(value):
    """The same bytes as Feast's own message, so nobody can tell who wrote them."""
    expected = Value() if value is None else Value(string_val=value) if isinstance(value, str) else Value(double_val=value)
    assert encode_value(value) == expected.SerializeToString(deterministic=True)
    assert decode_value(encode_value(value)) == value


@given(st.integers(-(10**15), 10**16))
def test_a_moment_is_written_and_read_as_google_does(microseconds):
    """Moments before 1970 included: nanoseconds count forward."""
    message = Timestamp()
    message.FromMicroseconds(microseconds)
    assert encode_timestamp(microseconds) == message.SerializeToString(deterministic=True)
    assert decode_timestamp(message.SerializeToString()) == message.seconds + message.nanos / 1e9


@given(st.binary(min_size=1, max_size=24) | st.builds(lambda tag, rest: bytes((tag,)) + rest, st.sampled_from(TAGS), st.binary()))
def test_bytes_that_are_no_value_are_refused_or_read_as_protobuf_reads_them(raw):
    """Either our error, or the value that the reference sees: never garbage, never another exception."""
    try:
        value = decode_value(raw)
    except MalformedValue:
        return
    message = Value.FromString(raw)
    kind = message.WhichOneof("val")
    expected = None if kind in (None, "null_val") else getattr(message, kind)
    assert repr(value) == repr(float(expected) if isinstance(expected, int | float) else expected)  # NaN equals itself here


@pytest.mark.parametrize(
    "raw", [b"\x29\x00", b"\x12\x05ab", b"\x12\x02\xff\xfe", b"\x20", b"\x20" + b"\xff" * 11, b"\x52\x00", b"\x20\x01\x20\x02"]
)
def test_torn_and_foreign_bytes_are_named(raw):
    """Cut numbers and strings, text that is no UTF-8, endless numbers, lists, two values at once."""
    with pytest.raises(MalformedValue, match="Expected"):
        decode_value(raw)


@pytest.mark.parametrize("raw", [b"\x08", b"\x08\xff", b"\x12\x00", b"junk"])
def test_bytes_that_are_no_moment_are_named(raw):
    """A value without a believable age must not pass as fresh."""
    with pytest.raises(MalformedValue, match="Expected"):
        decode_timestamp(raw)
