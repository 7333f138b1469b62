"""A small HTTP client: one kept connection, JSON in and out. What a shop's back end would do."""

import http.client
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

TIMEOUT_S = 5.0


class Client:
    """One connection to a running service; not for several threads at once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)

    def post(self, path: str, body: object) -> tuple[int, Any]:
        """Status and decoded answer. Raises OSError or HTTPException where there is no answer."""
        return self._ask("POST", path, msgspec.json.encode(body))

    def get(self, path: str) -> tuple[int, Any]:
        return self._ask("GET", path, None)

    def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, Any]:
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            return response.status, msgspec.json.decode(response.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next call opens it anew
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()
