"""A request as the pipeline takes it, and the decisions that are made for a batch of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from features.request_time import REQUEST_TIME_NAMES, TIME_ZONE, request_time_values
from service.catalog.entities import Scalar
from service.catalog.policies import DECISIONS, Budget
from service.catalog.rulebook import CONSENT_FEATURE
from service.decision.contact_policy import NO_CONTACT_HISTORY
from service.decision.contacts import SERVED, Contact, not_yet_in, without_decision
from service.decision.decide import decide
from service.decision.engine import Engine, without_canaries, without_models
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.decision.experiments import ARM_FAILED, CANARY, CANARY_FAILED, PLAIN_ARM
from service.decision.records import DecisionRecord, sent_as
from service.errors import ModelFailed
from service.ids import customer_key, key_in, with_key
from service.ports import Claim, Entry, Reading, Terms

NO_CUSTOMER_FEATURES = "no_customer_features"  # the feature store did not answer, or has lost them: decided from context alone
NO_MODEL = "no_model"  # no bundle serves, or it failed: actions rank by priority
NOT_PERSONALISED = "not_personalised"  # one customer in a hundred is answered as if nobody knew them, and no model served
NO_PROFILE_CONSENT = "no_profile_consent"  # the customer does not want to be known: decided from context alone
STALE = "stale:"  # prefix of a feature that is past its age and counts as missing


class PlacementAsked(msgspec.Struct, frozen=True):
    """So many slots of one placement; where `slots` is None, as many as the catalog gives it."""

    id: str
    slots: int | None = None


class Ask(msgspec.Struct, frozen=True):
    """A request as the pipeline takes it: validated against the wire format, not yet against the catalog.

    `is_short`: its placement was named in the short form. `given`: values of customer features that whoever asks has; they take
    the place of what is read.
    """

    decision_id: str
    customer_id: str
    context: dict[str, Scalar]
    placements: tuple[PlacementAsked | PlacementRequest, ...]
    exclude_actions: tuple[str, ...] = ()
    candidates: tuple[str, ...] | None = None
    deadline: float = 0.1  # seconds
    dry_run: bool = False
    is_short: bool = False
    sent: str = ""  # what the client asked under an id of its own (`sent_as`): the same id gets the same answer
    given: dict[str, Scalar] = {}


def as_sent(ask: Ask) -> Ask:
    """The request under an id that its client chose. Who asks with another deadline asks for the same."""
    sent = sent_as(ask.customer_id, ask.context, ask.placements, ask.exclude_actions, ask.candidates)
    return msgspec.structs.replace(ask, sent=sent)


def as_sent_before(ask: Ask, record: DecisionRecord) -> Ask:
    """The same as it was told formerly, where slots were left out: with those that the catalog gave."""
    slots = {placement.id: placement.slots for placement in record.placements}
    asked = tuple(PlacementAsked(p.id, slots.get(p.id) if p.slots is None else p.slots) for p in ask.placements)
    return as_sent(msgspec.structs.replace(ask, placements=asked))


def is_asked_by(ask: Ask, record: DecisionRecord) -> bool:
    """Whether a decision under an id that the service made was made for the same, as its record tells; whose it is apart."""
    return (
        [placement.id for placement in ask.placements] == [placement.id for placement in record.placements]
        and all(_has_given(record, p.slots, made.slots) for p, made in zip(ask.placements, record.placements, strict=True))
        and _as_told(ask.context) == _as_told(record.context)
        and ask.exclude_actions == record.exclude_actions
        and ask.candidates == record.requested_candidates
    )


def _has_given(record: DecisionRecord, asked: int | None, given: int) -> bool:
    """Whether a request for so many slots was given so many: an arm may give fewer."""
    return asked in (None, given) or (record.experiment is not None and given < (asked or 0))


def _as_told(context: dict[str, Scalar]) -> dict[str, Scalar]:
    return {name: value for name, value in context.items() if name not in REQUEST_TIME_NAMES}


def terms_of(engine: Engine) -> Terms:
    """What the catalog and those of its arms want to know of customers beside their features."""
    return Terms(engine.budgets, engine.catalog.purposes)


def unprofiled(customer: CustomerState) -> CustomerState:
    """Without what is known of a customer but for what they consent to, where they are, and what they were shown."""
    kept = {name: value for name, value in customer.values.items() if name.startswith(CONSENT_FEATURE) or name == TIME_ZONE}
    return CustomerState(kept, contacts=customer.contacts)


def _with_given(ask: Ask, customer: CustomerState) -> CustomerState:
    if not ask.given:
        return customer
    return msgspec.structs.replace(customer, values={**customer.values, **ask.given}, is_unread=False)


def _of_owner(ask: Ask, owner: str | None) -> Ask:
    """The request in the name of the customer; an id of ours then leads to that customer's history."""
    if owner is None:
        return ask
    is_ours = key_in(ask.decision_id) == customer_key(ask.customer_id)  # what looks like it may be a client's own
    own = with_key(ask.decision_id, owner) if is_ours else ask.decision_id
    return msgspec.structs.replace(ask, customer_id=owner, decision_id=own)


def _as_if_never_tried(ask: Ask, customer: CustomerState) -> CustomerState:
    """A request that is sent again does not count what its first try took before the process died."""
    if not customer.contacts:
        return customer
    kept = without_decision(customer.contacts, ask.decision_id)
    return customer if kept is customer.contacts else msgspec.structs.replace(customer, contacts=kept)


@dataclass(slots=True, eq=False)
class Made:
    """A decision as it stands, and the state of the customer that it was made from. A later one may take its place.

    One is only itself: its id may change when it is made again, and a trial in its batch may have the same. `entry`: what the log
    will have of it, where somebody has spelt it out already. `is_again`: what it was before may be in the history, taken back.
    """

    ask: Ask
    record: DecisionRecord
    state: CustomerState
    entry: Entry | None = None
    is_again: bool = False

    def claim(self, engine: Engine) -> Claim | None:
        """What the decision takes; None where it takes nothing, or must leave no trace.

        Under an id that its client chose it takes that, whatever it shows: an outcome names nothing else.
        """
        contacts = tuple(
            Contact(self.record.at, item.action_id, self.record.decision_id, placement.id, SERVED)
            for placement in self.record.placements if not placement.fallback
            for item in placement.items
        )  # fmt: skip
        if self.ask.dry_run:
            return None
        if not contacts:
            is_ours = key_in(self.record.decision_id) == customer_key(self.record.customer_id)
            return None if is_ours else Claim(self.record.customer_id, self.record.decision_id, (), None)
        policy = engine.of(self.record.experiment).catalog.contact
        served = {contact.action_id for contact in contacts}
        if (self.is_again or self.ask.sent) and self.state.contacts:
            contacts = not_yet_in(self.state.contacts, contacts)
        # a first try has counted the others; to reserve twice is to reserve once, unless that was the last share
        new = {contact.action_id for contact in contacts}
        budgets = tuple(b for b in policy.budgets if b.action in (new if b.count == DECISIONS else served))
        seen = self.state.contacts if policy.reads_history else None  # unknown: then no action that a cap speaks of was chosen
        reservation = None if policy is engine.catalog.contact else policy.reservation
        return Claim(self.record.customer_id, self.record.decision_id, contacts, seen, budgets, reservation)


@dataclass(frozen=True, slots=True)
class Turn:
    """One batch with the engine of its moment. `now`: seconds since 1970 UTC."""

    engine: Engine
    now: float

    def make(self, asks: Sequence[Ask], reading: Reading) -> list[Made]:
        """Decide for each request, from what was read of its customer, and what was given with it."""
        if reading.owners:
            asks = [_of_owner(ask, reading.owners.get(ask.customer_id)) for ask in asks]
        if any(ask.given for ask in asks):
            reading = reading._replace(states=[_with_given(a, s) for a, s in zip(asks, reading.states, strict=True)])
        return [Made(a, r, s) for a, r, s in zip(asks, self._records(asks, reading), reading.states, strict=True)]

    def _records(self, asks: Sequence[Ask], reading: Reading) -> list[DecisionRecord]:
        requests = self._requests(asks, reading)
        try:
            return decide(self.engine, requests)
        except ModelFailed:
            return self._without_canary(asks, reading) or self._without_models(requests)

    def _without_canary(self, asks: Sequence[Ask], reading: Reading) -> list[DecisionRecord] | None:
        """By the champion alone; None where it was not a canary that failed."""
        arms = [self.engine.assignment.of(ask.customer_id) for ask in asks]
        if not any(arm is not None and arm.id == CANARY for arm in arms):
            return None
        alone = Turn(without_canaries(self.engine), self.now)
        try:
            return decide(alone.engine, alone._requests(asks, reading))
        except ModelFailed:
            return None

    def _without_models(self, requests: Sequence[DecisionRequest]) -> list[DecisionRecord]:
        plain = [msgspec.structs.replace(r, degraded=(*r.degraded, NO_MODEL)) for r in requests]
        return decide(without_models(self.engine), plain)

    def _requests(self, asks: Sequence[Ask], reading: Reading) -> list[DecisionRequest]:
        catalog = self.engine.catalog
        needed = tuple(CONSENT_FEATURE + purpose.name for purpose in catalog.purposes if purpose.profile)
        used_up = [self._used_up(ask, reading.exhausted) for ask in asks]
        return [self._request(a, s, u, needed) for a, s, u in zip(asks, reading.states, used_up, strict=True)]

    def _used_up(self, ask: Ask, exhausted: Sequence[Budget]) -> tuple[str, ...]:
        """Of the budgets that the customer's arm keeps to, those that are used up."""
        if not exhausted:
            return ()
        own = self.engine.of(self.engine.assignment.of(ask.customer_id)).catalog.contact.budgets
        return tuple(budget.name for budget in own if budget in exhausted)

    def make_again(self, made: Sequence[Made], reading: Reading) -> None:
        """The same requests, from what is known now."""
        for old, new in zip(made, self.make([m.ask for m in made], reading), strict=True):
            old.ask, old.record, old.state, old.entry, old.is_again = new.ask, new.record, new.state, None, True

    def _request(
        self, ask: Ask, customer: CustomerState, exhausted: tuple[str, ...], needed: tuple[str, ...]
    ) -> DecisionRequest:  # fmt: skip
        """`needed`: the consents without which nothing that is known may count."""
        engine, arm = self.engine, self.engine.assignment.of(ask.customer_id)
        own = engine.of(arm)
        degraded: tuple[str, ...] = (NO_CUSTOMER_FEATURES,) if customer.is_unread else ()
        if ask.sent:
            customer = _as_if_never_tried(ask, customer)
        if needed and not degraded and any(customer.values.get(name) != 1.0 for name in needed):
            customer, degraded = unprofiled(customer), (NO_PROFILE_CONSENT,)
        if arm is PLAIN_ARM:
            customer, degraded = unprofiled(customer), (*degraded, NOT_PERSONALISED)
        zones = customer.values.get(TIME_ZONE), ask.context.get(TIME_ZONE), engine.catalog.time_zone
        if customer.contacts is None and own.catalog.contact.reads_history:
            degraded = (*degraded, NO_CONTACT_HISTORY)
        degraded += self._lacking_models(ask.customer_id)
        if own.stands_in_for is not None:
            degraded = (*degraded, ARM_FAILED + own.stands_in_for)
        if customer.stale:
            degraded += tuple(STALE + name for name in customer.stale)
        return DecisionRequest(
            decision_id=ask.decision_id,
            customer_id=ask.customer_id,
            at=self.now,
            customer=customer,
            context={**ask.context, **request_time_values(self.now, *zones)},
            placements=tuple(PlacementRequest(p.id, self._slots(p, own)) for p in ask.placements),
            exclude_actions=ask.exclude_actions,
            candidates=ask.candidates,
            degraded=degraded,
            exhausted=exhausted,
            sent=ask.sent,
        )

    def _slots(self, asked: PlacementAsked | PlacementRequest, own: Engine) -> int:
        """As many as were asked for, or as the catalog of the customer's arm gives; where that is fewer, no more."""
        most = own.plans[asked.id].placement.slots
        is_fewer = own is not self.engine and most < self.engine.plans[asked.id].placement.slots
        return min(asked.slots or most, most) if is_fewer else asked.slots or most

    def _lacking_models(self, customer_id: str) -> tuple[str, ...]:
        """Which model the decision has to do without: any, or that of a canary."""
        lacking = () if self.engine.versions.bundle else (NO_MODEL,)
        if not self.engine.assignment.canaries:
            return lacking
        arm = self.engine.assignment.of(customer_id)
        if arm is not None and arm.id == CANARY:
            return () if self.engine.of(arm).versions.bundle else (NO_MODEL,)
        failed = self.engine.assignment.failed_canary(customer_id)
        return lacking if failed is None else (*lacking, CANARY_FAILED + failed)
