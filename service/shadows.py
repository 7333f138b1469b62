"""What a bundle on its way up would have decided, worked out once the answers are out, and written down beside them."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from service.decision.again import decide_again
from service.decision.arbitration import fraction
from service.decision.engine import Engine
from service.decision.records import DecisionRecord, PlacementRecord, ShadowPlacement, ShadowRecord
from service.errors import LogUnavailable, ModelFailed
from service.metrics import Metrics
from service.pacing import breathe, paced
from service.ports import DecisionLog

SAMPLE = "shadow sample"  # salt of the hash that a decision is in the sample by
MOST_WAITING = 128  # decisions; what comes beyond is not looked at: 256 a second, of 1 ms each, in a quarter of a thread's time
GATHER_S = 0.5  # the log is written at most so often, so that no decision waits for a shadow's sync


class ShadowDesk:
    """Asks shadows about a sample of the decisions that the champion made, in a thread that gives way to answers.

    `engines`: of the bundles that are staged now; `share` of the decisions, 0 to 1, by a hash of their id.
    """

    def __init__(
        self, engines: Callable[[], Mapping[str, Engine]], log: DecisionLog, metrics: Metrics, share: float,
        gather_s: float = GATHER_S,
    ) -> None:  # fmt: skip
        self._engines, self._log, self._metrics = engines, log, metrics
        self._share, self._gather_s = share, gather_s
        self._waiting: list[DecisionRecord] = []
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def offer(self, records: Sequence[DecisionRecord], *, is_busy: bool) -> None:
        """These were answered and are on disk. Nothing is looked at while others wait, or too many came before."""
        engines = self._engines()
        if not engines:
            return
        sample = [r for r in records if r.experiment is None and fraction(f"{SAMPLE}\x1f{r.decision_id}") < self._share]
        room = 0 if is_busy else MOST_WAITING - len(self._waiting)
        for name in engines:
            self._metrics.shadows.labels(name, "skipped").inc(max(0, len(sample) - room))
        self._waiting += sample[:room]
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._gather_s)
            await self._look()

    async def _look(self) -> None:
        records, self._waiting = self._waiting, []
        found: list[ShadowRecord] = []
        await asyncio.to_thread(paced, lambda: found.extend(self._asked(records)))
        for one in found:
            result = "failed" if one.problem else "agreed" if one.agreed else "differed"
            self._metrics.shadows.labels(one.bundle, result).inc()
            self._metrics.shadow.labels(one.bundle).observe(one.took_ms / 1000)
        try:
            if found:
                await self._log.append_shadows(found)
        except LogUnavailable:
            for one in found:
                self._metrics.shadows.labels(one.bundle, "unwritten").inc()

    def _asked(self, records: Sequence[DecisionRecord]) -> Iterator[ShadowRecord]:
        for record in records:
            for name, engine in self._engines().items():
                breathe()
                if engine.versions.catalog == record.versions.catalog:
                    yield shadowed(engine, name, record)
                else:
                    self._metrics.shadows.labels(name, "skipped").inc()

    async def close(self) -> None:
        """Look at what waits, and write it down."""
        self._closing.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


def shadowed(engine: Engine, bundle: str, record: DecisionRecord, clock: Callable[[], float] = time.perf_counter) -> ShadowRecord:
    """What the engine of a bundle makes of a decision that was made. `clock`: seconds."""
    began = clock()
    try:
        own = decide_again(engine, record)
    except ModelFailed as error:
        return ShadowRecord(record.decision_id, bundle, record.at, _ms(clock() - began), problem=str(error))
    took, pairs = _ms(clock() - began), list(zip(own.placements, record.placements, strict=True))
    agreed = all(_actions(mine) == _actions(served) for mine, served in pairs)
    placements = tuple(_beside(mine, served) for mine, served in pairs)
    return ShadowRecord(record.decision_id, bundle, record.at, took, agreed, placements)


def _beside(own: PlacementRecord, served: PlacementRecord) -> ShadowPlacement:
    rates = dict(zip(own.candidates, own.predicted_rates, strict=True))
    return ShadowPlacement(
        own.id, _actions(own), tuple(item.predicted_rate for item in own.items), tuple(rates.get(a) for a in _actions(served))
    )


def _actions(placement: PlacementRecord) -> tuple[str, ...]:
    return tuple(item.action_id for item in placement.items)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
