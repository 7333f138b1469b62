"""The few protobuf messages that Feast keeps in Redis, read and written without protobuf.

`feast.types.Value` is one field or none: `string_val` 2, `int32_val` 3, `int64_val` 4, `double_val` 5, `float_val` 6,
`bool_val` 7, `null_val` 19. `google.protobuf.Timestamp` is `seconds` 1 and `nanos` 2, left out where zero. Wire format:
https://protobuf.dev/programming-guides/encoding
"""

import struct
from functools import lru_cache

from features.contract import ContractError

STRING, INT32, INT64, DOUBLE, FLOAT, BOOL, NULL = 0x12, 0x18, 0x20, 0x29, 0x35, 0x38, 0x98
INTEGERS = (INT32, INT64, BOOL)
HALF, WHOLE = 1 << 31, 1 << 32
NULL_VALUE = b"\x98\x01\x00"  # null_val = 0; Feast itself writes a missing value as no field at all
SECONDS, NANOS = 0x08, 0x10
LONGEST_VARINT = 10  # bytes

_double = struct.Struct("<Bd")
_float = struct.Struct("<Bf")


class MalformedValue(ContractError):
    """Bytes in Redis are not what Feast writes."""


@lru_cache(maxsize=4096)  # what comes here is mostly categories, which are few: 0.1 us where decoding takes 1
def decode_value(raw: bytes) -> float | str | None:
    """A `feast.types.Value`: numbers and booleans as float, missing as None. Raises MalformedValue."""
    if len(raw) == _double.size and raw[0] == DOUBLE:
        return float(_double.unpack(raw)[1])
    if not raw or raw == NULL_VALUE:
        return None
    if raw[0] == STRING:
        return _string(raw)
    if len(raw) == _float.size and raw[0] == FLOAT:
        return float(_float.unpack(raw)[1])
    if raw[0] in INTEGERS:
        value, end = read_varint(raw, 1)
        if end == len(raw):
            return _whole(raw[0], value)
    raise MalformedValue(f"Expected a number, a string or nothing as Feast writes it, got {raw[:40]!r}")


def encode_value(value: float | str | None) -> bytes:
    """A `feast.types.Value` as Feast would write a Float64 or String."""
    if value is None:
        return b""
    if isinstance(value, str):
        text = value.encode()
        return bytes((STRING,)) + _encode_varint(len(text)) + text
    return _double.pack(DOUBLE, value)


@lru_cache(maxsize=4096)  # customers materialised together share their moment: 0.1 us where decoding takes 1.5
def decode_timestamp(raw: bytes) -> float:
    """A `Timestamp` as seconds since 1970 UTC. Raises MalformedValue."""
    position, seconds, nanos = 0, 0, 0
    while position < len(raw):
        tag = raw[position]
        value, position = read_varint(raw, position + 1)
        if tag == SECONDS:
            seconds = value
        elif tag == NANOS:
            nanos = value
        else:
            raise MalformedValue(f"Expected a timestamp, got {raw[:40]!r}")
    return seconds + nanos / 1e9


def encode_timestamp(microseconds: int) -> bytes:
    """A `Timestamp` from microseconds since 1970 UTC."""
    seconds, rest = divmod(microseconds, 1_000_000)
    fields = ((SECONDS, seconds), (NANOS, rest * 1000))
    return b"".join(bytes((tag,)) + _encode_varint(value) for tag, value in fields if value)


def _whole(kind: int, value: int) -> float:
    """A 64-bit number as its field's type: protobuf cuts an int32 to its lower half, and any bool but 0 is true."""
    if kind == BOOL:
        return float(value != 0)
    return float((value + HALF) % WHOLE - HALF if kind == INT32 else value)


def _string(raw: bytes) -> str:
    length, start = read_varint(raw, 1)
    if start + length != len(raw):
        raise MalformedValue(f"Expected a string of {length} bytes, got {len(raw) - start}: {raw[:40]!r}")
    try:
        return raw[start:].decode()
    except UnicodeDecodeError as error:
        raise MalformedValue(f"Expected UTF-8, got {raw[start:][:40]!r}") from error


def read_varint(raw: bytes, position: int) -> tuple[int, int]:
    """A signed 64-bit number and the position after it."""
    value = shift = 0
    for end in range(position, min(position + LONGEST_VARINT, len(raw))):
        byte = raw[end]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  # the highest bit says that more follows
            value &= (1 << 64) - 1
            return value - (1 << 64) if value >> 63 else value, end + 1
        shift += 7
    raise MalformedValue(f"Expected a whole number, got {raw[:40]!r}")


def _encode_varint(value: int) -> bytes:
    rest = value & ((1 << 64) - 1)
    out = bytearray()
    while rest > 0x7F:  # noqa: PLR2004  # seven bits a byte
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)
