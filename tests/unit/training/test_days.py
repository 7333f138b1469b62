"""Days and moments of a command line."""

import argparse

import pytest

from training.days import end_of, start_of

DAY = 86_400.0


@pytest.mark.parametrize("text", ["2026-11-24", "20261124", "2026-W48-2", "2026W482"])
def test_a_day_is_whole_however_it_is_spelt(text):
    """From its beginning until its end."""
    assert start_of(text) == start_of("2026-11-24T00:00:00Z")
    assert end_of(text) - start_of(text) == DAY


@pytest.mark.parametrize("text", ["2026-11-24T00:00:00Z", "20261124T000000", "2026-11-24T01:00+01:00", "2026-11-24T00"])
def test_a_moment_is_a_moment_also_as_an_end(text):
    """In UTC where it has no zone."""
    assert end_of(text) == start_of(text) == start_of("2026-11-24")


@pytest.mark.parametrize("text", ["yesterday", "2026-11-31", "24.11.2026", ""])
def test_what_is_neither_is_refused_with_an_example(text):
    """As argparse tells it."""
    with pytest.raises(argparse.ArgumentTypeError, match="Expected a day like 2026-11-24"):
        end_of(text)
