"""Where the lake lies: a folder of the home, or anything that fsspec reaches, such as `s3://bucket/folder`.

Files come whole or not at all, and are never changed; that is all a reader relies on. An object store has no rename and needs
none: what commits is always a file that is written last.
"""

from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import fsspec
import pyarrow.fs
from fsspec.implementations.arrow import ArrowFSWrapper

from service.files import DISK, Files, put_file

ARROW = ("s3://",)
POINTER = "lake.url"  # in the home: where its lake lies instead of beside it. A matter of the home, not of the command that runs


class Lake(Protocol):
    """Names are relative, with `/`."""

    where: str

    def put(self, name: str, data: bytes) -> None:
        """A file, in the place of one that has the name; durable when this returns. Raises OSError."""

    def get(self, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError."""

    def names(self, folder: str) -> list[str]:
        """Every file below a folder, in the order of their names; none where there is no such folder."""


class FolderLake:
    """On this machine."""

    def __init__(self, folder: Path, files: Files = DISK) -> None:
        self.where = str(folder)
        self._folder, self._files = folder, files

    def put(self, name: str, data: bytes) -> None:
        put_file(self._files, self._folder / name, data)

    def get(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def names(self, folder: str) -> list[str]:
        found = (path for path in (self._folder / folder).rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self._folder).as_posix() for path in found)


class RemoteLake:
    """Elsewhere. Credentials come from where the file system's library looks for them; those in a URL are never shown."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.where = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")).rstrip(
            "/"
        )  # fit to be shown
        self._system, self._root = _system_of(url)

    def put(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        if not isinstance(self._system, ArrowFSWrapper):  # which would put an empty object there for each folder
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._system.pipe_file(path, data)

    def get(self, name: str) -> bytes:
        data: bytes = self._system.cat_file(f"{self._root}/{name}")
        return data

    def names(self, folder: str) -> list[str]:
        self._system.invalidate_cache()
        root = self._root.strip("/")
        return sorted(str(path).strip("/").removeprefix(root).strip("/") for path in self._system.find(f"{self._root}/{folder}"))


def _system_of(url: str) -> tuple[Any, str]:
    """A file system, and the place in it. `s3://` needs no package beyond pyarrow, which speaks it itself."""
    if url.startswith(ARROW):
        system, root = pyarrow.fs.FileSystem.from_uri(url)
        return ArrowFSWrapper(system), root
    found: tuple[Any, str] = fsspec.core.url_to_fs(url.rstrip("/"))
    return found


def open_lake(home: Path, files: Files = DISK) -> Lake:
    """The lake of a home."""
    pointer = home / POINTER
    return RemoteLake(pointer.read_text().strip()) if pointer.is_file() else FolderLake(home / "lake", files)
