"""`nextbest log`: what people read, and the exit code that scripts read."""

import asyncio
from itertools import islice

from service.cli import main
from service.decision.records import EventRecord
from service.stores.segment_log import SegmentLog
from training.tailing import follow, latest


def fill(home, *names: str) -> None:
    async def write() -> None:
        log = SegmentLog(home / "log", segment_bytes=300)
        for name in names:
            await log.append_events([EventRecord(name, "c1", "viewed", "web", 1e9, 1e9)])
        await log.close()

    asyncio.run(write())


def test_verify_names_the_file_the_byte_and_the_reason_and_fails(tmp_path, capsys):
    """One flipped bit; a sound log ends with 0."""
    fill(tmp_path, "a", "b")
    assert main(["--home", str(tmp_path), "log", "verify"]) == 0
    assert "2 records in 1 segments, 0 torn tails" in capsys.readouterr().out
    [path] = (tmp_path / "log" / "events").glob("*.log")
    data = bytearray(path.read_bytes())
    second = data.index(b"\n") + 1
    data[second + 30] ^= 1
    path.write_bytes(data)
    assert main(["--home", str(tmp_path), "log", "verify"]) == 1
    assert f"{path}:{second}: Expected `<CRC32C> <length> <JSON>` that agree" in capsys.readouterr().out


def test_a_segment_that_lost_whole_lines_at_its_end_is_found(tmp_path, capsys):
    """Its index says how long it was."""
    fill(tmp_path, "a", "b")
    [path] = (tmp_path / "log" / "events").glob("*.log")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\n") + 1])
    assert main(["--home", str(tmp_path), "log", "verify"]) == 1
    assert f"Expected {len(data)} bytes" in capsys.readouterr().out


def test_a_torn_tail_is_counted_and_is_no_damage(tmp_path, capsys):
    """A killed writer leaves it; nothing acknowledged was in it."""
    (tmp_path / "log" / "events").mkdir(parents=True)
    (tmp_path / "log" / "events" / "1-t-1.log").write_bytes(b"12345678 9 {")
    assert main(["--home", str(tmp_path), "log", "verify"]) == 0
    assert "0 records in 1 segments, 1 torn tails" in capsys.readouterr().out


def test_tail_shows_the_newest_records_of_a_kind(tmp_path, capsys):
    """Over the seam of two segments, oldest first."""
    fill(tmp_path, *"abcde")
    assert [record[13:14] for _, record in latest(tmp_path, ["events"], 4)] == [b"b", b"c", b"d", b"e"]
    assert main(["--home", str(tmp_path), "log", "tail", "events", "-n", "1"]) == 0
    assert capsys.readouterr().out.startswith('events\t{"event_id":"e"')


def test_tail_refuses_a_kind_that_is_none(tmp_path, capsys):
    """A typing error looks like an empty log otherwise; a kind of which nothing was written yet is none."""
    assert main(["--home", str(tmp_path), "log", "tail", "event"]) == 1
    assert "`decisions`, `erasures`, `events`" in capsys.readouterr().err
    assert main(["--home", str(tmp_path), "log", "tail", "events"]) == 0


def test_follow_goes_on_with_what_comes(tmp_path):
    """Also in a segment that did not exist before; what was there already is not repeated."""
    fill(tmp_path, "a")
    coming = follow(tmp_path, ["events"], lambda _seconds: fill(tmp_path, "b", "c"))
    assert [record[13:14] for _, record in islice(coming, 2)] == [b"b", b"c"]
