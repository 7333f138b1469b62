"""Row 10: every outcome that is received is counted once, as exactly one thing."""

import asyncio
import datetime as dt
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import msgspec
from hypothesis import strategies as st

from service.api.outcomes import judge
from service.decision.engine import Engine
from service.decision.records import DecisionRecord, OutcomeRecord, Versions
from service.errors import NotReady
from service.feedback import take_outcomes
from service.ids import new_decision_id
from service.metrics import Metrics
from service.pipeline import Parts
from service.ports import Acknowledgement
from service.stores.contact_history import MemoryContactHistory
from service.stores.customer_reader import MemoryCustomerReader
from service.stores.memory_log import MemoryDecisionLog
from service.stores.segment_log import SegmentLog
from tests.acceptance.row import Context, Measured, Row
from training.live_log import read_log

RUNS = 2000
DAY = 86_400.0
KEPT_S = 31 * DAY
START = 1_790_000_000.0
DECISIONS = tuple(new_decision_id("c1") for _ in range(3))  # of a customer whose contacts are counted
UNKNOWN = new_decision_id("c1")

Log = Callable[[Path, Callable[[], float]], Any]


class Sent(NamedTuple):
    """One outcome: which id, of which decision, how long ago it happened, and whether it is well formed."""

    name: int
    decision: int  # a place in DECISIONS; beyond: unknown
    ago: float
    sound: bool


class Step(NamedTuple):
    """Time passes, the process may start again, and a call arrives."""

    passes: float
    restarts: bool
    call: list[Sent]


sent = st.builds(
    Sent,
    st.integers(0, 12),
    st.integers(0, 3),
    st.sampled_from([0.0, 60.0, 20 * DAY, KEPT_S - 1, KEPT_S + 1, 40 * DAY, 400 * DAY]),
    st.sampled_from([True, True, True, False]),
)
steps = st.lists(
    st.builds(Step, st.sampled_from([0.0, 1.0, DAY, 20 * DAY, 32 * DAY]), st.booleans(), st.lists(sent, min_size=1, max_size=8)),
    min_size=1,
    max_size=8,
)


@dataclass
class Told:
    """What was received, and what it was counted as."""

    received: int = 0
    applied: int = 0
    duplicate: int = 0
    late: int = 0
    orphan: int = 0
    rejected: int = 0

    @property
    def adds_up(self) -> bool:
        return self.received == self.applied + self.duplicate + self.late + self.orphan + self.rejected

    def add(self, received: int, done: Acknowledgement, rejected: int) -> None:
        self.received += received
        self.applied += done.accepted - done.orphans - done.late
        self.duplicate += done.duplicates
        self.late += done.late
        self.orphan += done.orphans
        self.rejected += rejected


@dataclass
class Clock:
    """Seconds since 1970 UTC that pass when told."""

    now: float = START

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> float:
        self.now += seconds
        return self.now


def segment_log(folder: Path, clock: Callable[[], float]) -> SegmentLog:
    return SegmentLog(folder / "log", segment_bytes=2000, kept_s=KEPT_S, clock=clock)


async def conserved(folder: Path, plan: Sequence[Step], make: Log) -> list[str]:
    """What does not add up: in the answers, in the metrics, in the log and in the contacts."""
    clock, told, happened = Clock(), Told(), dict[int, float]()
    history, metrics = MemoryContactHistory(), Metrics()
    log = make(folder, clock)
    await log.append_decisions(
        [log.entry(DecisionRecord(d, "c1", START, {}, {}, (), Versions(1, None, "x"), ())) for d in DECISIONS]
    )
    applied = Counter[str]()
    for step in plan:
        now = clock.pass_by(step.passes)
        if step.restarts:
            await log.close()
            log = make(folder, clock)
        body = msgspec.json.encode({"outcomes": [_as_sent(one, happened, now) for one in step.call]})
        accepted, rejected = judge(body, now, KEPT_S)
        parts = Parts(MemoryCustomerReader({}, history), history, log, _no_engine, metrics, clock, ids_kept_s=KEPT_S)
        done = await take_outcomes(parts, accepted) if accepted else Acknowledgement(0, 0, 0)
        told.add(len(step.call), done, len(rejected) + len(done.reused))
        applied.update(record.outcome_id for record in done.new if not record.late)
    await log.close()
    return list(_problems(folder, told, applied, history))


def _as_sent(one: Sent, happened: dict[int, float], now: float) -> dict[str, Any]:
    """As a client sends it: what has one id happened at one moment, however often it is sent."""
    at = happened.setdefault(one.name, now - one.ago)
    decision = DECISIONS[one.decision] if one.decision < len(DECISIONS) else UNKNOWN
    outcome = {"outcome_id": f"o{one.name}", "decision_id": decision, "type": "click", "action_id": "a"}
    moment = dt.datetime.fromtimestamp(at, dt.UTC).isoformat()
    return {**outcome, "at": moment} if one.sound else {**outcome, "at": "yesterday"}


def _no_engine() -> Engine:
    raise NotReady("no catalog was published")


def _problems(folder: Path, told: Told, applied: Counter[str], history: MemoryContactHistory) -> Any:
    if not told.adds_up:
        yield f"does not add up: {told}"
    if any(count > 1 for count in applied.values()):
        yield f"applied twice: {applied}"
    contacts = len(history.contacts("c1")) // 16
    if contacts != applied.total():
        yield f"{contacts} contacts of {applied.total()} applied"
    written = list(read_log(folder, "outcomes", OutcomeRecord))
    if (folder / "log").exists() and len(written) != told.applied + told.late + told.orphan:
        yield f"{len(written)} in the log of {told}"


def first_violation(runs: int, seed: int, make: Log) -> str | None:
    """What hypothesis finds within so many runs."""

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=runs, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(steps)
    def holds(plan: list[Step]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            assert not (found := asyncio.run(conserved(Path(folder), plan, make))), found

    try:
        holds()
    except AssertionError as error:
        return str(error).splitlines()[0]
    return None


class ForgetfulLog(MemoryDecisionLog):
    """The protection taken away: ids are known until the next restart, and no longer."""


def forgetful(_folder: Path, _clock: Callable[[], float]) -> ForgetfulLog:
    """A new one knows nothing."""
    return ForgetfulLog()


def measure(context: Context) -> Measured:
    found = first_violation(RUNS, context.seed, segment_log)
    control = first_violation(RUNS, context.seed, forgetful)
    figure = (
        f"{RUNS:,} runs of calls, restarts and months passing: {found or 'received is the sum of the five, each time'}; with ids "
        f"that a restart forgets: {control or 'nothing noticed'}"
    )
    return Measured(figure, found is None and control is not None)


ROW = Row(10, "conservation of outcomes, on a virtual clock", f"exact over {RUNS:,} runs of hypothesis", measure)
