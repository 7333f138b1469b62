"""A span for each request, where somebody collects them."""

from typing import cast

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from service.tracing import Tracer


class TracedRequests(ASGIMiddleware):
    """Stands before the door: who was turned away is traced, too."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        route: str = scope["path_template"]  # paths themselves hold ids
        with self._tracer.request(cast("HTTPScope", scope)["method"], route, dict(scope["headers"])) as traced:

            async def told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._tracer.answered(traced, message["status"])
                await send(message)

            await next_app(scope, receive, told)
