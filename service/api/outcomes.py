"""`POST /outcomes`: each outcome judged on its own, acknowledged once it is on disk."""

import math
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, post
from litestar.openapi.datastructures import ResponseSpec

from service.api import examples
from service.api.bodies import decoded, moment_of
from service.api.guarding import INGEST
from service.api.openapi import PROBLEMS, OutcomesOperation
from service.api.reused import all_rejected
from service.api.wire import Outcome, OutcomesRequest, OutcomesResponse, Rejection
from service.decision.records import OutcomeRecord, sent_as
from service.errors import BadRequest
from service.feedback import take_outcomes
from service.metrics import Metrics
from service.pipeline import Parts
from service.ports import Acknowledgement

CALL_DECODER = msgspec.json.Decoder(OutcomesRequest)
OUTCOME_DECODER = msgspec.json.Decoder(Outcome)


@post(
    "/outcomes",
    opt=INGEST,
    status_code=202,
    operation_class=OutcomesOperation,
    responses={
        202: ResponseSpec(OutcomesResponse, description="On disk", generate_examples=False, examples=examples.OUTCOMES_ANSWER),
        **PROBLEMS,
    },
    summary="What came of what was shown",
    tags=["ingest"],
)
async def outcomes(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Write outcomes down. Sending the same `outcome_id` again changes nothing; with other content, it is refused."""
    parts: Parts = request.app.state.parts
    accepted, rejected = judge(await request.body(), parts.clock(), parts.ids_kept_s)
    done = await take_outcomes(parts, accepted) if accepted else Acknowledgement(0, 0, 0)
    _count(parts.metrics, done, len(rejected) + len(done.reused))
    refused = all_rejected(rejected, done.reused, [record.outcome_id for record in accepted], "outcome_id")
    body = OutcomesResponse(done.accepted, done.duplicates, done.orphans, done.late, refused)
    return Response(msgspec.json.encode(body), status_code=202, media_type=MediaType.JSON)


def judge(body: bytes, now: float, kept_s: float) -> tuple[list[OutcomeRecord], list[Rejection]]:
    """The outcomes of a call that can be written down, and the reasons against the others. Raises BadRequest.

    `kept_s`: how long ids are known, in seconds.
    """
    call = decoded(CALL_DECODER, body)
    accepted, rejected = [], []
    for index, raw in enumerate(call.outcomes):
        try:
            accepted.append(_record(decoded(OUTCOME_DECODER, raw), now, kept_s))
        except BadRequest as error:
            rejected.append(Rejection(index, str(error)))
    return accepted, rejected


def _record(outcome: Outcome, now: float, kept_s: float) -> OutcomeRecord:
    at = moment_of(outcome.at, now)
    if not math.isfinite(outcome.value):
        raise BadRequest(f"Expected a finite number, got `{outcome.value}` - at `$.value`")
    return OutcomeRecord(
        outcome_id=outcome.outcome_id, decision_id=outcome.decision_id, type=outcome.type, at=at, received_at=now,
        placement=outcome.placement, action_id=outcome.action_id, value=outcome.value,
        late=at < now - kept_s,
        sent=sent_as(outcome.decision_id, outcome.type, at, outcome.placement, outcome.action_id, outcome.value),
    )  # fmt: skip


def _count(metrics: Metrics, done: Acknowledgement, rejected: int) -> None:
    for result, count in (
        ("accepted", done.accepted),
        ("duplicate", done.duplicates),
        ("orphan", done.orphans),
        ("late", done.late),
        ("rejected", rejected),
    ):
        metrics.outcomes.labels(result).inc(count)
