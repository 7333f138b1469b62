"""Who may come in: every route says what it needs, and a request brings a key that has it. Nothing of the body is read before."""

from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qs

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.errors import BadRequest, Forbidden, TooLarge, TooManyRequests, Unauthorized
from service.keys import OPEN, SCOPES, Key, KeyRing, Rates, offered

NEEDS = "needs"  # the option in which a route declares its scope
DECIDE, INGEST, OPERATE, NO_KEY = ({NEEDS: scope} for scope in (*SCOPES, OPEN))


class Guard(ASGIMiddleware):
    """Stands between the router and the routes. `keys` gives the keys of this moment; without any, everybody may come in."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, keys: Callable[[], KeyRing], rates: Rates, body_limit: int) -> None:
        self._keys = keys
        self._rates = rates
        self.body_limit = body_limit

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        method = cast("HTTPScope", scope)["method"]
        needed = OPEN if method == "OPTIONS" else scope["route_handler"].opt[NEEDS]
        self.check(needed, dict(scope["headers"]), scope["query_string"])
        await next_app(scope, receive, send)

    def check(self, needed: str, headers: dict[bytes, bytes], query: bytes) -> None:
        """Raises Unauthorized, Forbidden, TooManyRequests, and TooLarge or BadRequest for what is said of the body's length."""
        ring = self._keys()
        if needed != OPEN and ring:
            self._check_key(ring, headers, query, needed)
        self._check_length(headers.get(b"content-length"))

    def check_further(self, needed: str, headers: dict[bytes, bytes], query: bytes) -> None:
        """What a request turns out to need, too: it came in, so its rate was counted. Raises Unauthorized, Forbidden."""
        if ring := self._keys():
            _key(ring, headers, query, needed)

    def _check_key(self, ring: KeyRing, headers: dict[bytes, bytes], query: bytes, needed: str) -> None:
        """Raises Unauthorized, Forbidden, TooManyRequests."""
        key = _key(ring, headers, query, needed)
        if not self._rates.allows(key):
            raise TooManyRequests(f"Expected at most {key.rate:g} requests a second with this key, got more")

    def _check_length(self, told: bytes | None) -> None:
        """A body that says it is too long is not waited for; one that lies is cut off while it comes. Raises TooLarge."""
        if told is None:
            return
        if not told.isdigit():
            raise BadRequest("Expected a number of bytes - at `Content-Length`")
        if int(told) > self.body_limit:
            raise TooLarge(f"Expected a body of at most {self.body_limit} bytes, got {int(told)}")


def _key(ring: KeyRing, headers: dict[bytes, bytes], query: bytes, needed: str) -> Key:
    """The key that a request brings. Raises Unauthorized, Forbidden."""
    secret = offered(headers, _plain_query(query))
    key = ring.find(secret) if secret else None
    if key is None:
        raise Unauthorized(f"Expected an active key for `{needed}`, got {'one that is not' if secret else 'none'}")
    if needed not in key.scopes:
        raise Forbidden(f"Expected a key for `{needed}`, got one for {', '.join(f'`{s}`' for s in key.scopes)}")
    return key


def _plain_query(query: bytes) -> dict[str, str]:
    if b"key=" not in query:
        return {}
    return {name: values[0] for name, values in parse_qs(query.decode("latin-1")).items()}


def check_routes(app: Litestar) -> None:
    """Raises TypeError where a route does not say what it needs: then there is no service."""
    known = (*SCOPES, OPEN)
    for route in app.routes:
        handlers: list[Any] = getattr(route, "route_handlers", None) or [getattr(route, "route_handler", None)]
        for handler in handlers:
            if handler.opt.get(NEEDS) not in known and handler.http_methods != {"OPTIONS"}:
                raise TypeError(
                    f"Expected a scope ({', '.join(known)}), got `{handler.opt.get(NEEDS)}` - at route `{route.path}`"
                )
