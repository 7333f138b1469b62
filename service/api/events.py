"""`POST /events`: what customers did, each judged on its own; and, in the same round trip, what to show now."""

import time
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, post
from litestar.openapi.datastructures import ResponseSpec

from service.api import examples
from service.api.openapi import PROBLEMS, EventsOperation
from service.api.recommend import as_ask, render
from service.api.wire import EventSent, EventsRequest, EventsResponse, Rejection
from service.decision.records import EventRecord, QuarantinedRecord
from service.errors import BadRequest
from service.events import EventIntake
from service.ids import personal
from service.pipeline import Pipeline

CALL_DECODER = msgspec.json.Decoder(EventsRequest)
EVENT_DECODER = msgspec.json.Decoder(EventSent)
ENCODER = msgspec.json.Encoder()
CLOCK_SKEW_S = 300.0  # how far ahead of ours a client's clock may be
KEPT_CHARACTERS = 20_000  # of an event in quarantine


@post(
    "/events",
    status_code=202,
    operation_class=EventsOperation,
    responses={
        202: ResponseSpec(EventsResponse, description="On disk", generate_examples=False, examples=examples.EVENTS_ANSWER),
        **PROBLEMS,
    },
    summary="What customers did, on any channel",
    tags=["ingest"],
)
async def events(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Write events down and update features. Sending the same `event_id` again changes nothing."""
    started = time.perf_counter()
    intake: EventIntake = request.app.state.events
    call = decode(await request.body())
    ask = None if call.decide is None else as_ask(call.decide, request.app.state.parts.engine())
    taken, spoiled, rejected = judge(call, intake)
    new = await intake.take(taken, spoiled)
    decision = None
    if ask is not None and call.decide is not None:
        pipeline: Pipeline = request.app.state.pipeline
        decision = render(await pipeline.recommend(ask), call.decide.explain, started)
    undeclared = sum(not record.declared for record in new)
    body = EventsResponse(len(new), len(taken) - len(new), undeclared, tuple(rejected), decision)
    return Response(ENCODER.encode(body), status_code=202, media_type=MediaType.JSON)


def decode(body: bytes) -> EventsRequest:
    """The call that a body holds. Raises BadRequest: expected, found, where."""
    try:
        return CALL_DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(str(error)) from error


def judge(call: EventsRequest, intake: EventIntake) -> tuple[list[EventRecord], list[QuarantinedRecord], list[Rejection]]:
    """The events that can be taken, the others as they came, and the reasons against them by index."""
    taken, spoiled, rejected, now = [], [], [], intake.clock()
    for index, raw in enumerate(call.events):
        try:
            taken.append(record_of(EVENT_DECODER.decode(raw), intake, now))
        except (msgspec.DecodeError, UnicodeDecodeError, BadRequest) as error:
            text = bytes(raw).decode(errors="replace")[:KEPT_CHARACTERS]
            spoiled.append(QuarantinedRecord(str(error), now, text))
            rejected.append(Rejection(index, str(error)))
    return taken, spoiled, rejected


def record_of(sent: EventSent, intake: EventIntake, now: float) -> EventRecord:
    """The event as it is written down. Raises BadRequest."""
    customer = sent.customer_id or sent.anonymous_id
    if customer is None:
        raise BadRequest("Expected `customer_id` or `anonymous_id`, got neither - at `$`")
    if (advice := personal(customer)) is not None:
        raise BadRequest(f"{advice} - at `$.{'customer_id' if sent.customer_id else 'anonymous_id'}`")
    at = round(now, 6) if sent.at is None else sent.at.timestamp()
    if at > now + CLOCK_SKEW_S:
        raise BadRequest(f"Expected a time at most {CLOCK_SKEW_S:g} s ahead, got `{sent.at}` - at `$.at`")
    problem = intake.types.problem(sent.type, sent.channel, sent.properties)
    if problem is not None:
        raise BadRequest(problem)
    return EventRecord(
        sent.event_id, customer, sent.type, sent.channel, at, now, sent.properties, declared=sent.type in intake.types
    )
