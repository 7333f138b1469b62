"""A logged decision as the request that it answered: what explanation, replay and what-if start from."""

import base64

import msgspec

from service.decision.decide import decide
from service.decision.engine import Engine
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.records import DecisionRecord

_encoder = msgspec.json.Encoder()


def request_of(record: DecisionRecord) -> DecisionRequest:
    """Everything that the decision depended on, from its record."""
    contacts = None if record.contacts is None else base64.b64decode(record.contacts)
    return DecisionRequest(
        decision_id=record.decision_id,
        customer_id=record.customer_id,
        at=record.at,
        customer=CustomerState(record.customer, record.stale, contacts),
        context=record.context,
        placements=tuple(PlacementRequest(p.id, p.slots) for p in record.placements),
        exclude_actions=record.exclude_actions,
        candidates=record.requested_candidates,
        degraded=record.degraded,
        exhausted=record.exhausted,
        sent=record.sent,
    )


def encode_record(record: DecisionRecord) -> bytes:
    """A record as it stands in the log."""
    return _encoder.encode(record)


def decide_again(engine: Engine, record: DecisionRecord) -> DecisionRecord:
    """The decision that the engine makes of the logged request."""
    return decide(engine, [request_of(record)])[0]
