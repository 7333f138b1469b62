"""A shorter way for the request that everything else is here for: `POST /recommend` past the framework.

Routing, middleware and responses of the framework take 130 us, a third of what a decision takes. Whatever a request wants beside
its answer, the framework gives it: the page of another site that asks for it, any other path, any other method.
"""

from typing import Any

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send

from service.api.guarding import DECIDE, NEEDS, Guard
from service.api.problems import MEDIA_TYPE, Refusal, refusal, unexpected
from service.api.recommend import answered
from service.errors import NextbestError, TooLarge

PATH, METHOD, ORIGIN = "/recommend", "POST", b"origin"
JSON = (b"content-type", b"application/json")


class Door:
    """The application, to a server."""

    def __init__(self, app: Litestar) -> None:
        self.state: Any = app.state
        self._app = app
        self._guard: Guard = app.state.guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["path"] == PATH and scope["method"] == METHOD:
            headers = dict(scope["headers"])
            if ORIGIN not in headers:
                await self._recommend(scope, headers, receive, send)
                return
        await self._app(scope, receive, send)

    async def _recommend(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        try:
            self._guard.check(DECIDE[NEEDS], headers, scope["query_string"])
            asked = await _body(receive, self._guard.body_limit)
            if asked is None:
                return
            body = await answered(self.state.pipeline, self.state.parts.engine, asked)
        except NextbestError as error:
            await _refuse(refusal(error, self.state.metrics), send)
        except Exception as error:  # noqa: BLE001  # as the framework does: nobody is left without an answer
            await _refuse(unexpected(error, PATH, self.state.metrics), send)
        else:
            await _answer(200, [JSON, (b"content-length", b"%d" % len(body))], body, send)


async def _body(receive: Receive, limit: int) -> bytes | None:
    """All of it; None where the client left. Raises TooLarge, as soon as there is more."""
    parts, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message["body"])
        size, more = size + len(message["body"]), message["more_body"]
        if size > limit:
            raise TooLarge(f"Expected a body of at most {limit} bytes, got more")
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _refuse(told: Refusal, send: Send) -> None:
    named = [(name.lower().encode(), value.encode()) for name, value in told.headers.items()]
    body = told.body
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body)), *named]
    await _answer(told.problem.status, headers, body, send)


async def _answer(status: int, headers: list[tuple[bytes, bytes]], body: bytes, send: Send) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
