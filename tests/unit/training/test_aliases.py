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
