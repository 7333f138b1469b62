"""`POST /recommend`: the wire format in, the pipeline's answer out."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, post
from litestar.openapi.datastructures import ResponseSpec

from service.api import examples
from service.api.bodies import customer_of, decoded
from service.api.guarding import DECIDE
from service.api.openapi import PROBLEMS, RecommendOperation
from service.api.wire import (
    AnswerVersions,
    Candidate,
    Experiment,
    Explain,
    Explanation,
    Item,
    PlacementAnswer,
    RecommendRequest,
    RecommendResponse,
)
from service.asks import Ask, PlacementAsked, as_sent
from service.decision.engine import Engine, without_models
from service.decision.explain import PlacementExplained, explain
from service.decision.records import PlacementRecord, ServedItem
from service.errors import BadRequest
from service.ids import new_decision_id
from service.pipeline import NOT_LOGGED, Answer, Pipeline

DECODER = msgspec.json.Decoder(RecommendRequest)
ENCODER = msgspec.json.Encoder()
RESERVE_S = 0.005  # of the deadline, kept for encoding and sending


@post(
    "/recommend",
    opt=DECIDE,
    status_code=200,
    operation_class=RecommendOperation,
    responses={
        200: ResponseSpec(
            RecommendResponse, description="What to show", generate_examples=False, examples=examples.RECOMMEND_ANSWER
        ),
        **PROBLEMS,
    },
    summary="What to show this customer now",
    tags=["decide"],
)
async def recommend(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Choose the next best action for each placement; never later than the deadline."""
    state = request.app.state
    body = await answered(state.pipeline, await request.body(), state.limiter.promised)
    return Response(body, media_type=MediaType.JSON)


async def answered(pipeline: Pipeline, body: bytes, promised: Callable[[float], None]) -> bytes:
    """From the body of a request to the body of its answer. `promised` is told how many seconds it may take."""
    started = time.perf_counter()
    wanted = decoded(DECODER, body)
    promised(wanted.deadline_ms / 1000)
    answer = await pipeline.recommend(as_ask(wanted))
    return ENCODER.encode(render(answer, wanted, started))


def as_ask(wanted: RecommendRequest) -> Ask:
    """The request in the pipeline's terms. Raises BadRequest."""
    customer = customer_of(wanted.customer_id, wanted.anonymous_id)
    ask = Ask(
        decision_id=wanted.decision_id or new_decision_id(customer),
        customer_id=customer,
        context=wanted.context,
        placements=_placements(wanted),
        exclude_actions=wanted.exclude_actions,
        candidates=wanted.candidates,
        deadline=max(0.001, wanted.deadline_ms / 1000 - RESERVE_S),
        dry_run=wanted.dry_run,
        is_short=wanted.placements is None,
    )
    return ask if wanted.decision_id is None else as_sent(ask)


def _placements(wanted: RecommendRequest) -> tuple[PlacementAsked, ...]:
    if (wanted.placement is None) == (wanted.placements is None):
        raise BadRequest("Expected either `placement` or `placements`, got both or neither - at `$`")
    if wanted.placements is None:
        return (PlacementAsked(wanted.placement or ""),)
    seen = set()
    for index, placement in enumerate(wanted.placements):
        if placement.id in seen:
            raise BadRequest(f"Expected each placement once, got `{placement.id}` twice - at `$.placements[{index}].id`")
        seen.add(placement.id)
    return tuple(PlacementAsked(placement.id, placement.slots) for placement in wanted.placements)


def render(answer: Answer, asked: RecommendRequest, started: float) -> RecommendResponse:
    """The answer as it goes over the wire, creatives included."""
    record, engine = answer.record, answer.engine.of(answer.record.experiment)
    explained = _explained(answer) if asked.explain == "full" else (None,) * len(record.placements)
    return RecommendResponse(
        decision_id=record.decision_id,
        customer_id=record.customer_id,
        placements=tuple(_placement(p, engine, asked.explain, e) for p, e in zip(record.placements, explained, strict=True)),
        experiment=Experiment(record.experiment.id, record.experiment.arm) if record.experiment else None,
        versions=AnswerVersions(record.versions.catalog, record.versions.bundle, record.versions.predicts),
        degraded=record.degraded,
        logged=not asked.dry_run and NOT_LOGGED not in record.degraded,
        took_ms=round((time.perf_counter() - started) * 1000, 3),
    )


def _explained(answer: Answer) -> tuple[PlacementExplained, ...]:
    """By the models that decided: where they failed, by none, for they would fail again."""
    record, engine = answer.record, answer.engine
    gave_up = record.versions.bundle is None and record.versions != engine.of(record.experiment).versions
    return explain(without_models(engine) if gave_up else engine, record).placements


def _placement(record: PlacementRecord, engine: Engine, asked: Explain, explained: PlacementExplained | None) -> PlacementAnswer:
    return PlacementAnswer(
        id=record.id,
        items=tuple(_item(item, record, engine) for item in record.items),
        fallback=record.fallback,
        explanation=_explanation(record, asked, explained),
    )


def _item(item: ServedItem, record: PlacementRecord, engine: Engine) -> Item:
    if record.fallback:
        content, reason = engine.plans[record.id].placement.fallback.content, "fallback"
    else:
        content, reason = engine.content(item.action_id, item.treatment_id), _reason(item, engine)
    return Item(
        rank=item.rank, action_id=item.action_id, treatment_id=item.treatment_id, kind=item.kind, content=content,
        predicted_rate=item.predicted_rate, utility=item.utility, choice_probability=item.choice_probability,
        explored=item.explored, reasons=(reason,),
    )  # fmt: skip


def _reason(item: ServedItem, engine: Engine) -> str:
    if engine.mandatory[engine.positions[item.action_id]]:
        return "mandatory"
    return "explored" if item.explored else "highest_utility"


def _explanation(record: PlacementRecord, asked: Explain, explained: PlacementExplained | None) -> Explanation | None:
    if asked == "none":
        return None
    if explained is None:
        return Explanation(len(record.candidates), {rule: len(actions) for rule, actions in record.dropped.items()})
    ranking = [Candidate(*row) for row in zip(record.candidates, record.predicted_rates, record.utilities, strict=True)]
    ranking.sort(key=lambda candidate: -candidate.utility)
    return Explanation(len(ranking), dict(record.dropped), tuple(ranking), explained.actions)
