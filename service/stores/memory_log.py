"""The log in memory: same promises, no disk. For tests, demonstrations, and as the reference behaviour."""

from collections.abc import Sequence

import msgspec

from service.decision.records import (
    AlertRaised,
    ConsentRecord,
    DecisionRecord,
    EventRecord,
    IdentityRecord,
    OutcomeRecord,
    QuarantinedRecord,
)
from service.ports import Acknowledgement, LogStatus, acknowledged


class MemoryDecisionLog:
    """Keeps what it is given in `decisions`, `outcomes`, `events`, `alerts` and `quarantined`, in order."""

    def __init__(self) -> None:
        self.decisions: list[DecisionRecord] = []
        self.outcomes: list[OutcomeRecord] = []
        self.events: list[EventRecord] = []
        self.quarantined: list[QuarantinedRecord] = []
        self.identities: list[IdentityRecord] = []
        self.consents: list[ConsentRecord] = []
        self.alerts: list[AlertRaised] = []
        self._decision_ids: set[str] = set()
        self._event_ids: set[str] = set()
        self._outcome_ids: set[str] = set()

    async def append_decisions(self, records: Sequence[DecisionRecord]) -> None:
        self.decisions.extend(records)
        self._decision_ids.update(r.decision_id for r in records)

    async def append_outcomes(self, records: Sequence[OutcomeRecord]) -> Acknowledgement:
        new = list({r.outcome_id: r for r in reversed(records) if r.outcome_id not in self._outcome_ids}.values())[::-1]
        written = [msgspec.structs.replace(r, orphan=r.decision_id not in self._decision_ids) for r in new]
        self.outcomes.extend(written)
        self._outcome_ids.update(r.outcome_id for r in written)
        return acknowledged(records, written)

    async def append_events(self, records: Sequence[EventRecord]) -> tuple[EventRecord, ...]:
        new = tuple({r.event_id: r for r in reversed(records) if r.event_id not in self._event_ids}.values())[::-1]
        self.events.extend(new)
        self._event_ids.update(r.event_id for r in new)
        return new

    async def append_identities(self, records: Sequence[IdentityRecord]) -> None:
        self.identities.extend(records)

    async def append_consents(self, records: Sequence[ConsentRecord]) -> None:
        self.consents.extend(records)

    async def append_alerts(self, records: Sequence[AlertRaised]) -> None:
        self.alerts.extend(records)

    async def quarantine(self, records: Sequence[QuarantinedRecord]) -> None:
        self.quarantined.extend(records)

    def status(self) -> LogStatus:
        return LogStatus("memory", float("inf"))

    async def close(self) -> None:
        """Nothing is open."""
