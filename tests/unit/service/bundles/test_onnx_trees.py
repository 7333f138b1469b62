"""An ONNX model is read from its bytes as the onnx package reads it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import helper

from features.protobuf import MalformedValue
from service.bundles.onnx_trees import LEAF, MODES, MOST_AT_ONCE, _attribute

small = st.lists(st.integers(0, 300), min_size=1, max_size=60)
any_size = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2**22), min_size=1, max_size=20)
floats = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20)
texts = st.lists(st.sampled_from((LEAF, *MODES, "LEA", "LEAFY", "é", "")), min_size=1, max_size=20)


@given(values=small | any_size | floats | texts)
@example(values=[7] * (2 * MOST_AT_ONCE + 1))
@example(values=[0.5] * (MOST_AT_ONCE + 1))
@example(values=[*MODES, LEAF] * MOST_AT_ONCE)
def test_a_list_is_what_was_written(values):
    """Numbers of any size, alone and many in a row, and words that only begin like one that is known."""
    attribute = helper.make_attribute("these", values)
    assert _attribute(attribute.SerializeToString()) == ("these", values)


@pytest.mark.parametrize("values", [[1, 2, 300_000], [0.5, 0.25], [LEAF, LEAF]], ids=["numbers", "floats", "words"])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_list_that_was_cut_is_refused_or_shorter(values, cut):
    """Never a number that nobody wrote."""
    attribute = helper.make_attribute("these", values)
    attribute.ClearField("type")  # which is written last
    data = attribute.SerializeToString()
    try:
        _, found = _attribute(data[:-cut])
    except MalformedValue:
        found = []
    assert found == values[: len(found)]
    assert len(found) < len(values)
