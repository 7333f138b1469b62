"""Disks that misbehave: one that refuses or stalls, and one that remembers what was asked of it and can lose power at any moment.

They stand where `service.files.DISK` stands, and do the real thing on a real folder meanwhile.
"""

import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from service.files import DISK

SECTOR = 512  # bytes that a disk writes whole or not at all


class FailingFiles:
    """Refuses with an error number, or stalls, the operations named until it is healed. `counts`: calls by operation."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._failing: dict[str, int] = {}
        self._stalling: dict[str, float] = {}

    def fail(self, operation: str, number: int) -> None:
        self._failing[operation] = number

    def stall(self, operation: str, seconds: float) -> None:
        self._stalling[operation] = seconds

    def heal(self) -> None:
        self._failing, self._stalling = {}, {}

    def _pass(self, operation: str) -> None:
        self.counts[operation] += 1
        time.sleep(self._stalling.get(operation, 0.0))
        if operation in self._failing:
            raise OSError(self._failing[operation], f"injected into {operation}")

    def create(self, path: Path) -> int:
        self._pass("create")
        return DISK.create(path)

    def write(self, descriptor: int, data: memoryview) -> int:
        if "write" in self._failing and len(data) > 1:
            DISK.write(descriptor, data[: len(data) // 2])  # a disk that fills up takes a part first
        self._pass("write")
        return DISK.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._pass("sync")
        DISK.sync(descriptor)

    def sync_path(self, path: Path) -> None:
        self._pass("sync")
        DISK.sync_path(path)

    def cut(self, descriptor: int, size: int) -> None:
        self._pass("cut")
        DISK.cut(descriptor, size)

    def close(self, descriptor: int) -> None:
        DISK.close(descriptor)

    def make_folder(self, path: Path) -> None:
        self._pass("make_folder")
        DISK.make_folder(path)

    def sync_folder(self, path: Path) -> None:
        self._pass("sync_folder")
        DISK.sync_folder(path)

    def rename(self, path: Path, target: Path) -> None:
        self._pass("rename")
        DISK.rename(path, target)

    def unlink(self, path: Path) -> None:
        self._pass("unlink")
        DISK.unlink(path)

    def forget(self, path: Path) -> None:
        self._pass("forget")
        DISK.forget(path)


class Step(NamedTuple):
    """One operation. Names are relative to the root; `inode`: of create, write and sync.

    `what`: create, write, sync, folder, sync_folder, rename, unlink; or `promise`, which is ours: something was acknowledged.
    """

    what: str
    path: str = ""
    target: str = ""
    inode: int = 0
    data: bytes = b""


class RecordingFiles:
    """Does the real thing, and keeps every step. `promise` notes what somebody was told."""

    def __init__(self, root: Path) -> None:
        self.steps: list[Step] = []
        self._root = root
        self._inodes: dict[int, int] = {}
        self._named: dict[Path, int] = {}
        self._made = 0

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._root))

    def promise(self, what: str) -> None:
        self.steps.append(Step("promise", what))

    def create(self, path: Path) -> int:
        descriptor = DISK.create(path)
        self._made += 1
        self._inodes[descriptor] = self._named[path] = self._made
        self.steps.append(Step("create", self._name(path), inode=self._made))
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        taken = DISK.write(descriptor, data)
        self.steps.append(Step("write", inode=self._inodes[descriptor], data=bytes(data[:taken])))
        return taken

    def sync(self, descriptor: int) -> None:
        self.steps.append(Step("sync", inode=self._inodes[descriptor]))

    def sync_path(self, path: Path) -> None:
        self.steps.append(Step("sync", inode=self._named[path]))

    def cut(self, descriptor: int, size: int) -> None:
        raise NotImplementedError(f"Expected a disk that refuses nothing, found {size} bytes to be left of file {descriptor}")

    def close(self, descriptor: int) -> None:
        del self._inodes[descriptor]
        DISK.close(descriptor)

    def make_folder(self, path: Path) -> None:
        if not path.exists():
            self.steps.append(Step("folder", self._name(path)))
        DISK.make_folder(path)

    def sync_folder(self, path: Path) -> None:
        self.steps.append(Step("sync_folder", self._name(path)))

    def rename(self, path: Path, target: Path) -> None:
        if path.parent != target.parent:
            raise ValueError(f"Expected a rename within a folder, got `{path}` to `{target}`: two folders are two promises")
        DISK.rename(path, target)
        self.steps.append(Step("rename", self._name(path), self._name(target)))

    def unlink(self, path: Path) -> None:
        DISK.unlink(path)
        self.steps.append(Step("unlink", self._name(path)))

    def forget(self, path: Path) -> None:
        DISK.forget(path)


@dataclass
class _Inode:
    """A file's content: what is certainly on disk, and what was written since."""

    durable: bytes = b""
    pending: list[bytes] = field(default_factory=list)

    def sync(self) -> None:
        self.durable, self.pending = self.durable + b"".join(self.pending), []


Entry = tuple[str, int | None]  # a name's file, or None for a folder


@dataclass
class _Folder:
    """Names in a folder: those certainly on disk, and changes since, each (name that goes, name that comes, inode)."""

    durable: dict[str, int | None] = field(default_factory=dict)
    pending: list[tuple[str | None, str | None, int | None]] = field(default_factory=list)

    def sync(self) -> None:
        self.durable, self.pending = self.after(self.pending), []

    def after(self, changes: Iterable[tuple[str | None, str | None, int | None]]) -> dict[str, int | None]:
        names = dict(self.durable)
        for gone, come, inode in changes:
            if gone is not None:
                names.pop(gone, None)
            if come is not None:
                names[come] = inode
        return names


class Keeps(NamedTuple):
    """What a power loss leaves of what was not synced. `data` and `names`: all, none, or some, by chance."""

    data: str
    names: str


EXTREMES = (Keeps("none", "none"), Keeps("none", "all"), Keeps("all", "none"), Keeps("all", "all"), Keeps("none", "some"))


class Disk:
    """What a disk holds, certainly or perhaps, while steps are played to it."""

    def __init__(self) -> None:
        self._folders: dict[str, _Folder] = {".": _Folder()}
        self._inodes: dict[int, _Inode] = {}
        self._now: dict[str, int | None] = {}  # as a running process sees it
        self.promised: list[str] = []

    def play(self, step: Step) -> bool:
        """One step; whether it made anything certain that was not."""
        match step.what:
            case "promise":
                self.promised.append(step.path)
            case "create":
                self._inodes[step.inode] = _Inode()
                self._change(step.path, (None, _last(step.path), step.inode))
            case "folder":
                self._folders[step.path] = _Folder()
                self._change(step.path, (None, _last(step.path), None))
            case "write":
                self._inodes[step.inode].pending.append(step.data)
            case "rename":
                self._change(step.path, (_last(step.path), _last(step.target), self._now.pop(step.path)), step.target)
            case "unlink":
                self._now.pop(step.path)
                self._folders[_parent(step.path)].pending.append((_last(step.path), None, None))
            case "sync":
                return _sync(self._inodes[step.inode])
            case "sync_folder":
                return step.path in self._folders and _sync(self._folders[step.path])
        return False

    def _change(self, path: str, change: tuple[str | None, str | None, int | None], becomes: str = "") -> None:
        self._folders[_parent(path)].pending.append(change)
        self._now[becomes or path] = change[2]

    def lose_power(self, keeps: Keeps, chance: random.Random, target: Path) -> None:
        """Write down below `target` what is left."""
        contents = {number: _left(inode, keeps.data, chance) for number, inode in self._inodes.items()}
        self._restore(".", target, keeps.names, chance, contents)

    def _restore(self, folder: str, target: Path, keeps: str, chance: random.Random, contents: dict[int, bytes]) -> None:
        target.mkdir()
        here = self._folders[folder]
        kept = [c for c in here.pending if keeps == "all" or (keeps == "some" and chance.random() < 0.5)]
        for name, inode in here.after(kept).items():
            if inode is None:
                self._restore(f"{folder}/{name}".removeprefix("./"), target / name, keeps, chance, contents)
            else:
                (target / name).write_bytes(contents[inode])


def _sync(what: _Inode | _Folder) -> bool:
    needed = bool(what.pending)
    what.sync()
    return needed


def _left(inode: _Inode, keeps: str, chance: random.Random) -> bytes:
    """Content after a power loss: whole sectors of what was pending, in any order; where one is missing below others, zeros."""
    pending = b"".join(inode.pending)
    if keeps == "none" or not pending:
        return inode.durable
    if keeps == "all":
        return inode.durable + pending
    whole = bytearray(inode.durable + pending)
    certain = len(inode.durable)
    last = certain
    for start in range(certain // SECTOR * SECTOR, len(whole), SECTOR):
        begin, end = max(start, certain), min(start + SECTOR, len(whole))
        if chance.random() < 0.5:
            last = end
        else:
            whole[begin:end] = bytes(end - begin)
    return bytes(whole[:last])


def _parent(path: str) -> str:
    return str(Path(path).parent)


def _last(path: str) -> str:
    return Path(path).name


def without(steps: Sequence[Step], left_out: int) -> list[Step]:
    """The same with one step that did not happen."""
    return [*steps[:left_out], *steps[left_out + 1 :]]
