"""Which ids were written lately, by any process: in memory those of segments that still grow, the others in files beside them.

An id is known for as long as its segment is kept in mind: `kept_s` after the last write to it, also across restarts.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.files import DISK, Files, is_written
from service.stores.id_index import (
    NO_IDS,
    Hashes,
    Ids,
    Index,
    hash_id,
    id_of,
    let_go,
    make_index,
    merged,
    read_index,
    sent_of,
    sorted_ids,
)
from service.stores.segments import FolderStamp, SegmentFollower, segment_paths

DAY = 86_400.0
KEPT_S = 31 * DAY
YOUNG = 8192  # ids in a dictionary, 0.6 MB; then they go into sorted arrays of 12 bytes each: 2 ms, and 20 ms for 65,536
MERGED = 2_000_000  # ids of small segments that are read into one array at start: 24 MB; larger ones stay in their files
SMALL = 65_536  # ids
MOST_FILES = 30_000  # segments whose ids stay in their files: Linux lets a process map 65,530
READ_BYTES = 64 * 2**20  # of segments without an index, newest first, that a start reads: those of writers that were killed

Clock = Callable[[], float]


class _Run(NamedTuple):
    """Ids, and when they may be forgotten."""

    until: float
    ids: Ids


class _Pile:
    """Ids in memory, in a dictionary and in few sorted runs."""

    def __init__(self) -> None:
        self.young: dict[int, int] = {}
        self.runs: list[_Run] = []

    def add(self, ids: Iterable[tuple[int, int]], until: float) -> bool:
        """Of equal ids the first counts. Whether there were enough of them for another run."""
        for hashed, sent in ids:
            self.young.setdefault(hashed, sent)
        if len(self.young) < YOUNG:
            return False
        self._grow(_Run(until, sorted_ids(self.young, self.young.values())))
        self.young = {}
        return True

    def _grow(self, run: _Run) -> None:
        """One more; it is merged with those that are no larger, so that few have to be searched. The older of two ids counts."""
        while self.runs and len(self.runs[-1].ids) <= len(run.ids):
            before = self.runs.pop()
            run = _Run(max(before.until, run.until), merged([before.ids, run.ids]))
        self.runs.append(run)

    def among(self, asked: AbstractSet[int]) -> dict[int, int]:
        """Those that are here."""
        found = {one: self.young[one] for one in asked if one in self.young}
        return found | _searched(asked - found.keys(), self.runs)

    def let_go(self, ids: Ids, now: float) -> None:
        """These are in a file from here on."""
        young = np.fromiter(self.young, np.uint64)
        for hashed in young[_within(young, ids.hashes)[0]].tolist():
            del self.young[hashed]
        kept = [_Run(run.until, _left(run.ids, ids)) for run in self.runs]
        self.runs = [run for run in kept if len(run.ids) and run.until >= now]


class KnownIds:
    """Ids of one kind, each with the checksum of what was sent under it.

    `writer`: the mark of a writer whose ids are told by `add`; those of others are looked up in files.
    """

    def __init__(
        self, folder: Path, field: str, *, writer: str = "", kept_s: float = KEPT_S, files: Files = DISK,
        clock: Clock = time.time, most_files: int = MOST_FILES,
    ) -> None:  # fmt: skip
        self._most_files = most_files
        self._folder, self._field, self._kept_s, self._files, self._clock = folder, field, kept_s, files, clock
        self._own = _Pile()  # they leave when the segments that hold them end
        self._piles: dict[Path, _Pile] = {}  # of others, by segment, until it ends: a writer may take back what the disk refuses
        self._ended: list[_Run] = []
        self._taken: set[Path] = set()  # segments whose ids are in `_ended`
        self._others = SegmentFollower(folder, writer)
        self._stamp = FolderStamp(folder)
        self._start()

    def _start(self) -> None:
        now, unread, small = self._clock(), READ_BYTES, [_Run(0.0, NO_IDS)]
        for path in reversed(segment_paths(self._folder)):
            found = read_index(path)
            if found is None and _grows(path):
                continue  # somebody's, and read when first asked
            self._pass_over(path)
            if found is None and unread > 0:
                found = make_index(self._files, path, self._field)
                unread -= found[0].bytes
            if found is None:
                continue
            run = _Run(found[0].last + self._kept_s, found[1])
            if run.until >= now:
                merge = len(run.ids) <= SMALL and sum(len(one.ids) for one in small) <= MERGED
                (small if merge else self._ended).append(run)
        together = merged([run.ids for run in reversed(small)])
        if len(together):
            self._ended.append(_Run(max(run.until for run in small), together))

    def _pass_over(self, path: Path) -> None:
        self._taken.add(path)
        self._others.pass_over(path)

    def among(self, hashed: Iterable[int], *, look: bool = True) -> dict[int, int]:
        """Those that are known, and what was sent under each; with `look`, after looking into the files that others write.

        What others write may not be on disk yet, nor ever: `doubtful` tells which that are.
        """
        if look:
            self._look()
        asked = set(hashed)
        found = self._certain(asked)
        for pile in self._piles.values():
            found |= pile.among(asked - found.keys())
        return found

    def _certain(self, asked: AbstractSet[int]) -> dict[int, int]:
        found = self._own.among(asked)
        return found | _searched(asked - found.keys(), self._ended)

    def doubtful(self, known: AbstractSet[int]) -> set[tuple[Path, int]]:
        """Those that nothing but a segment that somebody else writes to holds, with that segment."""
        if not (known and self._piles):
            return set()
        left = known - self._certain(known).keys()
        return {(path, one) for path, pile in self._piles.items() for one in pile.among(left)}

    def sync(self, paths: Iterable[Path]) -> None:
        """Whatever is in these is on disk when this returns, and what was refused is no more. Blocks. Raises OSError."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                self._files.sync_path(path)

    def add(self, ids: Mapping[int, int]) -> None:
        """These are on disk."""
        if self._own.add(ids.items(), self._clock() + self._kept_s):
            self._look()  # segments that ended since keep their ids in their files, also where nobody ever asks for one

    def _look(self) -> None:
        if self._stamp.changed():
            self._others.relist()
            for path in segment_paths(self._folder):
                if len(self._ended) >= self._most_files:
                    break  # ids of further ones stay in memory
                if path not in self._taken and (found := read_index(path)) is not None:
                    self._take(path, *found)
        for path, payloads in self._others.look():
            if payloads is None:
                self._piles.pop(path, None)
            else:
                ids = [(hash_id(id_of(payload, self._field)), sent_of(payload)) for payload in payloads]
                self._piles.setdefault(path, _Pile()).add(ids, self._clock() + self._kept_s)

    def _take(self, path: Path, index: Index, ids: Ids) -> None:
        """A segment has ended: its ids are in its file from here on. 30 ms for 300,000 ids."""
        self._pass_over(path)
        self._piles.pop(path, None)
        now = self._clock()
        self._ended = [run for run in (*self._ended, _Run(index.last + self._kept_s, ids)) if run.until >= now]
        self._own.let_go(ids, now)
        let_go(ids)


def _grows(path: Path) -> bool:
    """Or is gone since it was listed, the disk having refused all of it."""
    try:
        return not path.stat().st_size or is_written(path)
    except FileNotFoundError:
        return True


def _searched(asked: AbstractSet[int], runs: Sequence[_Run]) -> dict[int, int]:
    found: dict[int, int] = {}
    if not (asked and runs):
        return found
    left = np.array(list(asked), np.uint64)
    for run in runs:
        if not len(left):
            break
        hits, at = _within(left, run.ids.hashes)
        found.update(zip(left[hits].tolist(), run.ids.checks[at[hits]].tolist(), strict=True))
        left = left[~hits]
    return found


def _left(ids: Ids, others: Ids) -> Ids:
    hits, _ = _within(ids.hashes, others.hashes)
    return Ids(ids.hashes[~hits], ids.checks[~hits])


def _within(asked: Hashes, known: Hashes) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Which of some hashes are among sorted ones, and where."""
    if not len(known):
        return np.zeros(len(asked), np.bool_), np.zeros(len(asked), np.intp)
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return known[at] == asked, at
