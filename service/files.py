"""What promises about the disk depend on: the few operations on files, as an object that is handed in.

A test puts a disk in its place that loses power, fills up, fails or stalls.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

MODE = 0o644


class Files(Protocol):
    """Every method raises OSError. Nothing is durable before `sync`; no name is before `sync_folder` of its folder."""

    def create(self, path: Path) -> int:
        """A new file to append to, locked for as long as it is open: its descriptor. The folder must be there."""

    def write(self, descriptor: int, data: memoryview) -> int:
        """Append; how many bytes were taken, which may be fewer."""

    def sync(self, descriptor: int) -> None:
        """What was written is on disk when this returns."""

    def sync_path(self, path: Path) -> None:
        """What anybody wrote to a file is on disk when this returns."""

    def cut(self, descriptor: int, size: int) -> None:
        """Whatever comes behind so many bytes is gone for every reader."""

    def close(self, descriptor: int) -> None: ...

    def make_folder(self, path: Path) -> None:
        """One folder in a folder that is there; no error where it exists."""

    def sync_folder(self, path: Path) -> None:
        """The names in a folder are on disk when this returns."""

    def rename(self, path: Path, target: Path) -> None:
        """Within a folder; replaces what has the name."""

    def unlink(self, path: Path) -> None: ...

    def forget(self, path: Path) -> None:
        """What a file holds on disk need not stay in memory: whoever reads it waits for the disk. No error where it is gone."""


def _at(path: Path, act: Callable[[int], None]) -> None:
    """Something that is done with a descriptor."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        act(descriptor)
    finally:
        os.close(descriptor)


class DiskFiles:
    """The real ones."""

    def create(self, path: Path) -> int:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, MODE)
        # waits only for somebody who looks whether the file is ours to close, and who lets go of an empty one at once
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)  # 0.19 ms median, 0.45 ms p99 for 3 KB on a 2-core virtual machine

    def sync_path(self, path: Path) -> None:
        _at(path, os.fdatasync)

    def cut(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def make_folder(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def sync_folder(self, path: Path) -> None:
        _at(path, os.fsync)

    def rename(self, path: Path, target: Path) -> None:
        path.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def forget(self, path: Path) -> None:
        if not hasattr(os, "posix_fadvise"):  # macOS has none
            return
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


DISK = DiskFiles()


def is_written(path: Path) -> bool:
    """Whether somebody has the file open to append to it. The kernel lets go of the lock of a process that died."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """One process at a time, or those that share it; others wait. The kernel lets go of the lock of a process that died."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def write_whole(files: Files, descriptor: int, data: bytes) -> None:
    """Append all of it."""
    left = memoryview(data)
    while left:
        left = left[files.write(descriptor, left) :]


def make_folders(files: Files, folder: Path) -> None:
    """A folder and those above it, durable: a name of a folder is lost with power like any other."""
    if folder.is_dir():
        return
    make_folders(files, folder.parent)
    files.make_folder(folder)
    files.sync_folder(folder.parent)


def put_file(files: Files, path: Path, data: bytes, *, keep_name: bool = True) -> None:
    """Readers see the old content or the new one, also after a power loss.

    Durable when this returns; without `keep_name` a power loss may take it back, whole.
    """
    make_folders(files, path.parent)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = files.create(unfinished)
    try:
        write_whole(files, descriptor, data)
        files.sync(descriptor)
    except OSError:
        files.unlink(unfinished)
        raise
    finally:
        files.close(descriptor)
    files.rename(unfinished, path)
    if keep_name:
        files.sync_folder(path.parent)
