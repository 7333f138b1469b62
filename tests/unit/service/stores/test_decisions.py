"""Looking a decision up in the segments of the log."""

import errno

import msgspec
import pytest

from service.decision.records import DecisionRecord, Versions, encode_line
from service.files import DISK
from service.past import LoggedPast
from service.stores.decisions import find_decision
from service.stores.id_index import make_index
from tests.acceptance.disks import FailingFiles


def test_a_segment_that_is_removed_while_others_are_searched_is_passed_over(tmp_path):
    """Listed, and gone when it is to be read, as a name that leads nowhere: sealed and removed by another process."""
    record = DecisionRecord("d1", "c1", 1e9, {}, {}, (), Versions(1, None, "x"))
    (tmp_path / "1-a-1.log").write_bytes(encode_line(msgspec.json.encode(record)))
    (tmp_path / "2-a-2.log").symlink_to(tmp_path / "removed")
    assert find_decision(tmp_path, "d1") == record
    assert find_decision(tmp_path, "d2") is None


class TakenBack(FailingFiles):
    """A disk that another process finds to refuse what it wrote, while we ask for it."""

    def sync_path(self, path) -> None:
        super().sync_path(path)
        path.write_bytes(b"")


def test_a_decision_that_is_told_again_is_on_disk(tmp_path):
    """What has no index is synced first, and looked for again; where the disk refuses, the decision is not told."""
    record = DecisionRecord("d1", "c1", 1e9, {}, {}, (), Versions(1, None, "x"))
    path, files = tmp_path / "1-a-1.log", FailingFiles()
    path.write_bytes(encode_line(msgspec.json.encode(record)))
    assert find_decision(tmp_path, "d1", files) == record
    assert files.counts["sync"] == 1
    files.fail("sync", errno.EIO)
    with pytest.raises(OSError, match="injected into sync"):
        find_decision(tmp_path, "d1", files)
    assert LoggedPast(lambda name: find_decision(tmp_path, name, files), engines=None).answer_now("d1") is None
    assert find_decision(tmp_path, "d1") == record
    make_index(DISK, path, "decision_id")
    assert find_decision(tmp_path, "d1", files) == record
    path.with_suffix(".ids").unlink()
    assert find_decision(tmp_path, "d1", TakenBack()) is None
