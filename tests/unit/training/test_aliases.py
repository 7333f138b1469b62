"""Whom an alias leads to is what the newest link says, wherever it was written down."""

import pytest

from service.decision.records import ErasureRecord, IdentityRecord
from training.event_history import read_aliases
from training.live_log import write_segment


@pytest.mark.parametrize("erased", [False, True])
def test_the_newest_link_counts_also_where_it_lies_in_an_older_segment(tmp_path, erased):
    """A service writes on in the segment that it opened before somebody took a link back."""
    links = [IdentityRecord("a", "x", 1.0), IdentityRecord("a", "y", 3.0)]
    write_segment(tmp_path, "identities", "served", links, 1.0)
    write_segment(tmp_path, "identities", "unlink", [IdentityRecord("a", "x", 2.0, linked=False)], 2.0)
    if erased:
        write_segment(tmp_path, "erasures", "test", [ErasureRecord("a", 2.5)], 2.5)
    assert read_aliases(tmp_path) == {"a": "y"}
    write_segment(tmp_path, "identities", "again", [IdentityRecord("a", "y", 4.0, linked=False)], 4.0)
    assert read_aliases(tmp_path) == {}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["a a"], {}),
        (["a b", "b a"], {"a": "b"}),
        (["a b", "b c", "c a"], {"a": "c", "b": "c"}),
        (["a b", "b a", "b c"], {"a": "c", "b": "c"}),
        (["a b", "b a", "x a"], {"a": "b", "x": "b"}),
    ],
)
def test_a_link_that_is_said_the_other_way_round_is_passed_over(tmp_path, said, expected):
    """Whoever it is said of leads to the alias already: a circle has no customer."""
    links = [IdentityRecord(*pair.split(), float(n)) for n, pair in enumerate(said, 1)]
    write_segment(tmp_path, "identities", "served", links, 1.0)
    assert read_aliases(tmp_path) == expected
