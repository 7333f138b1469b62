"""Which ids were written lately: across restarts, for as long as was promised, and in bounded memory."""

import numpy as np
import pytest

from service.decision.records import encode_line
from service.files import DISK
from service.stores.id_index import hash_id, ids_hold, index_path, make_index, read_index
from service.stores.known_ids import YOUNG, KnownIds
from service.stores.segments import SegmentWriter, segment_paths
from tests.acceptance.disks import FailingFiles

NOW, KEPT_S = 1_000_000.0, 1000.0


def line(name: str) -> bytes:
    return encode_line(b'{"event_id":"%b"}' % name.encode())


class Home:
    """A folder of events, a clock, and processes that write and remember."""

    def __init__(self, folder) -> None:
        self.folder, self.now = folder, NOW

    def clock(self) -> float:
        return self.now

    def writer(self, limit: int = 10**6) -> SegmentWriter:
        return SegmentWriter(self.folder, limit, clock=self.clock, field="event_id")

    def known(self, mark: str = "") -> KnownIds:
        return KnownIds(self.folder, "event_id", writer=mark, kept_s=KEPT_S, clock=self.clock)

    def write(self, writer: SegmentWriter, *names: str) -> None:
        writer.write(b"".join(map(line, names)), [(hash_id(name), 0) for name in names])


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path)


def names_among(known: KnownIds, *names: str) -> set[str]:
    found = known.among(map(hash_id, names))
    return {name for name in names if hash_id(name) in found}


def test_ids_live_as_long_as_was_promised_and_no_longer(home):
    """Counted from the last write to their segment, in a process that goes on and in one that starts."""
    writer = home.writer(limit=1)
    home.write(writer, "a")
    home.now += KEPT_S
    assert names_among(home.known(), "a", "b") == {"a"}
    home.now += 1
    assert names_among(home.known(), "a") == set()
    going_on = home.known()
    home.write(writer, "c")
    assert names_among(going_on, "c") == {"c"}
    home.now += KEPT_S + 1
    home.write(writer, "d")
    assert names_among(going_on, "c", "d") == {"d"}


def test_a_start_makes_the_index_of_a_writer_that_was_killed_and_reads_it_once(home):
    """The second start finds what the first one left, and a torn line has no id."""
    (home.folder / "1-dead-1.log").write_bytes(line("a") + line("b")[:-3])
    assert names_among(home.known(), "a", "b") == {"a"}
    found = read_index(home.folder / "1-dead-1.log")
    assert (found[0].records, found[1].hashes.tolist()) == (1, [hash_id("a")])
    assert ids_hold(home.folder / "1-dead-1.log")


def test_a_segment_that_is_being_written_is_read_on_and_gets_no_index_from_others(home):
    """Its lock says so; what comes later is noticed at the next look."""
    writer, known = home.writer(), home.known()
    home.write(writer, "a")
    assert names_among(known, "a", "b") == {"a"}
    home.write(writer, "b")
    assert names_among(known, "a", "b") == {"a", "b"}
    assert list(home.folder.glob("*.ids")) == []
    writer.close()
    assert names_among(known, "a", "b") == {"a", "b"}


def test_a_segment_that_was_sealed_and_removed_meanwhile_is_passed_over(home):
    """Nobody made an index: its ids are gone with it, as for a process that starts; what others write is still noticed."""
    known, removed = home.known(), home.folder / "1-dead-1.log"
    removed.write_bytes(line("a"))
    assert names_among(known, "a") == {"a"}
    removed.unlink()
    home.write(home.writer(), "b")
    assert names_among(known, "a", "b") == {"b"}


def test_what_a_killed_writer_left_is_on_disk_before_it_is_known(home):
    """It may have died before its sync: a start syncs the segment, then its index, and the next start neither."""
    (home.folder / "1-dead-1.log").write_bytes(line("a"))
    files = FailingFiles()
    for _ in range(2):
        assert names_among(KnownIds(home.folder, "event_id", files=files), "a") == {"a"}
        assert files.counts["sync"] == 2


def test_a_segment_that_was_cut_back_is_read_again(home):
    """What was cut off is not known any more, and what is left is."""
    path, known = home.folder / "1-other-1.log", home.known()
    path.write_bytes(line("a") + line("b"))
    assert names_among(known, "a", "b") == {"a", "b"}
    path.write_bytes(line("a"))
    assert names_among(known, "a", "b") == {"a"}
    assert known.doubtful({hash_id("a")}) == {(path, hash_id("a"))}


def test_a_damaged_header_of_an_index_is_made_again(home):
    """No flipped bit of it is believed."""
    path = home.folder / "1-dead-1.log"
    path.write_bytes(line("a"))
    index, _ = make_index_of(path)
    for position in range(56):
        whole = bytearray(index_path(path).read_bytes())
        whole[position] ^= 1
        index_path(path).write_bytes(whole)
        assert read_index(path) is None
        whole[position] ^= 1
        index_path(path).write_bytes(whole)
    assert read_index(path)[0] == index


def make_index_of(path):
    return make_index(DISK, path, "event_id")


@pytest.mark.parametrize("is_asked", [True, False])
def test_the_memory_of_ids_is_bounded_by_the_segments_that_grow(home, is_asked):
    """Ids of a segment that ended are in its file, also where nobody asks for one: of 200,000 none but the last few are not."""
    writer = home.writer(limit=YOUNG * len(line("e000000")))
    known = home.known(writer.mark)
    for start in range(0, 200_000, 1000):
        names = [f"e{n:06d}" for n in range(start, start + 1000)]
        home.write(writer, *names)
        known.add(dict.fromkeys(map(hash_id, names), 0))
        assert not is_asked or names_among(known, names[0], "new") == {names[0]}
    in_memory = len(known._own.young) + sum(len(run.ids) for run in known._own.runs)
    assert in_memory <= (1 if is_asked else 2) * YOUNG + 1000
    assert names_among(known, "e000000", "e100000", "e199999", "new") == {"e000000", "e100000", "e199999"}
    assert all(isinstance(run.ids.hashes, np.memmap) for run in known._ended if len(run.ids))
    assert len(known.among(hash_id(f"e{n:06d}") for n in range(200_000))) == 200_000


def test_beyond_so_many_files_ids_stay_in_memory_and_known(home):
    """A process may not map any number of them."""
    writer = home.writer(limit=1)
    known = KnownIds(home.folder, "event_id", writer=writer.mark, kept_s=KEPT_S, clock=home.clock, most_files=2)
    names = [f"e{n}" for n in range(5)]
    for name in names:
        home.write(writer, name)
        known.add({hash_id(name): 0})
    assert names_among(known, *names, "new") == set(names)
    assert (len(known._ended), len(known._own.young)) == (2, 3)


def test_many_ids_in_memory_are_few_runs_and_the_first_of_equal_ones_counts(tmp_path):
    """However they came: each is found with what was sent under it at first."""
    known = KnownIds(tmp_path, "outcome_id")
    for start in range(0, 20 * YOUNG, YOUNG // 2):
        known.add({n: n % 97 for n in range(start, start + YOUNG // 2)})
    known.add(dict.fromkeys(range(5, YOUNG), 98))
    known.add(dict.fromkeys(range(20 * YOUNG, 21 * YOUNG), 99))
    asked = [0, 5, 6, YOUNG, 7 * YOUNG + 3, 20 * YOUNG - 1]
    assert known.among(asked) == {n: n % 97 for n in asked}
    assert known.among([21 * YOUNG]) == {}
    assert len(known._own.runs) <= 6


def test_an_index_that_cannot_be_written_costs_no_acknowledgement(home):
    """The records are on disk; the segment ends, and a start makes the index."""
    files = FailingFiles()
    writer = SegmentWriter(home.folder, 1, files, home.clock, "event_id")
    files.fail("rename", 28)
    home.write(writer, "a")
    [path] = segment_paths(home.folder)
    assert read_index(path) is None
    files.heal()
    assert names_among(home.known(), "a") == {"a"}
    assert read_index(path) is not None


def test_what_was_sent_under_an_id_is_known_as_long_as_the_id(home):
    """While its segment grows, from its index, from one that a start makes, and of two in one segment the first."""
    lines = b"".join(encode_line(b'{"event_id":"a","sent":"%b"}' % sent) for sent in (b"0000002a", b"0000002b"))
    (home.folder / "1-dead-1.log").write_bytes(lines)
    growing = home.known()
    assert growing.among([hash_id("a")]) == {hash_id("a"): 0x2A}
    assert home.known().among([hash_id("a"), hash_id("b")]) == {hash_id("a"): 0x2A}
    growing.add({hash_id("b"): 7})
    assert growing.among([hash_id("a"), hash_id("b")]) == {hash_id("a"): 0x2A, hash_id("b"): 7}
