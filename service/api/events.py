"""`POST /events`: what customers did, each judged on its own; and, in the same round trip, what to show now."""

import time
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, post
from litestar.openapi.datastructures import ResponseSpec

from service.api import examples
from service.api.bodies import customer_of, decoded, moment_of
from service.api.guarding import DECIDE, INGEST, NEEDS, Guard
from service.api.openapi import PROBLEMS, EventsOperation
from service.api.recommend import as_ask, render
from service.api.reused import all_rejected
from service.api.wire import EventSent, EventsRequest, EventsResponse, Rejection
from service.decision.records import EventRecord, QuarantinedRecord, sent_as
from service.errors import BadRequest
from service.events import EventIntake
from service.pipeline import Pipeline, check_placements

CALL_DECODER = msgspec.json.Decoder(EventsRequest)
EVENT_DECODER = msgspec.json.Decoder(EventSent)
ENCODER = msgspec.json.Encoder()
KEPT_CHARACTERS = 20_000  # of an event in quarantine
FED_SHARE = 0.5  # of a decision's deadline, for which it waits for what its events feed: where Redis hangs, it comes without


@post(
    "/events",
    opt=INGEST,
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
    """Write events down and update features.

    Sending the same `event_id` again changes nothing; with other content, it is refused. With `decide`, the key has to be one for
    that, too.
    """
    started = time.perf_counter()
    intake: EventIntake = request.app.state.events
    call = decoded(CALL_DECODER, await request.body())
    if call.decide is not None:
        guard: Guard = request.app.state.guard
        guard.check_further(DECIDE[NEEDS], dict(request.scope["headers"]), request.scope["query_string"])
    ask = None if call.decide is None else as_ask(call.decide)
    if ask is not None:
        check_placements(ask, request.app.state.parts.engine())  # before anything is written down
    taken, spoiled, rejected = judge(call, intake)
    new, reused = await intake.write_down(taken, spoiled)
    on_disk = time.perf_counter()  # the deadline is that of the rest
    await intake.follow(new, None if ask is None else ask.deadline * FED_SHARE)
    refused = all_rejected(rejected, reused, [record.event_id for record in taken], "event_id", alone=ask is None)
    decision = None
    if ask is not None and call.decide is not None:
        pipeline: Pipeline = request.app.state.pipeline
        left = max(0.001, ask.deadline - (time.perf_counter() - on_disk))
        decision = render(await pipeline.recommend(msgspec.structs.replace(ask, deadline=left)), call.decide, started)
    undeclared = sum(not record.declared for record in new)
    body = EventsResponse(len(new), len(taken) - len(new) - len(reused), undeclared, refused, decision)
    return Response(ENCODER.encode(body), status_code=202, media_type=MediaType.JSON)


def judge(call: EventsRequest, intake: EventIntake) -> tuple[list[EventRecord], list[QuarantinedRecord], list[Rejection]]:
    """The events that can be taken, the others as they came, and the reasons against them by index."""
    taken, spoiled, rejected, now = [], [], [], intake.clock()
    for index, raw in enumerate(call.events):
        try:
            taken.append(record_of(decoded(EVENT_DECODER, raw), intake, now))
        except BadRequest as error:
            text = bytes(raw).decode(errors="replace")[:KEPT_CHARACTERS]
            spoiled.append(QuarantinedRecord(str(error), now, text))
            rejected.append(Rejection(index, str(error)))
    return taken, spoiled, rejected


def record_of(sent: EventSent, intake: EventIntake, now: float) -> EventRecord:
    """The event as it is written down. Raises BadRequest."""
    customer = customer_of(sent.customer_id, sent.anonymous_id)
    at = moment_of(sent.at, now)
    problem = intake.types.problem(sent.type, sent.channel, sent.properties)
    if problem is not None:
        raise BadRequest(problem)
    return EventRecord(
        sent.event_id, customer, sent.type, sent.channel, at, now, sent.properties,
        declared=sent.type in intake.types,
        sent=sent_as(customer, sent.type, sent.channel, None if sent.at is None else at, sent.properties),
    )  # fmt: skip
