"""Looking a decision up in the segments of the log."""

import msgspec

from service.decision.records import DecisionRecord, Versions, encode_line
from service.stores.decisions import find_decision


def test_a_segment_that_is_removed_while_others_are_searched_is_passed_over(tmp_path):
    """Listed, and gone when it is to be read, as a name that leads nowhere: sealed and removed by another process."""
    record = DecisionRecord("d1", "c1", 1e9, {}, {}, (), Versions(1, None, "x"))
    (tmp_path / "1-a-1.log").write_bytes(encode_line(msgspec.json.encode(record)))
    (tmp_path / "2-a-2.log").symlink_to(tmp_path / "removed")
    assert find_decision(tmp_path, "d1") == record
    assert find_decision(tmp_path, "d2") is None
