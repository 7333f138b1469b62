"""`POST /consents`: what a customer consents to, or no longer; `GET /consents/{customer_id}`: what they said."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from service.api import examples
from service.api.bodies import customer_of, decoded, moment_of
from service.api.guarding import INGEST, OPERATE
from service.api.openapi import PROBLEMS, ConsentsOperation
from service.api.whole_ids import id_after
from service.api.wire import ConsentSaid, ConsentsAnswer, ConsentSent, ConsentsRequest, ConsentsResponse, Rejection
from service.consents import ConsentIntake
from service.decision.records import ConsentRecord
from service.errors import BadRequest

CALL_DECODER = msgspec.json.Decoder(ConsentsRequest)
CONSENT_DECODER = msgspec.json.Decoder(ConsentSent)


@post(
    "/consents",
    opt=INGEST,
    status_code=202,
    operation_class=ConsentsOperation,
    responses={
        202: ResponseSpec(ConsentsResponse, description="They hold", generate_examples=False, examples=examples.CONSENTS_ANSWER),
        **PROBLEMS,
    },
    summary="What customers consent to, or no longer",
    tags=["ingest"],
)
async def consents(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Each is judged on its own; of several for one purpose the latest `at` holds. Sending one again changes nothing."""
    intake: ConsentIntake = request.app.state.consents
    call = decoded(CALL_DECODER, await request.body())
    taken, rejected, now, purposes = [], [], intake.clock(), intake.purposes()
    for index, raw in enumerate(call.consents):
        try:
            taken.append(_record(decoded(CONSENT_DECODER, raw), purposes, now))
        except BadRequest as error:
            rejected.append(Rejection(index, str(error)))
    await intake.take(taken)
    body = msgspec.json.encode(ConsentsResponse(len(taken), tuple(rejected)))
    return Response(body, status_code=202, media_type=MediaType.JSON)


@get(
    "/consents/{customer_id:path}",
    opt=OPERATE,
    responses={200: ResponseSpec(ConsentsAnswer, generate_examples=False), **PROBLEMS},
    summary="What a customer said, by purpose",
    tags=["ingest"],
)
async def consents_of(
    request: Request[Any, Any, Any],
    customer_id: FromPath[str],  # noqa: ARG001  # for the OpenAPI document
) -> Response[bytes]:
    """Purposes of which they said nothing are left out; any of their ids will do."""
    intake: ConsentIntake = request.app.state.consents
    customer = customer_of(id_after("/consents/", request), None)
    known = await intake.known(customer)
    said = {name: ConsentSaid(one.given, dt.datetime.fromtimestamp(one.at, dt.UTC)) for name, one in sorted(known.items())}
    return Response(msgspec.json.encode(ConsentsAnswer(customer, said)), media_type=MediaType.JSON)


def _record(sent: ConsentSent, purposes: Sequence[str], now: float) -> ConsentRecord:
    """The consent as it is written down. Raises BadRequest."""
    customer = customer_of(sent.customer_id, sent.anonymous_id)
    if sent.purpose not in purposes:
        listed = ", ".join(f"`{name}`" for name in purposes) or "none"
        raise BadRequest(f"Expected a purpose of the catalog ({listed}), got `{sent.purpose}` - at `$.purpose`")
    at = moment_of(sent.at, now)
    return ConsentRecord(customer, sent.purpose, sent.given, min(at, now), now, sent.source)
