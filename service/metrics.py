"""What the service counts and times, for Prometheus."""

import math
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)
STAGES = ("read", "decide", "claim", "append")
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """All metrics of one process. `shared`: sum over the workers, whose values lie in PROMETHEUS_MULTIPROC_DIR."""

    def __init__(self, *, shared: bool = False) -> None:
        self.registry = CollectorRegistry()
        self._shared = shared
        own = self.registry
        self.decisions = Counter("nextbest_decisions", "Decisions answered", registry=own)
        self.items = Counter("nextbest_items", "Items served", ["placement", "kind"], registry=own)
        self.fallbacks = Counter("nextbest_fallbacks", "Placements that showed their fallback", ["placement"], registry=own)
        self.degraded = Counter("nextbest_degraded", "Decisions that had to do without something", ["reason"], registry=own)
        self.reclaims = Counter("nextbest_reclaims", "Decisions made again, since a contact came in between", registry=own)
        self.forgotten = Counter("nextbest_contacts_forgotten", "Contacts in the log that Redis did not take", registry=own)
        self.in_vain = Counter("nextbest_redis_waits", "Requests that waited for Redis until the time-out", registry=own)
        self.outcomes = Counter("nextbest_outcomes", "Outcomes by what became of them", ["result"], registry=own)
        self.events = Counter("nextbest_events", "Events by what became of them", ["result"], registry=own)
        self.unfed = Counter("nextbest_events_unfed", "Events in the log that features do not know", registry=own)
        self.rejected = Counter("nextbest_rejected", "Requests turned away: too many under way", ["priority"], registry=own)
        self.alerts = Counter("nextbest_alerts", "Alerts by what became of them", ["result"], registry=own)
        self.errors = Counter("nextbest_errors", "Requests refused or failed", ["status"], registry=own)
        self.shadows = Counter("nextbest_shadows", "Decisions by what a shadow made of them", ["bundle", "result"], registry=own)
        self.shadow = Histogram(
            "nextbest_shadow_seconds", "Time of a shadow's decision", ["bundle"], buckets=SECONDS, registry=own
        )
        self.batch = Histogram("nextbest_batch_requests", "Requests decided together", buckets=SIZES, registry=own)
        stage = Histogram("nextbest_stage_seconds", "Time of a batch per stage", ["stage"], buckets=SECONDS, registry=own)
        self.stages = {name: stage.labels(name) for name in STAGES}
        self.swaps = Counter("nextbest_engine_swaps", "Catalogs or bundles that took over", registry=own)
        self.refusals = Counter("nextbest_engine_refusals", "Catalogs or bundles that were refused", registry=own)
        self.catalog = Gauge("nextbest_catalog_revision", "Catalog that serves", registry=own, multiprocess_mode="max")

    def shares(self) -> dict[str, float]:
        """What part of this process's decisions had to do without something, by reason."""
        made = sum(sample.value for sample in _totals(self.decisions))
        return {sample.labels["reason"]: round(sample.value / made, 6) for sample in _totals(self.degraded)} if made else {}

    def slowest(self) -> dict[str, dict[str, float | None]]:
        """Per stage, how long half of this process's batches took at most, and 99 of a hundred: milliseconds.

        Bounds of the histogram's buckets; None for longer than the longest.
        """
        return {name: {f"p{100 * q:g}_ms": _bound(stage, q) for q in (0.5, 0.99)} for name, stage in self.stages.items()}

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        if not self._shared:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # the library is partly annotated
        return generate_latest(together)


def _totals(counter: Counter) -> Iterator[Sample]:
    families: Iterator[Metric] = iter(counter.collect())
    return (sample for family in families for sample in family.samples if sample.name.endswith("_total"))


def _bound(histogram: Histogram, quantile: float) -> float | None:
    """The upper bound, in milliseconds, of the bucket that holds the quantile; 0 where nothing was counted."""
    samples = [s for family in histogram.collect() for s in family.samples if s.name.endswith("_bucket")]
    counted = samples[-1].value
    if not counted:
        return 0.0
    bound = next(float(s.labels["le"]) for s in samples if s.value >= quantile * counted)
    return None if math.isinf(bound) else bound * 1000
