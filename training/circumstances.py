"""What bore on a logged choice besides values and rules, kept beside each row: a policy is judged where the log stood.

Without it a policy would be free to choose what the request, the customer's contacts, a budget or another placement of the same
answer ruled out: it would seem to be worth more than the log, its own log included.
"""

from collections.abc import Sequence

import msgspec
import pyarrow as pa

from service.decision.again import request_of
from service.decision.decide import Earlier
from service.decision.entities import PlacementRequest
from service.decision.records import DecisionRecord

CIRCUMSTANCES = {"circumstances": pa.binary()}
"""A column of decisions, null where nothing bore on the choice, and where nobody knows: in imported tables."""


class Circumstances(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a row: what the request said, what was read, and what the same answer showed before. Names as in `DecisionRequest`.

    `placements`: those of the whole answer; none where it has one slot.
    """

    contacts: bytes | None = b""
    exhausted: tuple[str, ...] = ()
    exclude_actions: tuple[str, ...] = ()
    candidates: tuple[str, ...] | None = None
    placements: tuple[PlacementRequest, ...] = ()
    earlier: tuple[Earlier, ...] = ()


PLAIN = Circumstances()

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Circumstances)


def circumstances_of(record: DecisionRecord) -> list[bytes | None]:
    """One for each served item of the placements that are no fallback, encoded."""
    asked = request_of(record)
    placements = asked.placements if sum(p.slots for p in asked.placements) > 1 else ()
    known = Circumstances(asked.customer.contacts, asked.exhausted, asked.exclude_actions, asked.candidates, placements)
    told: list[bytes | None] = []
    shown: tuple[Earlier, ...] = ()
    for placement in record.placements:
        for item in () if placement.fallback else placement.items:
            own = msgspec.structs.replace(known, earlier=shown)
            told.append(None if own == PLAIN else _encoder.encode(own))
            shown += (Earlier(placement.id, item.action_id),)
    return told


def decoded(column: pa.Array) -> Sequence[Circumstances | None]:
    """Of each row, None where there is nothing to know: (rows,)."""
    return [None if told is None else _decoder.decode(told) for told in column.to_pylist()]
