"""What is counted and timed of a batch: taken to the metrics once its answers have gone out, since nobody waits for that."""

from collections import Counter
from collections.abc import Sequence

from service.decision.records import DecisionRecord
from service.metrics import Metrics
from service.tracing import Lap, Timed


class Booking:
    """Of one batch, of so many requests."""

    __slots__ = ("_metrics", "_missing", "_records", "_size", "laps")

    def __init__(self, metrics: Metrics, size: int) -> None:
        self._metrics, self._size = metrics, size
        self._records: Sequence[DecisionRecord] = ()
        self._missing: tuple[str, ...] = ()
        self.laps: list[Lap] = []

    def stage(self, name: str) -> Timed:
        """Times what happens within."""
        return Timed(name, self.laps)

    def answered(self, records: Sequence[DecisionRecord], missing: tuple[str, ...]) -> None:
        """These decisions were told. `missing`: what all of them had to do without at the end."""
        self._records, self._missing = records, missing

    def write(self) -> None:
        """To the metrics: 60 us of a request that comes alone, which it need not wait for."""
        self._metrics.batch.observe(self._size)
        for lap in self.laps:
            self._metrics.stages[lap.stage].observe((lap.ended - lap.begun) / 1e9)
        count(self._metrics, self._records, self._missing)


def count(metrics: Metrics, records: Sequence[DecisionRecord], missing: tuple[str, ...]) -> None:
    """Decisions that were told, what they showed, and what they had to do without."""
    placements = [placement for record in records for placement in record.placements]
    reasons = (told for r in records for told in {one.partition(":")[0] for one in (*r.degraded, *missing)})
    metrics.decisions.inc(len(records))
    for reason, times in Counter(reasons).items():
        metrics.degraded.labels(reason).inc(times)
    for name, times in Counter(placement.id for placement in placements if placement.fallback).items():
        metrics.fallbacks.labels(name).inc(times)
    for (name, kind), times in Counter((p.id, item.kind) for p in placements for item in p.items).items():
        metrics.items.labels(name, kind).inc(times)
