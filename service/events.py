"""What customers do: on disk first, then in the features that the next decision reads."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from features.event_types import EventTypes
from features.live import Event
from features.sentiment import Sentiment
from service.alerts import AlertDesk
from service.decision.records import EventRecord, QuarantinedRecord
from service.errors import DependencyFailed
from service.metrics import Metrics
from service.ports import DecisionLog, LiveStore, Taken


@dataclass(frozen=True, slots=True)
class EventIntake:
    """Takes events. `clock` tells seconds since 1970 UTC."""

    log: DecisionLog
    store: LiveStore
    types: EventTypes
    metrics: Metrics
    clock: Callable[[], float]
    sentiment: Sentiment = field(default_factory=Sentiment)
    alerts: AlertDesk | None = None
    _following: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def write_down(self, events: Sequence[EventRecord], spoiled: Sequence[QuarantinedRecord]) -> Taken[EventRecord]:
        """The events are on disk when this returns. Raises LogUnavailable; then nothing follows from them."""
        await self.log.quarantine(spoiled)
        new, reused = taken = await self.log.append_events(await self._scored(events))
        counts = {"accepted": len(new), "duplicate": len(events) - len(new) - len(reused), "quarantined": len(spoiled)}
        counts |= {"undeclared": sum(not record.declared for record in new), "reused": len(reused)}
        for result, count in counts.items():
            self.metrics.events.labels(result).inc(count)
        return taken

    async def follow(self, new: Sequence[EventRecord], patience: float | None = None) -> None:
        """Update features and raise alerts. After `patience` seconds that goes on, and nobody is kept waiting any more.

        Where Redis does not answer, events are on disk all the same, and `nextbest rebuild` brings the features up to date.
        """
        if patience is None:
            await self._follow(new)
            return
        task = asyncio.create_task(self._follow(new))
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        await asyncio.wait([task], timeout=patience)
        if task.done():
            task.result()

    async def _follow(self, new: Sequence[EventRecord]) -> None:
        known = await self._feed([(record.customer_id, record.event) for record in new if record.declared])
        if self.alerts is not None:
            await self.alerts.look(new, fed=known)

    async def _feed(self, events: Sequence[tuple[str, Event]]) -> bool:
        """Whether features know of them, but for customers of whom they know nothing: what Redis holds of them is malformed."""
        if not events:
            return True
        try:
            malformed = await self.store.apply(events)
        except DependencyFailed:
            self.metrics.unfed.inc(len(events))
            return False
        self.metrics.unfed.inc(sum(customer in malformed for customer, _ in events))
        return True

    async def _scored(self, events: Sequence[EventRecord]) -> Sequence[EventRecord]:
        """With what their texts sound like. In a thread: the first text loads a library, a thousand long ones take seconds."""
        if not any(record.type in self.types.scored for record in events):
            return events
        return await asyncio.to_thread(lambda: [self._with_sentiment(record) for record in events])

    def _with_sentiment(self, record: EventRecord) -> EventRecord:
        if record.type not in self.types.scored:
            return record
        properties = self.types.with_sentiment(record.type, record.properties, self.sentiment)
        return msgspec.structs.replace(record, properties=properties)

    async def close(self) -> None:
        """Wait for what is under way, and release what is open, but for the log."""
        if self._following:
            await asyncio.wait(self._following)
        await self.store.close()
