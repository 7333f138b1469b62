"""Which ids were written lately, by any process: in memory those of segments that still grow, the others in files beside them.

An id is known for as long as its segment is kept in mind: `kept_s` after the last write to it, also across restarts.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.files import DISK, Files, is_written
from service.stores.id_index import Hashes, Index, hash_id, id_of, make_index, read_index
from service.stores.segments import FolderStamp, SegmentFollower, segment_paths

DAY = 86_400.0
KEPT_S = 31 * DAY
YOUNG = 65_536  # ids in a set, about 6 MB; then they go into a sorted array of 8 bytes each
MERGED = 2_000_000  # ids of small segments that are read into one array at start: 16 MB; larger ones stay in their files
SMALL = 65_536  # ids
READ_BYTES = 64 * 2**20  # of segments without an index, newest first, that a start reads: those of writers that were killed

Clock = Callable[[], float]


class _Run(NamedTuple):
    """Sorted hashes, and when they may be forgotten."""

    until: float
    hashes: Hashes


class KnownIds:
    """Ids of one kind. `writer`: the mark of a writer whose ids are told by `add`; those of others are looked up in files."""

    def __init__(
        self, folder: Path, field: str, *, writer: str = "", kept_s: float = KEPT_S, files: Files = DISK, clock: Clock = time.time
    ) -> None:
        self._folder, self._field, self._kept_s, self._files, self._clock = folder, field, kept_s, files, clock
        self._young: set[int] = set()
        self._growing: list[_Run] = []  # in memory; they leave when the segments that hold them end
        self._ended: list[_Run] = []
        self._taken: set[Path] = set()  # segments whose ids are in `_ended`
        self._others = SegmentFollower(folder, writer)
        self._stamp = FolderStamp(folder)
        self._start()

    def _start(self) -> None:
        now, unread, small = self._clock(), READ_BYTES, [_Run(0.0, np.empty(0, np.uint64))]
        for path in reversed(segment_paths(self._folder)):
            found = read_index(path)
            if found is None and (not path.stat().st_size or is_written(path)):
                continue  # somebody's, and read when first asked
            self._pass_over(path)
            if found is None and unread > 0:
                found = make_index(self._files, path, self._field)
                unread -= found[0].bytes
            if found is None:
                continue
            run = _Run(found[0].last + self._kept_s, found[1])
            if run.until >= now:
                merge = len(run.hashes) <= SMALL and sum(len(one.hashes) for one in small) <= MERGED
                (small if merge else self._ended).append(run)
        merged = np.unique(np.concatenate([run.hashes for run in small]))
        if len(merged):
            self._ended.append(_Run(max(run.until for run in small), merged))

    def _pass_over(self, path: Path) -> None:
        self._taken.add(path)
        self._others.pass_over(path)

    def among(self, hashed: Iterable[int], *, look: bool = True) -> set[int]:
        """Those that are known; with `look`, after looking into the files that others write."""
        if look:
            self._look()
        asked = set(hashed)
        found = asked & self._young
        if len(found) == len(asked) or not (self._growing or self._ended):
            return found
        left = np.array(list(asked - found), np.uint64)
        for run in (*self._growing, *self._ended):
            if not len(left):
                break
            hits = _within(left, run.hashes)
            found.update(left[hits].tolist())
            left = left[~hits]
        return found

    def add(self, hashed: Iterable[int]) -> None:
        """These are on disk."""
        self._young.update(hashed)
        if len(self._young) >= YOUNG:
            self._growing.append(_Run(self._clock() + self._kept_s, np.sort(np.fromiter(self._young, np.uint64))))
            self._young = set()

    def _look(self) -> None:
        if self._stamp.changed():
            self._others.relist()
            for path in segment_paths(self._folder):
                if path not in self._taken and (found := read_index(path)) is not None:
                    self._take(path, *found)
        self.add(hash_id(id_of(payload, self._field)) for payload in self._others.look())

    def _take(self, path: Path, index: Index, hashes: Hashes) -> None:
        """A segment has ended: its ids are in its file from here on. 30 ms for 300,000 ids."""
        self._pass_over(path)
        now = self._clock()
        self._ended = [run for run in (*self._ended, _Run(index.last + self._kept_s, hashes)) if run.until >= now]
        young = np.fromiter(self._young, np.uint64)
        self._young = set(young[~_within(young, hashes)].tolist())
        kept = [_Run(run.until, run.hashes[~_within(run.hashes, hashes)]) for run in self._growing]
        self._growing = [run for run in kept if len(run.hashes) and run.until >= now]


def _within(asked: Hashes, known: Hashes) -> npt.NDArray[np.bool_]:
    """Which of some hashes are among sorted ones."""
    if not len(known):
        return np.zeros(len(asked), np.bool_)
    found: npt.NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked
    return found
