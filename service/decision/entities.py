"""What the decision works on: requests as columns, customers as values, answers as records."""

from collections.abc import Sequence

import msgspec

from service.catalog.entities import Scalar


class CustomerState(msgspec.Struct, frozen=True):
    """What is known of one customer: values by feature name, missing ones left out; `stale` names those past their age.

    `contacts` is what they were shown before and what came of it (`decision/contacts.py`); None where it could not be read.
    `is_unread`: not one of the features could be.
    """

    values: dict[str, Scalar]
    stale: tuple[str, ...] = ()
    contacts: bytes | None = b""
    is_unread: bool = False


UNKNOWN_CUSTOMER = CustomerState({}, contacts=None, is_unread=True)


class PlacementRequest(msgspec.Struct, frozen=True):
    """So many slots of one placement."""

    id: str
    slots: int


class DecisionRequest(msgspec.Struct, frozen=True):
    """One request, complete: everything that the decision may depend on.

    `at` is in seconds since 1970 UTC. `decision_id` also seeds the randomness. `degraded` names what could not be read,
    `exhausted` the budgets that are used up. `sent` is kept in the record, where the client chose the id (`records.sent_as`).
    """

    decision_id: str
    customer_id: str
    at: float
    customer: CustomerState
    context: dict[str, Scalar]
    placements: tuple[PlacementRequest, ...]
    exclude_actions: tuple[str, ...] = ()
    candidates: tuple[str, ...] | None = None
    degraded: tuple[str, ...] = ()
    exhausted: tuple[str, ...] = ()
    sent: str = ""


Batch = Sequence[DecisionRequest]
