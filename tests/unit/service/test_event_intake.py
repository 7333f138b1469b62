"""Events are on disk first; of those that features do not know, as many are counted as there are."""

import asyncio

import pytest

from features.event_types import parse_event_types
from service.decision.records import EventRecord
from service.errors import DependencyFailed
from service.events import EventIntake
from service.metrics import Metrics
from service.stores.memory_log import MemoryDecisionLog

NOW = 1_790_000_000.0


class Store:
    """Cannot add to some customers, or to none at all."""

    def __init__(self, malformed: frozenset[str], *, is_down: bool) -> None:
        self._malformed, self._is_down = malformed, is_down

    async def apply(self, events) -> frozenset[str]:
        if self._is_down:
            raise DependencyFailed(f"Expected {len(events)} events to be added, got no answer")
        return self._malformed

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(("malformed", "is_down", "unfed"), [((), False, 0), (("c1",), False, 2), ((), True, 3)])
async def test_events_that_features_do_not_know_are_counted(malformed, is_down, unfed):
    """All where nothing answers; those of a customer where only what is kept of that one is malformed."""
    log, metrics = MemoryDecisionLog(), Metrics()
    types = parse_event_types("events: {viewed: {}}")
    intake = EventIntake(log, Store(frozenset(malformed), is_down=is_down), types, metrics, lambda: NOW)
    events = [EventRecord(f"e{n}", customer, "viewed", "web", NOW, NOW, {}) for n, customer in enumerate(("c1", "c2", "c1"))]
    taken = await intake.write_down(events, ())
    await intake.follow(taken.new)
    assert len(taken.new) == 3
    assert metrics.registry.get_sample_value("nextbest_events_unfed_total") == unfed


class HangingStore(Store):
    """Fails when it is told to."""

    def __init__(self) -> None:
        super().__init__(frozenset(), is_down=True)
        self.go = asyncio.Event()

    async def apply(self, events) -> frozenset[str]:
        await self.go.wait()
        return await super().apply(events)


async def test_nobody_waits_longer_than_they_want_for_what_their_events_feed():
    """It goes on behind them, is waited for at the end, and counted as it ends."""
    metrics, store = Metrics(), HangingStore()
    intake = EventIntake(MemoryDecisionLog(), store, parse_event_types("events: {viewed: {}}"), metrics, lambda: NOW)
    taken = await intake.write_down([EventRecord("e1", "c1", "viewed", "web", NOW, NOW, {})], ())
    await asyncio.wait_for(intake.follow(taken.new, 0.01), 5)
    assert metrics.registry.get_sample_value("nextbest_events_unfed_total") == 0
    closing = asyncio.create_task(intake.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    store.go.set()
    await asyncio.wait_for(closing, 5)
    assert metrics.registry.get_sample_value("nextbest_events_unfed_total") == 1
