"""A pipelined connection to Redis: bytes out, replies in order. Nothing that the read path does not need.

redis-py's asyncio client costs half a second of import and, for 16 reads in one pipeline, more than twice the time.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from service.errors import BadRequest, DependencyDown, DependencyFailed, DependencyRefused

REFUSED = "Expected a value from Redis, got: {}"
FAILURES = hiredis.ReplyError, DependencyFailed  # among replies: what Redis told, and why it told nothing


class Address(NamedTuple):
    """Where a Redis listens, and what it wants to hear first."""

    host: str
    port: int
    path: str  # of a unix socket; empty for TCP
    username: str
    password: str
    database: int
    secure: ssl.SSLContext | None  # whom TLS trusts; None without it


def parse_address(url: str) -> Address:
    """`redis://[user:password@]host[:port][/db]`, `rediss://...`, `unix:///path[?db=n]`. Raises BadRequest."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise BadRequest(f"Expected a Redis URL such as `redis://host:6379/0` or `unix:///path`, got `{url}`")
    is_socket = parts.scheme == "unix"
    given = parse_qs(parts.query).get("db", [""])[0] or ("" if is_socket else parts.path.strip("/"))
    if given and not given.isdigit():
        raise BadRequest(f"Expected the number of a database, got `{given}` - in `{url}`")
    return Address(
        host=parts.hostname or "localhost", port=parts.port or 6379, path=unquote(parts.path) if is_socket else "",
        username=unquote(parts.username or ""), password=unquote(parts.password or ""), database=int(given or 0),
        secure=_trusted() if parts.scheme == "rediss" else None,
    )  # fmt: skip


@cache
def _trusted() -> ssl.SSLContext:
    """What the system's authorities vouch for. They are read once, before anybody waits: that takes 50 ms, and stops the loop."""
    return ssl.create_default_context()


class _Pending(NamedTuple):
    """A question on the wire: so many replies belong to it."""

    wanted: int
    replies: list[Any]
    answer: asyncio.Future[list[Any]]


class Connection(asyncio.Protocol):
    """Questions may overlap; replies come back in their order."""

    def __init__(self) -> None:
        self._parser = hiredis.Reader(replyError=self._error)
        self.is_replica = False  # whether it refused something as a replica does
        self._pending: deque[_Pending] = deque()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _error(self, text: str) -> hiredis.ReplyError:
        # after what Redis 6 says of the script where a script wanted to write; a replica without its primary may also not be read
        self.is_replica |= "READONLY" in text or text.startswith("MASTERDOWN") or "stale replica" in text
        return hiredis.ReplyError(text)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream connection's transport reads and writes

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(DependencyFailed(f"Expected an answer from Redis, lost the connection: {exc or 'closed by Redis'}"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        try:
            while (reply := self._parser.gets()) is not False and self._pending:
                self._take(reply)
        except hiredis.ProtocolError as error:
            self._fail(DependencyFailed(f"Expected Redis's protocol, got something else: {error}"))
            self.abort()

    def _take(self, reply: Any) -> None:  # noqa: ANN401  # whatever Redis says
        question = self._pending[0]
        question.replies.append(reply)
        if len(question.replies) == question.wanted:
            self._pending.popleft()
            if not question.answer.done():
                question.answer.set_result(question.replies)

    def _fail(self, error: DependencyFailed) -> None:
        while self._pending:
            question = self._pending.popleft()
            if not question.answer.done():
                question.answer.set_exception(error)

    def ask(self, commands: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Send encoded commands; the future holds one reply per command. Error replies are `hiredis.ReplyError`s among them."""
        if self._transport is None:
            raise DependencyFailed("Expected an open connection to Redis, found it closed")
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(count, [], answer))
        self._transport.write(commands)
        return answer

    def abort(self) -> None:
        """Close at once; what is pending fails."""
        if self._transport is not None:
            self._transport.abort()


async def connect(address: Address) -> Connection:
    """An open connection, authenticated, with its database selected. Raises DependencyFailed and OSError."""
    loop = asyncio.get_running_loop()
    if address.path:
        _, connection = await loop.create_unix_connection(Connection, address.path)
    else:
        _, connection = await loop.create_connection(Connection, address.host, address.port, ssl=address.secure)
    greeting = _greeting(address)
    if greeting:
        try:
            check(await connection.ask(b"".join(encode(*command) for command in greeting), len(greeting)))
        except BaseException:
            connection.abort()  # also where nobody waits any more: the loop would keep it open
            raise
    return connection


def _greeting(address: Address) -> list[tuple[str, ...]]:
    user = (address.username,) if address.username else ()
    login = [("AUTH", *user, address.password)] if address.password else []
    return [*login, *([("SELECT", str(address.database))] if address.database else [])]


def check(replies: Sequence[Any]) -> Sequence[Any]:
    """The replies, none of them a failure or an error. Raises what says that nothing was done only where nothing was."""
    wrong = [reply for reply in replies if isinstance(reply, FAILURES)]
    if wrong:
        raise _worst(wrong, is_all=len(wrong) == len(replies))
    return replies


def _worst(wrong: Sequence[hiredis.ReplyError | DependencyFailed], *, is_all: bool) -> DependencyFailed:
    failures = [reply for reply in wrong if isinstance(reply, DependencyFailed)]
    for failure in failures:
        if not isinstance(failure, DependencyDown):
            return failure
    if is_all:
        return failures[0] if failures else DependencyRefused(REFUSED.format(wrong[0]))
    return DependencyFailed(str(failures[0]) if failures else REFUSED.format(wrong[0]))


def encode(*words: str | bytes) -> bytes:
    """One command in Redis's protocol."""
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))


def get(key: str) -> bytes:
    """The command that is sent most."""
    data = key.encode()
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(data), data)


def bulk(word: str | bytes) -> bytes:
    """One word of a command."""
    data = word.encode() if isinstance(word, str) else word
    return b"$%d\r\n%b\r\n" % (len(data), data)
