"""Events are on disk first; of those that features do not know, as many are counted as there are."""

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
    taken = await intake.take(events, ())
    assert len(taken.new) == 3
    assert metrics.registry.get_sample_value("nextbest_events_unfed_total") == unfed
