"""The log's lines: what was written is read back, what was damaged is noticed."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from service.decision.decide import decide
from service.decision.records import DecisionRecord, decode_lines, encode_line

PAYLOADS = st.lists(
    st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.text()).map(msgspec.json.encode)
)


@given(PAYLOADS)
def test_lines_are_read_back_as_written(payloads):
    """Order and bytes are kept."""
    data = b"".join(map(encode_line, payloads))
    assert [line.payload for line in decode_lines(data)] == payloads


@given(PAYLOADS.filter(bool), st.data())
def test_a_changed_byte_costs_at_most_the_record_that_it_is_in(payloads, data):
    """No changed byte goes unnoticed, and every other record stays readable; where it was the end of a line, every record."""
    lines = [encode_line(p) for p in payloads]
    whole = bytearray(b"".join(lines))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    read = list(decode_lines(bytes(whole)))
    found = [line.payload for line in read if line.payload is not None]
    assert any(line.payload is None for line in read)
    assert len(found) >= len(payloads) - 1
    remaining = iter(payloads)
    assert all(payload in remaining for payload in found)


@given(PAYLOADS.filter(bool), st.data())
def test_a_torn_tail_is_told_from_damage(payloads, data):
    """A writer that died in the middle of a line leaves a tail without an end; what came before is whole."""
    whole = b"".join(map(encode_line, payloads))
    last = len(encode_line(payloads[-1]))
    cut = data.draw(st.integers(1, last - 1))
    found = list(decode_lines(whole[:-cut]))
    assert [line.payload for line in found[:-1]] == payloads[:-1]
    assert found[-1].torn


def test_a_decision_record_survives_json(tiny):
    """What training reads is what the engine decided, probabilities to the last bit."""
    engine = tiny.engine([tiny.action("a"), tiny.action("b")], tiny.placement(epsilon=0.1), rates={"a": 0.1, "b": 1 / 3})
    [record] = decide(engine, [tiny.request(customer={"age": 1 / 7}, context={"device": "mobile", "vip": True, "x": None})])
    assert msgspec.json.decode(msgspec.json.encode(record), type=DecisionRecord) == record
