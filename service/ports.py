"""What the pipeline needs from outside. Each has an implementation and an in-memory twin in `service/stores`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from features.live import Event
from service.catalog.policies import Budget, Purpose
from service.decision.contacts import Contact
from service.decision.entities import CustomerState
from service.decision.records import (
    AlertRaised,
    ConsentRecord,
    DecisionRecord,
    EventRecord,
    IdentityRecord,
    OutcomeRecord,
    QuarantinedRecord,
    ShadowRecord,
)
from service.errors import DependencyFailed
from service.ids import customer_key, key_in

Record = TypeVar("Record", bound=msgspec.Struct)
Key = TypeVar("Key")


class Taken(NamedTuple, Generic[Record]):
    """What of a call is on disk: the records that were `new`, and by index those whose id stood for something else before."""

    new: tuple[Record, ...]
    reused: tuple[int, ...] = ()


def reused_of(sent: Sequence[tuple[Key, int]], known: Mapping[Key, int]) -> tuple[int, ...]:
    """Indexes of what has an id under which something else was sent: checksums that differ; 0 is like any."""
    return tuple(index for index, (key, check) in enumerate(sent) if check and known[key] and known[key] != check)


@dataclass(frozen=True)
class Acknowledgement:
    """How a call of outcomes was taken, once it is on disk. `orphans` and `late` are among the accepted, and no outcome is both.

    `new` are those written; `reused`, by index, have an id that stood for something else before, and are no duplicates.
    """

    accepted: int
    duplicates: int
    orphans: int
    late: int = 0
    new: tuple[OutcomeRecord, ...] = field(default=(), compare=False, repr=False)
    reused: tuple[int, ...] = ()


def acknowledged(
    sent: Sequence[OutcomeRecord], written: Sequence[OutcomeRecord], reused: tuple[int, ...] = ()
) -> Acknowledgement:
    """How the outcomes of a call were taken, of which these are on disk."""
    late = sum(record.late for record in written)
    orphans = sum(record.orphan and not record.late for record in written)
    duplicates = len(sent) - len(written) - len(reused)
    return Acknowledgement(len(written), duplicates, orphans, late, tuple(written), reused)


EMPTIED = "Expected Redis to hold what was written down, found it was emptied: `nextbest rebuild`"


class Reading(NamedTuple):
    """What is known at a moment: one state per customer, in order, and the budgets that are used up.

    `owners`: whom an id that was asked for is an alias of, by that id. `is_doubted`: the store was emptied, in part at least, and
    of some of them less is told than was known.
    """

    states: list[CustomerState]
    exhausted: tuple[Budget, ...] = ()
    owners: Mapping[str, str] = {}
    is_doubted: bool = False


class Claim(NamedTuple):
    """What a decision takes: contacts with a customer, and a share of budgets.

    `seen`: the customer's history that the decision was made from; None where nothing in it matters. `reservation`: seconds for
    which what is reserved is held, where the customer's arm has its own.
    """

    customer_id: str
    decision_id: str
    contacts: tuple[Contact, ...]
    seen: bytes | None
    budgets: tuple[Budget, ...] = ()
    reservation: float | None = None

    @property
    def is_of_id_alone(self) -> bool:
        """Whether it says nothing but whose decision an id of a client's is: nothing depends on it.

        What is sent again may take no contact either, and still a share of a budget.
        """
        if self.contacts or self.budgets or self.seen is not None:
            return False
        return key_in(self.decision_id) != customer_key(self.customer_id)


class Terms(NamedTuple):
    """What a catalog wants to know beside the customer's features: which budgets are used up, and what they consent to."""

    budgets: tuple[Budget, ...] = ()
    purposes: tuple[Purpose, ...] = ()


NO_TERMS = Terms()


class Position(msgspec.Struct, frozen=True):
    """The segment that is open, and its bytes."""

    segment: str
    bytes: int


class LogStatus(msgspec.Struct, frozen=True):
    """What the log promises: `fsync` acknowledges what is on disk, `interval` what may be lost with the power.

    `loss_window_ms`: how much of what was acknowledged a power loss takes at most. `waiting_bytes` are not written yet;
    `failures`: writes that the disk refused since the process started.
    """

    mode: str
    loss_window_ms: float
    waiting_bytes: int = 0
    failures: int = 0
    segments: dict[str, Position] = {}


class CustomerReader(Protocol):
    """Reads what is known of customers."""

    async def begin(self) -> bool:
        """Before the first request: whether the store holds all it should. An empty one does while nothing was written.

        Raises DependencyFailed.
        """

    async def read(self, customer_ids: Sequence[str], now: float, terms: Terms = NO_TERMS) -> Reading:
        """One state per id, in order; an unknown customer has no values. `now` decides which values are too old.

        Values say of each purpose whether the customer consents, under `consent_<purpose>`: 1 or 0. Raises DependencyFailed
        where the store does not answer in time.
        """

    def status(self) -> Mapping[str, Any]:
        """Whether the store answers, and why it does not."""

    async def close(self) -> None:
        """Release connections."""


class ContactHistory(Protocol):
    """Keeps what customers were shown and what came of it, and how much of each budget is left."""

    async def claim(self, claims: Sequence[Claim], now: float, reservation: float) -> Sequence[bool | DependencyFailed]:
        """Add the contacts of decisions, each only if its customer's history is still what was read, and its budgets hold.

        What could not be claimed has left no trace, or one that is taken back. A budget that counts impressions gives back
        what is not confirmed within `reservation` seconds. One answer per claim: whether it holds, or why the store did not do
        what it needs; where `no_answer` says so, its contacts may be there. Raises DependencyFailed where that is so of all.
        """

    async def release(self, claims: Sequence[Claim], now: float) -> None:
        """Take back what was claimed for decisions that nobody will see. Raises DependencyFailed."""

    async def record(self, outcomes: Sequence[OutcomeRecord], budgets: Sequence[Budget] = ()) -> None:
        """Add what came of decisions. Raises DependencyFailed; the log has it all, and the history can be built again."""


class Entry(NamedTuple):
    """A decision as it will be written. `line` is joined from its parts; `id`: its hash, and the checksum of what was sent."""

    record: DecisionRecord
    line: tuple[bytes, ...]
    id: tuple[int, int]


class DecisionLog(Protocol):
    """Keeps decisions and outcomes: when a call returns, its records are on disk."""

    def entry(self, record: DecisionRecord) -> Entry:
        """What is written of a decision, spelt out by whoever waits for something else. Nothing is written yet."""

    async def append_decisions(self, entries: Sequence[Entry]) -> None:
        """Write down decisions. Raises LogUnavailable, having acknowledged nothing."""

    async def append_outcomes(self, records: Sequence[OutcomeRecord]) -> Acknowledgement:
        """Write down outcomes whose id is new; an outcome of an unknown decision is written as an orphan.

        Raises LogUnavailable, having acknowledged nothing.
        """

    async def append_events(self, records: Sequence[EventRecord]) -> Taken[EventRecord]:
        """Write down events whose id is new. Raises LogUnavailable, having acknowledged nothing."""

    def has_decision(self, decision_id: str) -> bool:
        """Whether this id was decided, as long ago as ids are known."""

    async def append_identities(self, records: Sequence[IdentityRecord]) -> None:
        """Write down links. Raises LogUnavailable."""

    async def append_consents(self, records: Sequence[ConsentRecord]) -> None:
        """Write down what customers consent to. Raises LogUnavailable."""

    async def append_alerts(self, records: Sequence[AlertRaised]) -> None:
        """Write down alerts. Raises LogUnavailable."""

    async def append_shadows(self, records: Sequence[ShadowRecord]) -> None:
        """Write down what shadows would have decided. Raises LogUnavailable."""

    async def quarantine(self, records: Sequence[QuarantinedRecord]) -> None:
        """Write down events that could not be taken. Raises LogUnavailable."""

    def status(self) -> LogStatus:
        """What it promises, and where it stands."""

    async def close(self) -> None:
        """Write down what is pending and release the files."""


LINKED, KNOWN, TAKEN = "linked", "known", "taken"  # what becomes of a link


class Identities(Protocol):
    """Knows which ids are the same customer."""

    async def link(self, alias: str, customer: str) -> str:
        """From now on the alias is the customer, and what was known of it is the customer's, once.

        `linked`; `known` where that was so before; `taken` where the alias is another customer. Raises DependencyFailed.
        """

    async def owner(self, name: str) -> str:
        """The customer that an id leads to: itself where it is no alias. Raises DependencyFailed."""


class Consent(NamedTuple):
    """Whether a customer consents to a purpose, and since when: seconds since 1970 UTC."""

    given: bool
    at: float


class Consents(Protocol):
    """Knows what customers consent to: for each purpose, what they said last."""

    async def record(self, consents: Sequence[ConsentRecord]) -> None:
        """The latest holds, whatever the order; of two at one moment the denial. Raises DependencyFailed."""

    async def known(self, customer_id: str) -> Mapping[str, Consent]:
        """What a customer said, by purpose. Raises DependencyFailed."""


class LiveStore(Protocol):
    """Keeps, for each customer, what features need to know of their events."""

    async def apply(self, events: Sequence[tuple[str, Event]]) -> frozenset[str]:
        """Add events (customer id, event); the next read of any process sees them. Raises DependencyFailed.

        Returns the ids to which nothing could be added, since what is kept of them is malformed.
        """

    async def close(self) -> None:
        """Release connections."""


class AlertStore(Protocol):
    """Hands alerts to whoever acts on them, and knows which customers have raised one lately.

    It also knows until when what was of an id is forgotten.
    """

    async def erased_until(self, customer_ids: Sequence[str]) -> list[float]:
        """For each id, in seconds since 1970 UTC; before all others where nobody was erased. Raises DependencyFailed."""

    async def first(self, alerts: Sequence[AlertRaised]) -> list[bool]:
        """For alerts with `once_per`: whether it is the customer's first within that time, or the same again.

        Raises DependencyFailed.
        """

    async def release(self, alerts: Sequence[AlertRaised]) -> None:
        """Hold no customer back for alerts that came to nothing. Raises DependencyFailed."""

    async def publish(self, alerts: Sequence[AlertRaised]) -> None:
        """Add alerts to the stream, each id once. Raises DependencyFailed; the log has them, and a rebuild adds them again."""
