"""`POST /identities`: two ids are one customer."""

from typing import Any

import msgspec
from litestar import MediaType, Request, Response, post
from litestar.openapi.datastructures import ResponseSpec

from service.api import examples
from service.api.bodies import decoded
from service.api.guarding import INGEST
from service.api.openapi import PROBLEMS, IdentitiesOperation
from service.api.wire import IdentitiesRequest, IdentitiesResponse, IdentityLink, Rejection
from service.identities import IdentityIntake
from service.ids import personal

DECODER = msgspec.json.Decoder(IdentitiesRequest)


@post(
    "/identities",
    opt=INGEST,
    status_code=202,
    operation_class=IdentitiesOperation,
    responses={
        202: ResponseSpec(IdentitiesResponse, description="Linked", generate_examples=False, examples=examples.IDENTITIES_ANSWER),
        **PROBLEMS,
    },
    summary="Which ids are the same customer",
    tags=["ingest"],
)
async def identities(request: Request[Any, Any, Any]) -> Response[bytes]:
    """What was known of the alias becomes the customer's. Sending a link again changes nothing."""
    intake: IdentityIntake = request.app.state.identities
    call = decoded(DECODER, await request.body())
    advice = {n: found for n, one in enumerate(call.links) if (found := _refused(one))}
    good = [n for n in range(len(call.links)) if n not in advice]
    done = await intake.take([(call.links[n].alias, call.links[n].customer_id) for n in good])
    taken = {good[n]: "Expected an alias of nobody else, got one that is: unlink it first" for n in done.taken}
    rejected = tuple(Rejection(n, text) for n, text in sorted((advice | taken).items()))
    body = msgspec.json.encode(IdentitiesResponse(done.linked, done.known, rejected))
    return Response(body, status_code=202, media_type=MediaType.JSON)


def _refused(link: IdentityLink) -> str | None:
    """Why a link is none, with advice."""
    if link.alias == link.customer_id:
        return f"Expected two ids, got `{link.alias}` as an alias of itself"
    return personal(link.alias) or personal(link.customer_id)
