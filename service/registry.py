"""Immutable versions on disk, and a pointer that moves atomically.

    registry/catalogs/<n>.json   immutable revisions
    registry/bundles/<id>/       immutable folders
    registry/current             which of them serve: replaced atomically
    registry/history.jsonl       every move of the pointer
    registry/contracts/<fingerprint>.json   the features that decisions were made from: written once, never changed
    registry/notes/<n>.json      who let a bundle serve against the gate's advice: each names the one before by its checksum

The registry knows names and bytes, not what they mean: the catalog and bundle rooms read them.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from service.errors import RegistryError
from service.files import locked

UNREADABLE = (OSError, msgspec.DecodeError, UnicodeDecodeError)  # text that is not UTF-8 is no DecodeError


class Challenger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bundle that decides for a share of the customers, 0 to 1, since a moment (RFC 3339): a canary."""

    bundle: str
    share: float
    since: str


class Pointer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which versions serve. `previous` are former champions, latest last: what `rollback` returns to.

    `others` are bundles that predict further objectives beside the champion, by objective. `shadows` are scored on live decisions
    that they do not make, `challengers` decide for some customers.
    """

    catalog: int | None = None
    champion: str | None = None
    previous: tuple[str | None, ...] = ()
    challengers: tuple[Challenger, ...] = ()
    shadows: tuple[str, ...] = ()
    others: dict[str, str] = {}

    @property
    def has_climbers(self) -> bool:
        """Whether any bundle is on its way up."""
        return bool(self.challengers or self.shadows)


class _Move(msgspec.Struct, frozen=True):
    """A line of the history."""

    at: str
    why: str
    pointer: Pointer


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who let a bundle serve that the gate had refused, when (RFC 3339) and why, and for which reasons it had.

    `checksum`: SHA-256 of the bundle's manifest, which names those of its files. `before`: `seal` of the note before, empty in
    the first. `seal`: SHA-256 of this note without it, so that a note that was changed or taken out is noticed.
    """

    bundle: str
    checksum: str
    by: str
    at: str
    why: str
    refused: tuple[str, ...]
    before: str = ""
    seal: str = ""


class CatalogRevision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published catalog: the document as reviewed, and who published it when."""

    revision: int
    fingerprint: str
    author: str
    note: str
    at: str  # RFC 3339
    document: dict[str, object]


class Registry:
    """The registry under one folder. Safe for several processes: writers take a file lock, readers need none."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def pointer_path(self) -> Path:
        """The file whose replacement announces a change."""
        return self.root / "current"

    def current(self) -> Pointer:
        """The pointer as it stands; an empty one where nothing was ever published."""
        try:
            return msgspec.json.decode(self.pointer_path.read_bytes(), type=Pointer)
        except FileNotFoundError:
            return Pointer()
        except UNREADABLE as error:
            raise RegistryError(f"Expected a pointer, found something else: {error} - at `{self.pointer_path}`") from error

    def catalog(self, revision: int) -> CatalogRevision:
        """A published catalog. Raises RegistryError where there is none."""
        path = self.root / "catalogs" / f"{revision}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=CatalogRevision)
        except FileNotFoundError as error:
            raise RegistryError(f"Expected a published catalog, found no revision {revision} - at `{path}`") from error
        except UNREADABLE as error:
            raise RegistryError(f"Expected a catalog revision, found something else: {error} - at `{path}`") from error

    def revisions(self) -> list[int]:
        """Numbers of all published catalogs, oldest first."""
        return sorted(int(p.stem) for p in (self.root / "catalogs").glob("*.json") if p.stem.isdigit())

    def publish_catalog(self, document: dict[str, object], *, fingerprint: str, author: str, note: str, at: str) -> int:
        """Store the document as the next revision and let it serve. Returns the revision."""
        with self._lock():
            revision = max(self.revisions(), default=0) + 1
            record = CatalogRevision(revision, fingerprint, author, note, at, document)
            (self.root / "catalogs").mkdir(parents=True, exist_ok=True)
            write_atomically(self.root / "catalogs" / f"{revision}.json", msgspec.json.encode(record))
            self._move(msgspec.structs.replace(self.current(), catalog=revision), at=at, why=f"catalog {revision}: {note}")
        return revision

    def keep_contract(self, fingerprint: str, features: bytes) -> None:
        """Remember what the fingerprint in decision records stands for. Where it is known already nothing is written."""
        path = self.root / "contracts" / f"{fingerprint}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, features)

    def contracts(self) -> dict[str, bytes]:
        """Every contract that was kept, by fingerprint."""
        return {path.stem: path.read_bytes() for path in sorted((self.root / "contracts").glob("*.json"))}

    def bundle_folder(self, bundle_id: str) -> Path:
        """Where a bundle lies. Raises RegistryError where there is none."""
        folder = self.root / "bundles" / bundle_id
        try:
            found = "/" not in bundle_id and folder.is_dir()
        except OSError as error:
            raise RegistryError(f"Expected a stored bundle that can be read, got `{bundle_id}`: {error}") from error
        if not found:
            known = ", ".join(f"`{name}`" for name in self.bundles()) or "none"
            raise RegistryError(f"Expected a stored bundle ({known}), got `{bundle_id}`")
        return folder

    def bundles(self) -> list[str]:
        """Ids of all stored bundles, in the order of their names."""
        return sorted(p.name for p in (self.root / "bundles").glob("*") if p.is_dir() and not p.name.startswith("."))

    def add_bundle(self, folder: Path, bundle_id: str) -> Path:
        """Copy a finished bundle folder in, under its id. It does not serve yet. Raises RegistryError if the id is taken."""
        target = self.root / "bundles" / bundle_id
        with self._lock():
            if target.exists():
                raise RegistryError(f"Expected a new bundle id, found that `{bundle_id}` exists")
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
            shutil.copytree(folder, staged, dirs_exist_ok=True)
            staged.chmod(0o755)
            for path in staged.iterdir():
                path.chmod(0o644)  # whoever trains may be somebody else than whoever serves
                _sync(path)
            _sync(staged)
            staged.rename(target)
            _sync(target.parent)
        return target

    def promote(
        self, bundle_id: str, *, at: str, why: str, expected: str | msgspec.UnsetType | None = msgspec.UNSET
    ) -> Pointer:  # fmt: skip
        """Make a stored bundle the champion.

        `expected`: whose place it is to take, None where nothing serves; unset, whatever does. Raises RegistryError where another
        bundle serves.
        """
        self.bundle_folder(bundle_id)
        with self._lock():
            now = self.current()
            if now.champion == bundle_id:
                return now
            if expected is not msgspec.UNSET and now.champion != expected:
                wanted, found = (f"`{name}`" if name else "no bundle" for name in (expected, now.champion))
                again = f"evaluate `{bundle_id}` again - at `{self.pointer_path}`"
                raise RegistryError(f"Expected that {wanted} serves, found that {found} does: {again}")
            previous = (*now.previous, now.champion)[-20:]  # twenty steps back are more than anyone takes
            rest = _without(now, bundle_id)
            # what was proven against another champion is not proven
            challengers = tuple(msgspec.structs.replace(one, since=at) for one in rest.challengers)
            moved = msgspec.structs.replace(rest, champion=bundle_id, previous=previous, challengers=challengers)
            return self._move(moved, at=at, why=why)

    def shadow(self, bundle_id: str, *, at: str, why: str) -> Pointer:
        """Have a stored bundle scored on live decisions, and decide nothing. Raises RegistryError for the champion."""
        self.bundle_folder(bundle_id)
        with self._lock():
            now = self.current()
            _check_is_no_champion(now, bundle_id)
            rest = _without(now, bundle_id)
            return self._move(msgspec.structs.replace(rest, shadows=(*rest.shadows, bundle_id)), at=at, why=why)

    def challenge(self, bundle_id: str, share: float, *, at: str, why: str) -> Pointer:
        """Let a stored bundle decide for a share of the customers. Raises RegistryError for the champion, or a second one."""
        self.bundle_folder(bundle_id)
        with self._lock():
            now = self.current()
            _check_is_no_champion(now, bundle_id)
            rest = _without(now, bundle_id)
            if rest.challengers:
                raise RegistryError(f"Expected one canary at a time, found `{rest.challengers[0].bundle}`: take it off first")
            moved = msgspec.structs.replace(rest, challengers=(Challenger(bundle_id, share, at),))
            return self._move(moved, at=at, why=why)

    def step_off(self, bundle_id: str, *, at: str, why: str) -> Pointer:
        """A shadow or a canary is neither any more. Raises RegistryError where it is none."""
        with self._lock():
            now = self.current()
            rest = _without(now, bundle_id)
            if rest == now:
                raise RegistryError(f"Expected a shadow or a canary, found that `{bundle_id}` is neither")
            return self._move(rest, at=at, why=why)

    def promote_beside(self, bundle_id: str, objective: str, *, at: str, why: str) -> Pointer:
        """Let a stored bundle predict a further objective, beside the champion."""
        self.bundle_folder(bundle_id)
        with self._lock():
            now = self.current()
            moved = msgspec.structs.replace(now, others={**now.others, objective: bundle_id})
            return self._move(moved, at=at, why=why)

    def rollback(self, *, at: str, why: str) -> Pointer:
        """Return to the champion before this one, and take every shadow and canary off.

        Where there was none before, they are taken off alone; raises RegistryError where there is nothing to take back.
        """
        with self._lock():
            now = self.current()
            if not now.previous and not now.has_climbers:
                raise RegistryError("Expected a previous champion to return to, found none")
            moved = msgspec.structs.replace(now, challengers=(), shadows=())
            if now.previous:
                moved = msgspec.structs.replace(moved, champion=now.previous[-1], previous=now.previous[:-1])
            return self._move(moved, at=at, why=why)

    def taken_back(self) -> frozenset[str]:
        """Bundles that somebody went back from, and that have not served since."""
        found, before = set[str](), Pointer()
        for now in self._moves():
            if len(now.previous) < len(before.previous) and before.champion is not None:
                found.add(before.champion)
            if now.champion != before.champion:
                found.discard(now.champion or "")
            before = now
        return frozenset(found)

    def _moves(self) -> Iterator[Pointer]:
        """The pointer after each move, oldest first; a line of the history that cannot be read is passed over."""
        path = self.root / "history.jsonl"
        for line in path.read_bytes().splitlines() if path.exists() else ():
            with contextlib.suppress(msgspec.DecodeError):
                yield msgspec.json.decode(line, type=_Move).pointer

    def leave_note(self, note: Note) -> Note:
        """Add a note; as it stands in the registry. Raises RegistryError where the notes before it do not hold."""
        with self._lock():
            notes = self.notes()
            linked = msgspec.structs.replace(note, before=notes[-1].seal if notes else "")
            sealed = msgspec.structs.replace(linked, seal=_seal(linked))
            (self.root / "notes").mkdir(exist_ok=True)
            write_atomically(self.root / "notes" / f"{len(notes) + 1:06d}.json", msgspec.json.encode(sealed))
        return sealed

    def notes(self) -> list[Note]:
        """Every note, oldest first. Raises RegistryError where one was changed or taken out."""
        found: list[Note] = []
        for path in sorted((self.root / "notes").glob("[0-9]*.json")):
            try:
                note = msgspec.json.decode(path.read_bytes(), type=Note)
            except UNREADABLE as error:
                raise RegistryError(f"Expected a note, found something else: {error} - at `{path}`") from error
            if note.seal != _seal(note) or note.before != (found[-1].seal if found else ""):
                raise RegistryError(f"Expected a note as it was left, after the one before it, found another - at `{path}`")
            found.append(note)
        return found

    def _move(self, pointer: Pointer, *, at: str, why: str) -> Pointer:
        write_atomically(self.pointer_path, msgspec.json.encode(pointer))
        with (self.root / "history.jsonl").open("ab") as history:
            history.write(msgspec.json.encode(_Move(at, why, pointer)) + b"\n")
            history.flush()
            os.fsync(history.fileno())
        return pointer

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self.root / ".lock")


def _without(pointer: Pointer, bundle_id: str) -> Pointer:
    challengers = tuple(one for one in pointer.challengers if one.bundle != bundle_id)
    shadows = tuple(one for one in pointer.shadows if one != bundle_id)
    return msgspec.structs.replace(pointer, challengers=challengers, shadows=shadows)


def _check_is_no_champion(pointer: Pointer, bundle_id: str) -> None:
    if pointer.champion == bundle_id:
        raise RegistryError(f"Expected a bundle that does not serve yet, found that `{bundle_id}` is the champion")


def _seal(note: Note) -> str:
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(note, seal=""))).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Readers see the old content or the new one, also after a power loss."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    Path(name).chmod(0o644)
    Path(name).replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
