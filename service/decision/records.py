r"""What is written down: the decision, the outcome, and a line of the log that carries one of them.

A line is `<CRC32C, 8 hexadecimal digits> <length in bytes> <JSON>\\n`. The service writes these lines and training reads
them; both use the structs of this module. Nothing in them leads back to them, so that the garbage collector need not know them:
it took a quarter of the time of reading a log.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeVar

import google_crc32c
import msgspec

from features.live import CHANNEL, Event
from service.catalog.entities import Kind, Scalar
from service.decision.experiments import Assigned
from service.decision.figures import Spelt, figures
from service.decision.scoring import Predicts

Record = TypeVar("Record")


class ServedItem(msgspec.Struct, frozen=True, gc=False):
    """One slot of an answer. `choice_probability` is given the earlier slots of the same placement."""

    rank: int
    action_id: str
    treatment_id: str
    kind: Kind
    predicted_rate: float
    utility: float
    choice_probability: float
    explored: bool


class PlacementRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What was decided for one placement, and among what.

    `candidates` are the action ids that could have been chosen for the first slot, in catalog order, with their
    `predicted_rates` and `utilities`, as JSON until somebody asks; `dropped` maps a rule's name to the action ids it removed.
    """

    id: str
    slots: int
    items: tuple[ServedItem, ...]
    fallback: bool
    candidates: tuple[str, ...] = ()
    rates_spelt: Spelt = msgspec.field(default=msgspec.UNSET, name="predicted_rates")
    utilities_spelt: Spelt = msgspec.field(default=msgspec.UNSET, name="utilities")
    dropped: dict[str, tuple[str, ...]] = {}

    @property
    def predicted_rates(self) -> tuple[float, ...]:
        return figures(self.rates_spelt)

    @property
    def utilities(self) -> tuple[float, ...]:
        return figures(self.utilities_spelt)


class Versions(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Which immutable versions made the decision. `bundle` is None where no model served.

    `champion` is told where an experiment's arm had another bundle; `others` predicted further objectives, by objective. `rates`
    is the bundle whose rates of actions stood in for its model. `predicts`: what the records' predicted rates are; where it says
    `value`, they are expected values, and of `uplift` differences from doing nothing.
    """

    catalog: int
    bundle: str | None
    contract: str
    champion: str | None = None
    others: dict[str, str] = {}
    rates: str | None = None
    predicts: Predicts = "rate"


class DecisionRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Everything needed to explain a decision, learn from it, and make it again.

    `at` is in seconds since 1970 UTC. `customer` and `context` hold the raw values (missing ones left out) from which both
    the rules and the model's inputs are derived. `contacts` is the history that the contact policy read, in base64; None
    where it could not be read. `exhausted` names the budgets that were used up. `seal` is a checksum of the inputs: it makes a
    replay notice a changed one even where the decision does not depend on it. Where the client chose the id, `sent` is what it
    asked (`sent_as`).
    """

    decision_id: str
    customer_id: str
    at: float
    customer: dict[str, Scalar]
    context: dict[str, Scalar]
    placements: tuple[PlacementRecord, ...]
    versions: Versions
    degraded: tuple[str, ...] = ()
    exclude_actions: tuple[str, ...] = ()
    requested_candidates: tuple[str, ...] | None = None
    experiment: Assigned | None = None
    contacts: str | None = ""
    exhausted: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    seal: str = ""
    sent: str = ""


class OutcomeRecord(msgspec.Struct, frozen=True, gc=False):
    """What came of one served item. `at` and `received_at` are in seconds since 1970 UTC.

    `late`: it came so long after it happened that nobody knows any more whether its id came before. It is kept, readers count an
    id once, and contacts and budgets do not know it. `sent`: see `sent_as`.
    """

    outcome_id: str
    decision_id: str
    type: str
    at: float
    received_at: float
    placement: str | None = None
    action_id: str | None = None
    value: float = 0.0
    orphan: bool = False
    late: bool = False
    sent: str = ""


_decoder = msgspec.json.Decoder(DecisionRecord)
_encoder = msgspec.json.Encoder()
_sorting = msgspec.json.Encoder(order="sorted")


def seal(*inputs: object) -> str:
    """CRC32C of what a decision was made from, 8 hexadecimal digits: 4 us for 15 features."""
    return f"{google_crc32c.value(_encoder.encode(inputs)):08x}"


def sent_as(*content: object) -> str:
    """CRC32C of what a client sent under an id, 8 hexadecimal digits: the same id with other content is told from a retry.

    It is the last field of a record, where it is found without reading the others. The order of keys does not matter.
    """
    return f"{google_crc32c.value(_sorting.encode(content)):08x}"


class EventRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Something a customer did, on any channel. `at` and `received_at` are in seconds since 1970 UTC.

    `declared` is false where events.yaml does not know the type: it is kept, and feeds nothing. `sent`: see `sent_as`.
    """

    event_id: str
    customer_id: str
    type: str
    channel: str
    at: float
    received_at: float
    properties: dict[str, float | str | bool] = {}
    declared: bool = True
    sent: str = ""

    @property
    def counts_from(self) -> float:
        """When it happened, as far as features go: a client's clock that is ahead does not reach into the future."""
        return min(self.at, self.received_at)

    @property
    def event(self) -> Event:
        """What of it features read."""
        return Event(self.event_id, self.type, self.counts_from, {**self.properties, CHANNEL: self.channel})


class AlertRaised(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="record", tag="raised"):
    """Somebody has to know. `because`: what the condition read. `at`, when it was raised: seconds since 1970 UTC.

    `once_per`: seconds within which this customer does not raise it again.
    """

    alert_id: str
    name: str
    severity: str
    route: str
    customer_id: str
    event_id: str
    event_type: str
    at: float
    because: dict[str, Scalar] = {}
    once_per: float | None = None


class AlertFollowUp(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="record", tag="follow_up"):
    """What somebody did about an alert: `acknowledged`, it is theirs now; `closed`, nothing is left to do."""

    alert_id: str
    step: Literal["acknowledged", "closed"]
    at: float
    by: str = ""
    note: str = ""


class IdentityRecord(msgspec.Struct, frozen=True, gc=False):
    """An id is an alias of a customer from here on; or, where `linked` is false, no more. `at`: seconds since 1970 UTC."""

    alias: str
    customer_id: str
    at: float
    linked: bool = True


class ConsentRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A customer gives or withdraws consent to a purpose. `at` and `received_at`: seconds since 1970 UTC; the latest `at` holds.

    `source` says where they did: for whoever has to prove it.
    """

    customer_id: str
    purpose: str
    given: bool
    at: float
    received_at: float
    source: str = ""


class ErasureRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What was known of a customer until a moment is forgotten, a record for each of their ids. `at`: seconds since 1970 UTC."""

    customer_id: str
    at: float


class QuarantinedRecord(msgspec.Struct, frozen=True, gc=False):
    """An event that could not be taken, as it came, and why. It can be sent again once that is mended."""

    reason: str
    received_at: float
    event: str


class ShadowPlacement(msgspec.Struct, frozen=True, gc=False):
    """What a shadow would have shown in one placement, in order, and the rates it predicts for these actions.

    `served_rates`: what it predicts for the actions that were served; None for one that was no candidate to it.
    """

    id: str
    actions: tuple[str, ...]
    predicted_rates: tuple[float, ...]
    served_rates: tuple[float | None, ...]


class ShadowRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a bundle would have made of a decision that another one made. `at`: of the decision, seconds since 1970 UTC.

    `took_ms`: how long it took to decide. `problem`: why it could not; then there are no placements.
    """

    decision_id: str
    bundle: str
    at: float
    took_ms: float
    agreed: bool = False
    placements: tuple[ShadowPlacement, ...] = ()
    problem: str = ""


CHECKSUM_DIGITS = 8
LENGTH_DIGITS = 9  # of the length of a line: no record is longer


class Line(NamedTuple):
    """One record of a segment, or what stands where a record should be."""

    offset: int
    payload: bytes | None  # None: the line is damaged
    torn: bool  # the line has no end: the writer died in the middle of it


def encode_line(payload: bytes) -> bytes:
    """A record as a line of the log. The payload must not contain a newline; JSON does not."""
    return b"".join(line_parts(payload))


def line_parts(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """What a line is joined from: many lines are joined at once, so that none is copied twice."""
    return b"%08x %d " % (google_crc32c.value(payload), len(payload)), payload, b"\n"


def decode_lines(data: bytes) -> Iterator[Line]:
    """The lines of a segment, damaged ones marked, a torn tail last. A damaged end of a line costs no record."""
    offset = 0
    while offset < len(data):
        end = data.find(b"\n", offset)
        line = data[offset:] if end < 0 else data[offset:end]
        payload = _payload(line)
        if payload is None and (whole := _whole(line)):
            yield Line(offset, _payload(line[:whole]), torn=False)
            offset += whole
            yield Line(offset, None, torn=False)  # what stands where the end of the line should be
            offset += 1
            continue
        if end < 0:
            yield Line(offset, None, torn=True)
            return
        yield Line(offset, payload, torn=False)
        offset = end + 1


def _whole(line: bytes) -> int:
    """How many bytes of a damaged line are a record, by the length it gives; 0 where none is, or nothing follows it."""
    checksum, _, rest = line.partition(b" ")
    length, _, _ = rest.partition(b" ")
    if not length.isdigit() or len(length) > LENGTH_DIGITS:
        return 0
    size = len(checksum) + len(length) + 2 + int(length)
    return size if size < len(line) and _payload(line[:size]) is not None else 0


def find_decision(data: bytes, decision_id: str) -> DecisionRecord | None:
    """The decision of this id in a segment; None where the segment does not hold it, or it cannot be read. 64 MB take 20 ms."""
    needle = b'{"decision_id":' + msgspec.json.encode(decision_id)
    position = data.find(needle)
    if position < 0:
        return None
    start, end = data.rfind(b"\n", 0, position) + 1, data.find(b"\n", position)
    lines = decode_lines(data[start : end + 1 or len(data)])
    found = next((line.payload for line in lines if line.payload is not None and line.payload.startswith(needle)), None)
    return None if found is None else record_in(found, _decoder)


def record_in(payload: bytes, decoder: msgspec.json.Decoder[Record]) -> Record | None:
    """What a line says; None where it is no such record, though its checksum holds: an infinite figure was spelt `null` once."""
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _payload(line: bytes) -> bytes | None:
    payload = line[line.find(b" ", CHECKSUM_DIGITS + 1) + 1 :]
    return payload if line.startswith(b"%08x %d " % (google_crc32c.value(payload), len(payload))) else None
