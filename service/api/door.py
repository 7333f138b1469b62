"""A shorter way for the request that everything else is here for: `POST /recommend` past the framework.

Routing, middleware and responses of the framework take 130 us, a third of what a decision takes. Whatever a request wants beside
its answer, the framework gives it: the page of another site that asks for it, any other path, any other method.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from service.api.guarding import DECIDE, NEEDS, Guard
from service.api.problems import MEDIA_TYPE, Refusal, refusal, unexpected
from service.api.recommend import answered
from service.errors import NextbestError, TooLarge
from service.metrics import Metrics
from service.pipeline import Pipeline

PATH, METHOD, ORIGIN = "/recommend", "POST", b"origin"
JSON = [(b"content-type", b"application/json")]


class Asked(NamedTuple):
    """What is looked at of a request beside its body."""

    headers: dict[bytes, bytes]
    query: bytes


class Response(NamedTuple):
    """What goes over the wire, its length aside."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Door:
    """The application, to a server."""

    def __init__(self, app: Litestar) -> None:
        self.state: Any = app.state
        self._app = app
        self._guard: Guard = app.state.guard
        self._pipeline: Pipeline = app.state.pipeline
        self._metrics: Metrics = app.state.metrics
        self._promised: Callable[[float], None] = app.state.limiter.promised
        self.body_limit = self._guard.body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self.asked(scope) if scope["type"] == ScopeType.HTTP else None
        if asked is None:
            await self._app(scope, receive, send)
            return
        response = await self.respond(asked, lambda: _body(receive, self.body_limit))
        if response is not None:
            await _send(response, send)

    def asked(self, scope: HTTPScope) -> Asked | None:
        """A request that goes the shorter way; None where it is another."""
        if scope["path"] != PATH or scope["method"] != METHOD:
            return None
        headers = dict(scope["headers"])
        return None if ORIGIN in headers else Asked(headers, scope["query_string"])

    async def respond(self, asked: Asked, body: Callable[[], Awaitable[bytes | None]]) -> Response | None:
        """What to answer; None where the client left. `body` is asked for once the request may come in, and raises TooLarge."""
        try:
            self._guard.check(DECIDE[NEEDS], asked.headers, asked.query)
            wanted = await body()
            if wanted is None:
                return None
            return Response(200, JSON, await answered(self._pipeline, wanted, self._promised))
        except NextbestError as error:
            return _refused(refusal(error, self._metrics))
        except Exception as error:  # noqa: BLE001  # as the framework does: nobody is left without an answer
            return _refused(unexpected(error, PATH, self._metrics))


async def _body(receive: Receive, limit: int) -> bytes | None:
    """All of it; None where the client left. Raises TooLarge, as soon as there is more."""
    parts, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message["body"])
        size, more = size + len(message["body"]), message["more_body"]
        check_size(size, limit)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check_size(size: int, limit: int) -> None:
    """Raises TooLarge."""
    if size > limit:
        raise TooLarge(f"Expected a body of at most {limit} bytes, got more")


def _refused(told: Refusal) -> Response:
    named = [(name.lower().encode(), value.encode()) for name, value in told.headers.items()]
    return Response(told.problem.status, [(b"content-type", MEDIA_TYPE.encode()), *named], told.body)


async def _send(response: Response, send: Send) -> None:
    headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": False})
