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
    ShadowRecord,
)
from service.ports import Acknowledgement, Entry, LogStatus, Taken, acknowledged, reused_of


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
        self.shadows: list[ShadowRecord] = []
        self._decision_ids: set[str] = set()
        self._events_sent: dict[str, int] = {}
        self._outcomes_sent: dict[str, int] = {}

    def entry(self, record: DecisionRecord) -> Entry:
        return Entry(record, (), (0, 0))

    async def append_decisions(self, entries: Sequence[Entry]) -> None:
        self.decisions.extend(entry.record for entry in entries)
        self._decision_ids.update(entry.record.decision_id for entry in entries)

    async def append_outcomes(self, records: Sequence[OutcomeRecord]) -> Acknowledgement:
        new, reused = _taken(self._outcomes_sent, [(r.outcome_id, r.sent) for r in records])
        written = [msgspec.structs.replace(records[i], orphan=records[i].decision_id not in self._decision_ids) for i in new]
        self.outcomes.extend(written)
        return acknowledged(records, written, reused)

    async def append_events(self, records: Sequence[EventRecord]) -> Taken[EventRecord]:
        new, reused = _taken(self._events_sent, [(r.event_id, r.sent) for r in records])
        self.events.extend(records[i] for i in new)
        return Taken(tuple(records[i] for i in new), reused)

    def has_decision(self, decision_id: str) -> bool:
        return decision_id in self._decision_ids

    async def append_identities(self, records: Sequence[IdentityRecord]) -> None:
        self.identities.extend(records)

    async def append_consents(self, records: Sequence[ConsentRecord]) -> None:
        self.consents.extend(records)

    async def append_alerts(self, records: Sequence[AlertRaised]) -> None:
        self.alerts.extend(records)

    async def append_shadows(self, records: Sequence[ShadowRecord]) -> None:
        self.shadows.extend(records)

    async def quarantine(self, records: Sequence[QuarantinedRecord]) -> None:
        self.quarantined.extend(records)

    def status(self) -> LogStatus:
        return LogStatus("memory", float("inf"))

    async def close(self) -> None:
        """Nothing is open."""


def _taken(known: dict[str, int], sent: Sequence[tuple[str, str]]) -> tuple[list[int], tuple[int, ...]]:
    """Which ones of a call are new, and which have an id that stood for something else. `known` learns of the new ones."""
    new = []
    for index, (name, content) in enumerate(sent):
        if name not in known:
            known[name] = int(content or "0", 16)
            new.append(index)
    return new, reused_of([(name, int(content or "0", 16)) for name, content in sent], known)
