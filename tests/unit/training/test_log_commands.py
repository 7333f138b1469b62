"""`nextbest log`: what people read, and the exit code that scripts read."""

import asyncio
from itertools import islice

import msgspec
import pytest

from features.contract import Contract
from service.cli import main
from service.decision.records import DecisionRecord, EventRecord, PlacementRecord, ServedItem, Versions, encode_line
from service.errors import UnknownDecision
from service.ids import customer_key
from service.stores.decisions import find_decision as find_served
from service.stores.segment_log import SegmentLog
from training.decision_log import find_decision, read_decisions, read_decisions_of
from training.examples import LiveLog
from training.rebuild import contacts_in
from training.tailing import follow, latest

AT = 1_790_000_000.0
VERSIONS = Versions(1, None, "x")


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


def test_a_line_that_is_no_record_is_passed_over_by_readers_and_named_by_verify(tmp_path, capsys):
    """An infinite utility was written as `null` once: its checksum holds, and nobody can read it. The others are read."""
    item = ServedItem(1, "gold", "g", "offer", 0.1, 120.0, 1.0, explored=False)
    records = [
        DecisionRecord(f"d{n}", "c1", AT, {}, {}, (PlacementRecord("hero", 1, (item,), fallback=False),), VERSIONS)
        for n in (1, 2)
    ]
    lines = [encode_line(msgspec.json.encode(record)) for record in records]
    strange = encode_line(msgspec.json.encode(records[0]).replace(b'"utility":120.0', b'"utility":null'))
    path = tmp_path / "log" / "decisions" / "1-w-1.log"
    path.parent.mkdir(parents=True)
    path.write_bytes(strange + lines[1])
    assert [logged.record for logged in read_decisions(tmp_path)] == [*read_decisions_of(tmp_path, ["d1", "d2"])] == records[1:]
    assert find_served(path.parent, "d1") is None
    with pytest.raises(UnknownDecision):
        find_decision(tmp_path, "d1")
    assert contacts_in(tmp_path).keys() == {customer_key("c1")}
    live = LiveLog(tmp_path, Contract(()))
    assert [table.num_rows for table in live.decisions()] == [1]
    assert live.damaged == 1
    assert main(["--home", str(tmp_path), "log", "verify"]) == 1
    assert f"{path}:0: Expected a record, got what readers pass over: Expected `float`, got `null`" in capsys.readouterr().out


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


def test_tail_counts_lines_from_none(tmp_path, capsys):
    """Fewer than none is a slip."""
    with pytest.raises(SystemExit):
        main(["--home", str(tmp_path), "log", "tail", "-n", "-1"])
    assert "Expected a whole number, 0 or more, got `-1`" in capsys.readouterr().err


def test_follow_goes_on_with_what_comes(tmp_path):
    """Also in a segment that did not exist before; what was there already is not repeated."""
    fill(tmp_path, "a")
    coming = follow(tmp_path, ["events"], lambda _seconds: fill(tmp_path, "b", "c"))
    assert [record[13:14] for _, record in islice(coming, 2)] == [b"b", b"c"]
