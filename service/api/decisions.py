"""`GET /decisions/{id}`: why a decision was made, and what would have made another."""

from typing import Annotated, Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from service.api.guarding import OPERATE
from service.api.openapi import PROBLEMS
from service.api.whole_ids import id_after
from service.decision.explain import Explanation
from service.explaining import Explainer

EVERY = "*"  # the smallest change of every action that was not shown


@get(
    "/decisions/{decision_id:path}",
    opt=OPERATE,
    responses={
        200: ResponseSpec(Explanation, description="The decision, and every action at every placement", generate_examples=False),
        **{status: PROBLEMS[status] for status in (404, 409)},
    },
    summary="Why a decision was made",
    tags=["explain"],
)
async def decision(
    request: Request[Any, Any, Any],
    decision_id: FromPath[str],  # noqa: ARG001  # for the OpenAPI document
    changes: Annotated[
        str | None,
        QueryParameter(description="Actions, with commas, or `*`: look for the smallest change that would have shown them."),
    ] = None,
) -> Response[bytes]:
    """The record, and for every action the stage and rule that dropped it, or its factors and rank."""
    explainer: Explainer = request.app.state.explainer
    wanted = None if changes == EVERY else frozenset(filter(None, (changes or "").split(",")))
    found = await explainer.explain(id_after("/decisions/", request), wanted)
    return Response(msgspec.json.encode(found), media_type=MediaType.JSON)
