"""Segments of the log on disk: one writer per file, any number of readers."""

import contextlib
import secrets
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import google_crc32c

from service.decision.records import Line, decode_lines
from service.files import DISK, Files, make_folders, write_whole
from service.stores.id_index import NO_IDS, Index, sorted_ids, write_index

SUFFIX = ".log"
ENDED = -1  # in place of an offset: nothing more will come
COARSE_NS = 50_000_000  # kernels stamp files by their clock tick, 1 to 10 ms


class SegmentWriter:
    """Appends to a file of its own and opens the next one when it is full. Used by one thread.

    A segment that came to its end in good order has an index beside it.
    """

    def __init__(
        self, folder: Path, segment_bytes: int, files: Files = DISK, clock: Callable[[], float] = time.time, field: str = ""
    ) -> None:
        self.mark = secrets.token_hex(6)  # in the name of every segment of this writer
        self._folder, self._limit, self._files, self._clock, self._field = folder, segment_bytes, files, clock, field
        self._opened = 0
        self._path: Path | None = None
        self._descriptor = -1
        self._written = self._records = self._checksum = 0
        self._ids, self._sent = array("Q"), array("I")
        self._unsynced = False
        self._full: Path | None = None  # the last one that was

    @property
    def position(self) -> tuple[str, int] | None:
        """The name of the open segment, and its bytes; None where none is open."""
        path = self._path
        return None if path is None else (path.name, self._written)

    def write(
        self, data: bytes, ids: Iterable[tuple[int, int]] = (), *, wait: bool = True, records: int | None = None
    ) -> None:  # fmt: skip
        """Append some lines, and with `wait` wait for the disk. `ids`: hashes of those they carry, and what was sent under each.

        `records`: how many lines; None: they are counted, which takes 3 us of 5 kB.
        Raises OSError; then this segment is finished, and holds what was acknowledged before: a reader must not take for written
        what was refused. Where the disk refuses even to cut the rest off, that stays, whatever of `data` it is.
        """
        try:
            if self._path is None:
                self._open()
            write_whole(self._files, self._descriptor, data)
            if wait:
                self._files.sync(self._descriptor)
            self._unsynced = not wait
        except OSError:
            self._take_back()
            raise
        self._written += len(data)
        self._records += data.count(b"\n") if records is None else records
        self._checksum = google_crc32c.extend(self._checksum, data)
        for hashed, sent in ids:
            self._ids.append(hashed)
            self._sent.append(sent)
        if self._written >= self._limit:
            before, self._full = self._full, self._path
            self.close()
            self._forget(before)

    def _take_back(self) -> None:
        """End with what was acknowledged. After a failed fsync nobody knows what is on disk: never write behind it."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._files.cut(self._descriptor, self._written)
            if not self._written:  # a disk that refuses all day would leave a file each time, which every reader looks at
                with contextlib.suppress(OSError):
                    self._files.unlink(self._path)
            with contextlib.suppress(OSError):  # what was acknowledged and not synced yet; nothing of that where all wait
                self.sync()
        self._end()

    def _forget(self, path: Path | None) -> None:
        """Of segments that are full the last stays in memory: what was decided a moment ago is asked for again.

        Else the log fills all memory there is, and the kernel takes a new page for each 4 kB, which is slow where a virtual
        machine gets its pages from a host: 100,000 decisions of `nextbest decide` took 1.5 s in the kernel, and take 0.6 to 0.9.
        """
        if path is not None:
            with contextlib.suppress(OSError):  # it costs memory, and nothing else
                self._files.forget(path)

    def sync(self) -> None:
        """Everything written is on disk when this returns. Raises OSError; then this segment is finished."""
        if not self._unsynced:
            return
        try:
            self._files.sync(self._descriptor)
        except OSError:
            self._end()
            raise
        self._unsynced = False

    def _open(self) -> None:
        if not self._opened and self._folder.exists():  # whoever made it may have died before its name was durable
            self._files.sync_folder(self._folder.parent)
            self._files.sync_folder(self._folder.parent.parent)
        make_folders(self._files, self._folder)
        self._opened += 1
        path = self._folder / f"{int(self._clock() * 1000):013d}-{self.mark}-{self._opened}{SUFFIX}"
        self._descriptor = self._files.create(path)
        self._path = path
        self._written = self._records = self._checksum = 0
        self._ids, self._sent = array("Q"), array("I")
        self._files.sync_folder(self._folder)

    def _end(self) -> None:
        if self._path is not None:
            self._path, self._unsynced = None, False
            self._files.close(self._descriptor)

    def close(self) -> None:
        """Wait for the disk, and say of the segment how it ended. Raises OSError where the disk refuses."""
        if self._path is None:
            return
        self.sync()
        path, index = self._path, Index(self._written, self._records, self._checksum, self._clock())
        if self._written:
            with contextlib.suppress(OSError):  # the records are on disk, and an index can be made again
                write_index(self._files, path, index, sorted_ids(self._ids, self._sent) if self._field else NO_IDS)
        self._end()


def segment_paths(folder: Path) -> list[Path]:
    """Every segment below a folder, oldest first."""
    return sorted(folder.rglob(f"*{SUFFIX}"), key=lambda path: path.name)


def read_segments(folder: Path) -> Iterator[Line]:
    """Every line of every segment, oldest segment first; damaged lines and torn tails are marked, and readable ones go on."""
    for path in segment_paths(folder):
        yield from decode_lines(path.read_bytes())


class SegmentFollower:
    """What was appended to segments since the last look, but to those with the mark `ours`."""

    def __init__(self, folder: Path, ours: str = "") -> None:
        self._folder = folder
        self._ours = f"-{ours}-" if ours else SUFFIX + SUFFIX  # in no name
        self._offsets: dict[Path, int] = {}

    def pass_over(self, path: Path) -> None:
        """A segment that will not grow any more, or whose content is known otherwise."""
        self._offsets[path] = ENDED

    def relist(self) -> None:
        """Notice new segments."""
        for path in segment_paths(self._folder):
            if self._ours not in path.name:
                self._offsets.setdefault(path, 0)

    def look(self) -> Iterator[tuple[Path, list[bytes] | None]]:
        """Payloads since the last look, by segment; None where what was read of one before is no more."""
        growing = [(path, offset) for path, offset in self._offsets.items() if offset != ENDED]
        for path, offset in growing:
            try:
                yield from self._read(path, offset)
            except FileNotFoundError:
                self._offsets[path] = ENDED
                yield path, None

    def _read(self, path: Path, begin: int) -> Iterator[tuple[Path, list[bytes] | None]]:
        size = path.stat().st_size
        if size < begin:  # the disk has refused the end of it
            yield path, None
            self._offsets[path] = begin = 0
        if size == begin:
            return
        with path.open("rb") as segment:
            segment.seek(begin)
            data = segment.read()
        whole = data[: data.rfind(b"\n") + 1]  # a line that is being written is looked at next time
        self._offsets[path] = begin + len(whole)
        yield path, [line.payload for line in decode_lines(whole) if line.payload is not None]


class FolderStamp:
    """Notices that names in a folder changed. 2 us a look."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = -1

    def changed(self) -> bool:
        """Whether names came or went since the last look."""
        try:
            stamp = self._folder.stat().st_mtime_ns
        except OSError:
            return False  # nothing there to read
        if stamp == self._seen:
            return False
        self._seen = stamp if time.time_ns() - stamp > COARSE_NS else -1  # two changes may carry the same stamp
        return True
