"""Errors as answers: the one place that turns an exception into `application/problem+json`."""

from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from service.api.wire import Problem
from service.errors import CatalogInvalid, DependencyFailed, IdReused, NextbestError, NotReady, TooManyRequests, Unauthorized
from service.logs import logger
from service.metrics import Metrics

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1  # long enough for a restart of the log or the first publish, short enough for a person to wait


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(msgspec.json.encode(problem), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def from_nextbest(request: Request[Any, Any, Any], error: NextbestError) -> Response[bytes]:
    """Ours: expected, found, where; and when to come back."""
    _count(request, error.status)
    errors = error.problems if isinstance(error, CatalogInvalid | IdReused) else ()
    headers = {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, NotReady | DependencyFailed | TooManyRequests) else {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return problem_response(Problem(error.title, error.status, str(error), errors=errors), headers)


def from_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """The framework's: no such route, wrong method, body too large."""
    _count(request, error.status_code)
    return problem_response(Problem(type(error).__name__, error.status_code, error.detail), dict(error.headers or {}))


def from_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A defect of ours: logged whole, told briefly."""
    _count(request, 500)
    logger.error("unexpected error", exc_info=error, extra={"fields": {"path": request.url.path}})
    return problem_response(Problem("Internal error", 500, "Unexpected error; the server's log has the details"))


def _count(request: Request[Any, Any, Any], status: int) -> None:
    metrics: Metrics = request.app.state.metrics
    metrics.errors.labels(str(status)).inc()
