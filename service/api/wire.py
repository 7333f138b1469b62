"""The JSON that goes over HTTP, as frozen structs: unknown fields are refused with their path."""

import datetime as dt
from typing import Annotated, Literal

import msgspec

from features.event_types import LONGEST_TEXT
from service.catalog.entities import Kind
from service.decision.explain import ActionExplained
from service.decision.scoring import Predicts
from service.ids import LONGEST_CUSTOMER

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_CUSTOMER)]
ActionList = Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=10_000)]
ContextText = Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]
Context = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=64)], float | ContextText | bool | None], msgspec.Meta(max_length=64)
]
Explain = Literal["none", "summary", "full"]

OUTCOMES_PER_CALL = 1000


class PlacementAsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many slots of one placement; as many as the catalog gives it where `slots` is left out."""

    id: Identifier
    slots: Annotated[int, msgspec.Meta(ge=1, le=50)] | None = None


class RecommendRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to show this customer now."""

    customer_id: Identifier | None = None
    anonymous_id: Identifier | None = None
    placements: Annotated[tuple[PlacementAsk, ...], msgspec.Meta(min_length=1, max_length=20)] | None = None
    placement: Identifier | None = None
    context: Context = {}
    exclude_actions: ActionList = ()
    candidates: ActionList | None = None
    decision_id: Identifier | None = None
    deadline_ms: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    explain: Explain = "none"
    dry_run: bool = False


class Item(msgspec.Struct, frozen=True):
    rank: int
    action_id: str
    treatment_id: str
    kind: Kind
    content: dict[str, object]
    predicted_rate: float
    utility: float
    choice_probability: float
    explored: bool
    reasons: tuple[str, ...]


class Candidate(msgspec.Struct, frozen=True):
    """One action that could have been chosen for the first slot."""

    action_id: str
    predicted_rate: float
    utility: float


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """`dropped` counts (summary) or names (full) the actions that each rule removed; `actions` tells of every one (full)."""

    candidates: int
    dropped: dict[str, int | tuple[str, ...]]
    ranking: tuple[Candidate, ...] = ()
    actions: tuple[ActionExplained, ...] = ()


class PlacementAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    items: tuple[Item, ...]
    fallback: bool
    explanation: Explanation | None = None


class Experiment(msgspec.Struct, frozen=True):
    id: str
    arm: str


class AnswerVersions(msgspec.Struct, frozen=True, omit_defaults=True):
    """`predicts`: told where each `predicted_rate` is no rate: an expected value, or an `uplift` over doing nothing."""

    catalog: int
    bundle: str | None
    predicts: Predicts = "rate"


class RecommendResponse(msgspec.Struct, frozen=True):
    decision_id: str
    customer_id: str
    placements: tuple[PlacementAnswer, ...]
    experiment: Experiment | None
    versions: AnswerVersions
    degraded: tuple[str, ...]
    logged: bool
    took_ms: float


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What came of one served item: `impression`, `click`, `accept`, `dismiss`, `conversion`, or a word of your own."""

    outcome_id: Identifier
    decision_id: Identifier
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    at: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    placement: Identifier | None = None
    action_id: Identifier | None = None
    value: float = 0.0


class OutcomesRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 outcomes; each is judged on its own."""

    outcomes: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=OUTCOMES_PER_CALL)]


class Rejection(msgspec.Struct, frozen=True):
    index: int
    error: str


class OutcomesResponse(msgspec.Struct, frozen=True):
    """Given after everything accepted is on disk. `orphans`, among the accepted, name decisions not known here.

    `late`, among the accepted too: what happened so long ago that it is written down and changes nothing.
    """

    accepted: int
    duplicates: int
    orphans: int
    late: int
    rejected: tuple[Rejection, ...]


EVENTS_PER_CALL = 1000
PropertyName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class EventSent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something a customer did. Without `at` it happened just now."""

    event_id: Identifier
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    channel: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    customer_id: Identifier | None = None
    anonymous_id: Identifier | None = None
    at: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None
    properties: dict[PropertyName, bool | float | str] = {}


class EventsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 events, each judged on its own; `decide` asks in the same call what to show."""

    events: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=EVENTS_PER_CALL)]
    decide: RecommendRequest | None = None


class EventsResponse(msgspec.Struct, frozen=True):
    """Given after everything accepted is on disk. `undeclared`, among the accepted, are of types that nobody declared."""

    accepted: int
    duplicates: int
    undeclared: int
    rejected: tuple[Rejection, ...]
    decision: RecommendResponse | None = None


class IdentityLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`alias` (an anonymous id, a device, the hash of an address) is the same customer as `customer_id`."""

    alias: Identifier
    customer_id: Identifier


class IdentitiesRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    links: Annotated[tuple[IdentityLink, ...], msgspec.Meta(min_length=1, max_length=100)]


class IdentitiesResponse(msgspec.Struct, frozen=True):
    linked: int
    known: int
    rejected: tuple[Rejection, ...]


CONSENTS_PER_CALL = 1000


class ConsentSent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer gives (or withdraws) consent to a purpose of the catalog. Without `at` just now."""

    purpose: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    given: bool
    customer_id: Identifier | None = None
    anonymous_id: Identifier | None = None
    at: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None
    source: Annotated[str, msgspec.Meta(max_length=256)] = ""


class ConsentsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 consents and withdrawals, each judged on its own."""

    consents: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=CONSENTS_PER_CALL)]


class ConsentsResponse(msgspec.Struct, frozen=True):
    """Given after everything accepted is on disk, and holds."""

    accepted: int
    rejected: tuple[Rejection, ...]


class ConsentSaid(msgspec.Struct, frozen=True):
    given: bool
    at: dt.datetime


class ConsentsAnswer(msgspec.Struct, frozen=True):
    customer_id: str
    consents: dict[str, ConsentSaid]


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457. `errors` lists every single mistake where there are several."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    errors: tuple[str, ...] = ()


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    status: str
    catalog: int | None = None
    bundle: str | None = None
    problem: str | None = None
