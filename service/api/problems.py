"""Errors as answers: the one place that turns an exception into `application/problem+json`."""

from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from service.api.wire import Problem
from service.errors import CatalogInvalid, DependencyFailed, IdReused, NextbestError, NotReady, TooManyRequests, Unauthorized
from service.logs import logger
from service.metrics import Metrics

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1  # long enough for a restart of the log or the first publish, short enough for a person to wait


class Refusal(NamedTuple):
    """An error as it goes over the wire."""

    problem: Problem
    headers: dict[str, str]

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self.problem)

    def response(self) -> Response[bytes]:
        return Response(self.body, status_code=self.problem.status, media_type=MEDIA_TYPE, headers=self.headers)


def refusal(error: NextbestError, metrics: Metrics) -> Refusal:
    """Ours: expected, found, where; and when to come back. Counted."""
    metrics.errors.labels(str(error.status)).inc()
    errors = error.problems if isinstance(error, CatalogInvalid | IdReused) else ()
    headers = {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, NotReady | DependencyFailed | TooManyRequests) else {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return Refusal(Problem(error.title, error.status, str(error), errors=errors), headers)


def unexpected(error: Exception, path: str, metrics: Metrics) -> Refusal:
    """A defect of ours: logged whole, told briefly. Counted."""
    metrics.errors.labels("500").inc()
    logger.error("unexpected error", exc_info=error, extra={"fields": {"path": path}})
    return Refusal(Problem("Internal error", 500, "Unexpected error; the server's log has the details"), {})


def from_nextbest(request: Request[Any, Any, Any], error: NextbestError) -> Response[bytes]:
    """For the framework."""
    return refusal(error, request.app.state.metrics).response()


def from_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """The framework's own: no such route, wrong method, body too large."""
    metrics: Metrics = request.app.state.metrics
    metrics.errors.labels(str(error.status_code)).inc()
    title, detail = HTTPStatus(error.status_code).phrase.capitalize(), error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"Expected a path of the interface (`/schema` lists them), got `{request.url.path}`"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"Expected another method (`/schema` says which), got `{request.method}` - at `{request.url.path}`"
    return Refusal(Problem(title, error.status_code, detail), dict(error.headers or {})).response()


def from_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """For the framework."""
    return unexpected(error, request.url.path, request.app.state.metrics).response()
