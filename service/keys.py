"""API keys: who may do what. A key is shown once, when it is made; what is kept is its hash."""

import hashlib
import math
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from service.errors import BadRequest, NextbestError
from service.files import locked
from service.logs import logger

Scope = Literal["decide", "ingest", "operate"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
OPEN = "open"  # routes that need no key

PREFIX = "nb"
SECRET_BYTES = 32  # so much chance that a fast hash is enough: there is nothing to guess
MOST_ACTIVE = 2  # keys of one name: an old one and its successor
LOCK = ".keys.lock"  # in the home: of two changes at once, one would write down the keys as they were before the other
LOOK_EVERY_S = 0.5  # a key that was made or revoked is known to every worker after that


class Key(msgspec.Struct, frozen=True):
    """One key. `name` says whose it is; `rate`: requests a second a worker takes, None any. Moments: seconds since 1970."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    digest: str
    made: float
    revoked: float | None = None
    rate: float | None = None


_decoder = msgspec.json.Decoder(tuple[Key, ...])


class KeyRing:
    """The keys of a home, by digest. Without any, whoever reaches the service may use it."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self.keys = tuple(keys)
        self._by_digest = {key.digest: key for key in keys if key.revoked is None}

    def __bool__(self) -> bool:
        """Whether keys are asked for: one that was revoked still says that they are."""
        return bool(self.keys)

    def find(self, secret: str) -> Key | None:
        """The active key that this is."""
        return self._by_digest.get(digest(secret))


NOBODY = KeyRing([Key("", "nobody", (), "", made=0.0, revoked=0.0)])  # asks for keys, and knows none


def digest(secret: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def keys_path(home: Path) -> Path:
    """Where the keys of a home are kept."""
    return home / "keys.json"


def read_keys(home: Path) -> KeyRing:
    """The keys of a home; none where there is no file. Raises BadRequest where the file is spoiled or cannot be read."""
    try:
        return KeyRing(_decoder.decode(keys_path(home).read_bytes()))
    except FileNotFoundError:
        return KeyRing()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"Expected keys, got something else: {error} - at `{keys_path(home)}`") from error


def make_key(home: Path, name: str, scopes: Sequence[Scope], now: float, rate: float | None = None) -> tuple[Key, str]:
    """A new key and its secret, which nobody can ask for again.

    Raises BadRequest where the name is none or has two active ones already, or the rate lets nothing pass.
    """
    if not name.strip() or not name.isprintable():
        raise BadRequest(f"Expected a name of printable characters, got {name!a} - at `name`")
    if rate is not None and not 0.0 < rate < math.inf:
        raise BadRequest(f"Expected a finite rate above 0, got {rate:g} - at `rate`")
    with locked(home / LOCK):
        ring = read_keys(home)
        active = [key.id for key in ring.keys if key.name == name and key.revoked is None]
        if len(active) >= MOST_ACTIVE:
            found = ", ".join(active)
            raise BadRequest(f"Expected at most {MOST_ACTIVE} active keys of `{name}`, found {found}: revoke one first")
        identifier = secrets.token_hex(4)
        secret = f"{PREFIX}_{identifier}_{secrets.token_urlsafe(SECRET_BYTES)}"
        key = Key(identifier, name, tuple(dict.fromkeys(scopes)), digest(secret), now, rate=rate)
        _write(home, (*ring.keys, key))
    return key, secret


def revoke_key(home: Path, identifier: str, now: float) -> Key:
    """From now on this key opens nothing. Raises BadRequest where there is no such active key."""
    with locked(home / LOCK):
        ring = read_keys(home)
        found = next((key for key in ring.keys if key.id == identifier and key.revoked is None), None)
        if found is None:
            active = ", ".join(key.id for key in ring.keys if key.revoked is None) or "none"
            raise BadRequest(f"Expected the id of an active key ({active}), got `{identifier}`")
        revoked = msgspec.structs.replace(found, revoked=now)
        _write(home, [revoked if key.id == identifier else key for key in ring.keys])
    return revoked


def _write(home: Path, keys: Sequence[Key]) -> None:
    path = keys_path(home)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(list(keys))))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


class WatchedKeys:
    """The keys as they are on disk now, or were half a second ago. A file that cannot be read leaves the keys as they were.

    So does one that is gone or holds none, where keys were asked for: a service does not open while it runs. `is_asked`: they
    were when it started, and this worker came later: then nobody is let in until there are some.
    """

    def __init__(self, home: Path, clock: Callable[[], float] = time.monotonic, *, is_asked: bool = False) -> None:
        self._home = home
        self._clock = clock
        self._seen = self._stamp()
        self._ring = read_keys(home) or (NOBODY if is_asked else KeyRing())
        self._problem: str | None = None
        self._next = clock() + LOOK_EVERY_S

    def __call__(self) -> KeyRing:
        if self._clock() >= self._next:
            self._next = self._clock() + LOOK_EVERY_S
            self._look()
        return self._ring

    def _look(self) -> None:
        stamp = self._stamp()
        problem = None if stamp == self._seen else self._take(stamp)
        if problem is not None and problem != self._problem:
            logger.error("keys stay as they were: %s", problem)
        self._problem = problem

    def _take(self, stamp: tuple[int, int] | None) -> str | None:
        """Follow the file; what keeps it from that. Such a file is looked at again the next time."""
        try:
            ring = read_keys(self._home)
        except NextbestError as error:
            return str(error)
        if self._ring and not ring:
            return f"Expected keys, found none - at `{keys_path(self._home)}`"
        self._ring, self._seen = ring, stamp
        return None

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = keys_path(self._home).stat()
        except FileNotFoundError:
            return None
        except OSError as error:  # whoever reads it tells why
            return 0, error.errno or 0
        return found.st_mtime_ns, found.st_ino


class Rates:
    """Lets so many requests a second pass for each key: a bucket of a second's worth, which refills. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def allows(self, key: Key) -> bool:
        """Whether one more may pass now; it is counted if so."""
        if key.rate is None:
            return True
        now = self._clock()
        most = max(1.0, key.rate)
        left, before = self._left.get(key.id, (most, now))
        left = min(most, left + (now - before) * key.rate)
        self._left[key.id] = (left - 1.0, now) if left >= 1.0 else (left, now)
        return left >= 1.0


def offered(headers: Mapping[bytes, bytes], query: Mapping[str, str]) -> str | None:
    """The key that a request brings: `Authorization: Bearer KEY`, `X-API-Key: KEY`, or `?key=KEY` where no header can be set."""
    kind, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if kind.lower() == "bearer" and value:
        return value.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1") or query.get("key")
