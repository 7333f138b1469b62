"""What every route that takes a body asks of it."""

import datetime as dt
from typing import TypeVar

import msgspec

from features.event_types import misplaced
from service.errors import BadRequest
from service.ids import personal

Body = TypeVar("Body")


def decoded(decoder: msgspec.json.Decoder[Body], body: bytes | msgspec.Raw) -> Body:
    """What a body holds. Raises BadRequest: expected, found, where."""
    try:
        return decoder.decode(body)
    except RecursionError as error:
        raise BadRequest("Expected a few levels of lists and objects, got too many") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(str(error)) from error


def customer_of(customer_id: str | None, anonymous_id: str | None) -> str:
    """Whom a request or an event is about. Raises BadRequest: one of the two, and nobody's personal data."""
    customer = customer_id or anonymous_id
    if customer is None:
        raise BadRequest("Expected `customer_id` or `anonymous_id`, got neither - at `$`")
    if (advice := personal(customer)) is not None:
        raise BadRequest(f"{advice} - at `$.{'customer_id' if customer_id else 'anonymous_id'}`")
    return customer


def moment_of(at: dt.datetime | None, now: float) -> float:
    """When something happened, seconds since 1970 UTC; now, where nobody says. Raises BadRequest where that cannot be."""
    if at is None:
        return round(now, 6)
    seconds = at.timestamp()
    if (problem := misplaced(seconds, now)) is not None:
        raise BadRequest(problem)
    return seconds
