"""What operators ask: is it alive, is it ready, what does it count."""

from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.openapi.datastructures import ResponseSpec
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.guarding import NO_KEY, OPERATE
from service.api.wire import Health
from service.errors import NotReady
from service.metrics import Metrics


@get(
    "/live",
    opt=NO_KEY,
    summary="The process runs",
    tags=["operate"],
    responses={200: ResponseSpec(Health, generate_examples=False)},
)
async def live() -> Response[bytes]:
    """200 as long as the process can answer at all."""
    return _health(Health("live"), 200)


@get(
    "/ready",
    opt=NO_KEY,
    summary="Requests can be answered",
    tags=["operate"],
    responses={200: ResponseSpec(Health, generate_examples=False), 503: ResponseSpec(Health, generate_examples=False)},
)
async def ready(request: Request[Any, Any, Any]) -> Response[bytes]:
    """200 once a catalog serves; `problem` says why a newer version does not, or what it lacks. 503 once it is told to stop."""
    if request.app.state.draining:
        return _health(Health("stopping"), 503)
    problem: str | None = request.app.state.engines.problem
    try:
        versions = request.app.state.engines.engine.versions
    except NotReady as error:
        return _health(Health("not ready", problem=str(error)), 503)
    return _health(Health("ready", versions.catalog, versions.bundle, problem), 200)


@get("/metrics", opt=OPERATE, summary="Prometheus metrics", tags=["operate"], media_type=MediaType.TEXT)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The exposition format."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.text(), media_type=CONTENT_TYPE_LATEST)


def _health(health: Health, status: int) -> Response[bytes]:
    return Response(msgspec.json.encode(health), status_code=status, media_type=MediaType.JSON)
