"""The log on disk: what is acknowledged is there, whatever happens to the writer."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import textwrap

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.decision.records import DecisionRecord, OutcomeRecord, Versions, encode_line
from service.errors import LogUnavailable
from service.ports import Acknowledgement, LogStatus, Position
from service.stores.id_index import id_of
from service.stores.segment_log import SegmentLog
from service.stores.segments import read_segments, segment_paths
from tests.acceptance.disks import FailingFiles


def decision(name: str, customer: str = "c1") -> DecisionRecord:
    return DecisionRecord(name, customer, 1e9, {}, {}, (), Versions(1, None, "x"), ())


def outcome(name: str, decision_id: str = "d1") -> OutcomeRecord:
    return OutcomeRecord(name, decision_id, "click", 1e9, 1e9)


def ids_on_disk(folder) -> list[str]:
    return [id_of(line.payload, "decision_id") for line in read_segments(folder / "decisions") if line.payload]


async def test_what_is_acknowledged_can_be_read_back(tmp_path):
    """Every record, in order, whole."""
    log = SegmentLog(tmp_path)
    await asyncio.gather(
        *(log.append_decisions([log.entry(decision(f"d{i}")), log.entry(decision(f"e{i}"))]) for i in range(100))
    )
    await log.append_outcomes([outcome("o1")])
    await log.close()
    assert ids_on_disk(tmp_path) == [f"{letter}{i}" for i in range(100) for letter in "de"]
    [line] = read_segments(tmp_path / "outcomes")
    assert msgspec.json.decode(line.payload, type=OutcomeRecord) == outcome("o1")


async def test_a_full_segment_is_followed_by_another(tmp_path):
    """Nothing is lost at the seam."""
    log = SegmentLog(tmp_path, segment_bytes=500)
    for i in range(20):
        await log.append_decisions([log.entry(decision(f"d{i}"))])
    await log.close()
    assert len(segment_paths(tmp_path / "decisions")) > 3
    assert ids_on_disk(tmp_path) == [f"d{i}" for i in range(20)]


class Forgetful(FailingFiles):
    """Notes what it was told to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: list[str] = []

    def forget(self, path) -> None:
        self.forgotten.append(path.name)
        super().forget(path)


async def test_of_full_segments_the_last_stays_in_memory(tmp_path):
    """Those before it are forgotten once each, and one that is not full never; a refusal loses nothing."""
    files = Forgetful()
    files.fail("forget", errno.EIO)
    log = SegmentLog(tmp_path, segment_bytes=500, files=files)
    for i in range(20):
        await log.append_decisions([log.entry(decision(f"d{i}"))])
    await log.close()
    written = [path.name for path in segment_paths(tmp_path / "decisions")]
    full = [name for name in written if (tmp_path / "decisions" / name).stat().st_size >= 500]
    assert len(full) > 3
    assert files.forgotten == full[:-1]
    assert ids_on_disk(tmp_path) == [f"d{i}" for i in range(20)]


async def test_a_new_process_knows_what_the_old_one_wrote(tmp_path):
    """Duplicates and decisions are recognised after a restart, from what is on disk."""
    first = SegmentLog(tmp_path)
    await first.append_decisions([first.entry(decision("d1"))])
    await first.append_outcomes([outcome("a")])
    await first.close()
    second = SegmentLog(tmp_path)
    assert await second.append_outcomes([outcome("a"), outcome("b")]) == Acknowledgement(1, 1, 0)
    await second.close()


async def test_a_decision_of_another_process_is_no_orphan(tmp_path):
    """Workers share the folder: a decision that one made is known to the other when its outcome arrives."""
    mine, theirs = SegmentLog(tmp_path), SegmentLog(tmp_path)
    await theirs.append_decisions([theirs.entry(decision("theirs"))])
    assert await mine.append_outcomes([outcome("a", "theirs")]) == Acknowledgement(1, 0, 0)
    await mine.close()
    await theirs.close()


async def test_a_full_queue_refuses_at_once_and_recovers(tmp_path):
    """More than may wait is not accepted to wait; when the disk has caught up, all goes on."""
    log = SegmentLog(tmp_path, queue_bytes=1000)
    with pytest.raises(LogUnavailable, match="keep up"):
        await log.append_decisions([log.entry(decision(f"d{i}")) for i in range(100)])
    await log.append_decisions([log.entry(decision("small"))])
    await log.close()
    assert ids_on_disk(tmp_path) == ["small"]


async def test_a_folder_that_cannot_be_written_acknowledges_nothing_until_it_can(tmp_path):
    """A file stands where the folder should be; when it is gone, the next append succeeds, also for the same outcome id."""
    (tmp_path / "log").write_text("in the way")
    os.truncate(tmp_path / "log", 0)
    good = SegmentLog(tmp_path / "free")
    log = SegmentLog(tmp_path / "log")
    with pytest.raises(LogUnavailable):
        await log.append_decisions([log.entry(decision("d1"))])
    with pytest.raises(LogUnavailable):
        await log.append_outcomes([outcome("a")])
    (tmp_path / "log").unlink()
    assert await log.append_outcomes([outcome("a")]) == Acknowledgement(1, 0, 1)
    await log.close()
    await good.close()


WRITES_UNTIL_FULL = """
    import asyncio, resource, signal, sys
    from pathlib import Path
    from service.decision.records import DecisionRecord, Versions
    from service.errors import LogUnavailable
    from service.stores.segment_log import SegmentLog

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))

    async def main():
        log = SegmentLog(Path(sys.argv[1]))
        refused = 0
        for i in range(40):
            try:
                await log.append_decisions([log.entry(DecisionRecord(f"d{i}", "c", 1.0, {}, {}, (), Versions(1, None, "x"), ()))])
                print(f"d{i}", flush=True)
            except LogUnavailable:
                refused += 1
        print(refused, file=sys.stderr)
        await log.close()

    asyncio.run(main())
"""


def test_a_write_that_the_disk_cuts_short_is_not_acknowledged_and_ends_the_segment(tmp_path):
    """The kernel refuses a file beyond 2,000 bytes: that append fails, the next one opens a new segment."""
    command = [sys.executable, "-c", textwrap.dedent(WRITES_UNTIL_FULL), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    acknowledged = done.stdout.split()
    assert int(done.stderr) >= 2
    assert len(segment_paths(tmp_path / "decisions")) in (int(done.stderr), int(done.stderr) + 1)
    assert set(acknowledged) <= set(ids_on_disk(tmp_path))
    assert len(acknowledged) + int(done.stderr) == 40


WRITES_FOR_EVER = """
    import asyncio, sys
    from pathlib import Path
    from service.decision.records import DecisionRecord, Versions
    from service.stores.segment_log import SegmentLog

    async def main():
        log = SegmentLog(Path(sys.argv[1]))
        async def write(name):
            for i in range(1_000_000):
                record = DecisionRecord(f"{name}-{i}", "c", 1.0, {}, {}, (), Versions(1, None, "x"), ())
                await log.append_decisions([log.entry(record)])
                print(f"{name}-{i}", flush=True)
        await asyncio.gather(*(write(f"{sys.argv[2]}-{n}") for n in range(4)))

    asyncio.run(main())
"""


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path):
    """Ten processes, each killed without warning in the middle of writing: every acknowledged id is on disk."""
    acknowledged = []
    for round_number in range(10):
        command = [sys.executable, "-c", textwrap.dedent(WRITES_FOR_EVER), str(tmp_path), str(round_number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = [process.stdout.readline() for _ in range(20 + 7 * round_number)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
    assert len(acknowledged) > 400
    assert set(acknowledged) <= set(ids_on_disk(tmp_path))


async def test_a_caller_who_leaves_does_not_undo_the_write(tmp_path):
    """The outcome is on disk and known, although nobody waited for the acknowledgement."""
    log = SegmentLog(tmp_path)
    task = asyncio.create_task(log.append_outcomes([outcome("a")]))
    await asyncio.sleep(0)
    task.cancel()
    assert await log.append_outcomes([outcome("a")]) == Acknowledgement(0, 1, 0)
    await log.close()


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12), st.data())
@settings(max_examples=50)
def test_a_damaged_segment_keeps_every_record_that_the_damage_does_not_touch(tmp_path_factory, names, data):
    """One changed byte anywhere in the file is noticed, and costs at most the record that it is in."""
    folder = tmp_path_factory.mktemp("damaged")
    whole = bytearray(b"".join(encode_line(msgspec.json.encode(decision(n))) for n in names))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "one.log").write_bytes(whole)
    lines = list(read_segments(folder))
    assert any(line.payload is None for line in lines)
    assert sum(line.payload is not None for line in lines) >= len(names) - 1


@given(st.text(min_size=1))
def test_an_id_is_found_without_reading_the_record(name):
    """Also where JSON has to escape it."""
    assert id_of(msgspec.json.encode(decision(name)), "decision_id") == name
    assert id_of(msgspec.json.encode(outcome(name)), "outcome_id") == name


async def test_another_process_knows_an_id_as_soon_as_it_is_on_disk(tmp_path):
    """A retry may reach another worker: outcomes and events that one wrote are duplicates to the other."""
    mine, theirs = SegmentLog(tmp_path), SegmentLog(tmp_path)
    assert await mine.append_outcomes([outcome("a")]) == Acknowledgement(1, 0, 1)
    assert await theirs.append_outcomes([outcome("a"), outcome("b")]) == Acknowledgement(1, 1, 1)
    assert await mine.append_outcomes([outcome("b")]) == Acknowledgement(0, 1, 0)
    await mine.close()
    await theirs.close()


async def test_after_a_failed_sync_nothing_is_acknowledged_on_that_segment_again(tmp_path):
    """The sync fails once: that append is refused, and the next one goes to another file."""
    files = FailingFiles()
    log = SegmentLog(tmp_path, files=files)
    await log.append_decisions([log.entry(decision("before"))])
    files.fail("sync", errno.EIO)
    with pytest.raises(LogUnavailable):
        await log.append_decisions([log.entry(decision("refused"))])
    files.heal()
    await log.append_decisions([log.entry(decision("after"))])
    await log.close()
    first, second = segment_paths(tmp_path / "decisions")
    assert [b'"after"' in path.read_bytes() for path in (first, second)] == [False, True]
    assert log.status().failures == 1
    assert ids_on_disk(tmp_path) == ["before", "after"]


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_what_the_disk_refused_is_in_no_segment(tmp_path, operation):
    """Whoever reads it would take it for written; only where the disk refuses to cut it off, too, it may stay."""
    files = FailingFiles()
    log = SegmentLog(tmp_path, files=files)
    await log.append_decisions([log.entry(decision("before"))])
    [path] = segment_paths(tmp_path / "decisions")
    written = path.read_bytes()
    files.fail(operation, errno.EIO)
    with pytest.raises(LogUnavailable, match=f"injected into {operation}"):
        await log.append_decisions([log.entry(decision("refused")), log.entry(decision("too"))])
    assert path.read_bytes() == written
    files.heal()
    await log.append_decisions([log.entry(decision("again"))])
    files.fail(operation, errno.EIO)
    files.fail("cut", errno.EIO)
    with pytest.raises(LogUnavailable, match=f"injected into {operation}"):
        await log.append_decisions([log.entry(decision("refused"))])
    assert len(segment_paths(tmp_path / "decisions")[-1].read_bytes()) > len(written)
    await log.close()


@pytest.mark.parametrize("operation", ["sync_folder", "write", "sync"])
async def test_a_disk_that_refuses_everything_leaves_no_files(tmp_path, operation):
    """The segment that holds what was acknowledged stays, and after all refusals there is one more."""
    files = FailingFiles()
    log = SegmentLog(tmp_path, files=files)
    await log.append_outcomes([outcome("before")])
    for failing in ("write", operation):
        files.heal()
        files.fail(failing, errno.ENOSPC)
        for _ in range(10):
            with pytest.raises(LogUnavailable, match=f"injected into {failing}"):
                await log.append_outcomes([outcome("refused")])
    assert len(segment_paths(tmp_path / "outcomes")) == 1
    files.heal()
    assert await log.append_outcomes([outcome("refused")]) == Acknowledgement(1, 0, 1)
    await log.close()
    assert len(segment_paths(tmp_path / "outcomes")) == 2
    again = SegmentLog(tmp_path)
    assert await again.append_outcomes([outcome("before"), outcome("refused")]) == Acknowledgement(0, 2, 0)
    await again.close()


@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.parametrize("is_looked_at", [False, True])
async def test_what_the_disk_refused_one_worker_is_no_duplicate_to_another(tmp_path, is_looked_at, is_alone):
    """Also where the other one has read it before the disk refused it, and where nothing else was in its segment."""
    files = FailingFiles()
    theirs, mine = SegmentLog(tmp_path, files=files), SegmentLog(tmp_path)
    await (mine if is_alone else theirs).append_outcomes([outcome("before")])
    files.fail("sync", errno.EIO)
    files.stall("sync", 0.3)
    refused = asyncio.create_task(theirs.append_outcomes([outcome("a")]))
    if is_looked_at:
        await asyncio.sleep(0.1)
        assert await mine.append_outcomes([outcome("b")]) == Acknowledgement(1, 0, 1)
    with pytest.raises(LogUnavailable):
        await refused
    assert await mine.append_outcomes([outcome("a"), outcome("before")]) == Acknowledgement(1, 1, 1)
    files.heal()
    assert await theirs.append_outcomes([outcome("a")]) == Acknowledgement(0, 1, 0)
    await theirs.close()
    await mine.close()


async def test_what_another_worker_wrote_is_on_disk_before_it_is_a_duplicate(tmp_path):
    """Whoever is told so syncs it, beside the loop; where the disk refuses, nobody is told."""
    files, slow = FailingFiles(), FailingFiles()
    theirs, mine = SegmentLog(tmp_path, files=slow), SegmentLog(tmp_path, files=files)
    slow.stall("sync", 1.0)
    writing = asyncio.create_task(theirs.append_outcomes([outcome("a")]))
    await asyncio.sleep(0.3)
    files.fail("sync", errno.EIO)
    with pytest.raises(LogUnavailable, match="another process"):
        await mine.append_outcomes([outcome("a")])
    files.heal()
    files.stall("sync", 0.1)
    telling = asyncio.create_task(mine.append_outcomes([outcome("a")]))
    await asyncio.sleep(0.02)
    assert (files.counts["sync"], telling.done()) == (2, False)
    assert await telling == Acknowledgement(0, 1, 0)
    assert not writing.done()
    await writing
    await theirs.close()
    await mine.close()


async def test_one_id_that_is_told_twice_while_another_segment_is_synced_is_written_once(tmp_path):
    """Between that sync and the write nobody else begins one."""
    theirs, mine = SegmentLog(tmp_path), SegmentLog(tmp_path)
    await theirs.append_outcomes([outcome("theirs")])
    both = await asyncio.gather(*(mine.append_outcomes([outcome("theirs"), outcome("new")]) for _ in range(2)))
    assert sorted(one.accepted for one in both) == [0, 1]
    await theirs.close()
    await mine.close()


async def test_the_interval_mode_acknowledges_before_the_sync_and_syncs_within_the_window(tmp_path):
    """Its status says so; nothing is synced at once, and everything at the latest when the window ends."""
    files = FailingFiles()
    log = SegmentLog(tmp_path, files=files, interval_s=0.05)
    await log.append_decisions([log.entry(decision("d1"))])
    written, synced = (tmp_path / "decisions").iterdir(), files.counts["sync"]
    assert (synced, len(list(written)), ids_on_disk(tmp_path)) == (0, 1, ["d1"])
    await asyncio.sleep(0.3)
    assert files.counts["sync"] == 1
    assert (log.status().mode, log.status().loss_window_ms) == ("interval", 50.0)
    await log.close()


@pytest.mark.parametrize("also", [[], ["sync"]], ids=["the sync holds", "it is refused, too"])
async def test_in_the_interval_mode_a_disk_that_fills_up_is_synced_before_the_segment_ends(tmp_path, also):
    """What was acknowledged on it is not left to a power loss; once, whatever comes of it, and the next append has a new file."""
    files = FailingFiles()
    log = SegmentLog(tmp_path, files=files, interval_s=60.0)
    await log.append_decisions([log.entry(decision("acknowledged"))])
    assert files.counts["sync"] == 0
    for operation in ["write", *also]:
        files.fail(operation, errno.ENOSPC)
    with pytest.raises(LogUnavailable, match="injected into write"):
        await log.append_decisions([log.entry(decision("refused"))])
    assert (files.counts["sync"], log.status().failures) == (1, 1)
    files.heal()
    await log.append_decisions([log.entry(decision("after"))])
    await log.close()
    assert ids_on_disk(tmp_path) == ["acknowledged", "after"]
    assert len(segment_paths(tmp_path / "decisions")) == 2


async def test_the_default_mode_has_no_loss_window_and_says_where_it_stands(tmp_path):
    """The status names the open segment of each kind that was written to, and its length."""
    log = SegmentLog(tmp_path)
    await log.append_decisions([log.entry(decision("d1"))])
    [path] = segment_paths(tmp_path / "decisions")
    assert log.status() == LogStatus("fsync", 0.0, 0, 0, {"decisions": Position(path.name, path.stat().st_size)})
    await log.close()
