"""Which ids were written lately, by any process: in memory those of segments that still grow, the others in files beside them.

An id is known for as long as its segment is kept in mind: `kept_s` after the last write to it, also across restarts.
"""

import time
from collections.abc import Callable, Iterable, Mapping
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
        self._young: dict[int, int] = {}
        self._growing: list[_Run] = []  # in memory; they leave when the segments that hold them end
        self._ended: list[_Run] = []
        self._taken: set[Path] = set()  # segments whose ids are in `_ended`
        self._others = SegmentFollower(folder, writer)
        self._stamp = FolderStamp(folder)
        self._start()

    def _start(self) -> None:
        now, unread, small = self._clock(), READ_BYTES, [_Run(0.0, NO_IDS)]
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
                merge = len(run.ids) <= SMALL and sum(len(one.ids) for one in small) <= MERGED
                (small if merge else self._ended).append(run)
        together = merged([run.ids for run in reversed(small)])
        if len(together):
            self._ended.append(_Run(max(run.until for run in small), together))

    def _pass_over(self, path: Path) -> None:
        self._taken.add(path)
        self._others.pass_over(path)

    def among(self, hashed: Iterable[int], *, look: bool = True) -> dict[int, int]:
        """Those that are known, and what was sent under each; with `look`, after looking into the files that others write."""
        if look:
            self._look()
        asked = set(hashed)
        found = {one: self._young[one] for one in asked if one in self._young}
        if len(found) == len(asked) or not (self._growing or self._ended):
            return found
        left = np.array(list(asked - found.keys()), np.uint64)
        for run in (*self._growing, *self._ended):
            if not len(left):
                break
            hits, at = _within(left, run.ids.hashes)
            found.update(zip(left[hits].tolist(), run.ids.checks[at[hits]].tolist(), strict=True))
            left = left[~hits]
        return found

    def add(self, ids: Mapping[int, int]) -> None:
        """These are on disk."""
        for hashed, sent in ids.items():
            self._young.setdefault(hashed, sent)
        if len(self._young) >= YOUNG:
            self._grow(_Run(self._clock() + self._kept_s, sorted_ids(self._young, self._young.values())))
            self._young = {}
            self._look()  # segments that ended since keep their ids in their files, also where nobody ever asks for one

    def _grow(self, run: _Run) -> None:
        """One more; it is merged with those that are no larger, so that few have to be searched. The older of two ids counts."""
        while self._growing and len(self._growing[-1].ids) <= len(run.ids):
            before = self._growing.pop()
            run = _Run(max(before.until, run.until), merged([before.ids, run.ids]))
        self._growing.append(run)

    def _look(self) -> None:
        if self._stamp.changed():
            self._others.relist()
            for path in segment_paths(self._folder):
                if len(self._ended) >= self._most_files:
                    break  # ids of further ones stay in memory
                if path not in self._taken and (found := read_index(path)) is not None:
                    self._take(path, *found)
        self.add({hash_id(id_of(payload, self._field)): sent_of(payload) for payload in self._others.look()})

    def _take(self, path: Path, index: Index, ids: Ids) -> None:
        """A segment has ended: its ids are in its file from here on. 30 ms for 300,000 ids."""
        self._pass_over(path)
        now = self._clock()
        self._ended = [run for run in (*self._ended, _Run(index.last + self._kept_s, ids)) if run.until >= now]
        young = np.fromiter(self._young, np.uint64)
        for hashed in young[_within(young, ids.hashes)[0]].tolist():
            del self._young[hashed]
        kept = [_Run(run.until, _left(run.ids, ids)) for run in self._growing]
        self._growing = [run for run in kept if len(run.ids) and run.until >= now]
        let_go(ids)


def _left(ids: Ids, others: Ids) -> Ids:
    hits, _ = _within(ids.hashes, others.hashes)
    return Ids(ids.hashes[~hits], ids.checks[~hits])


def _within(asked: Hashes, known: Hashes) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Which of some hashes are among sorted ones, and where."""
    if not len(known):
        return np.zeros(len(asked), np.bool_), np.zeros(len(asked), np.intp)
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return known[at] == asked, at
