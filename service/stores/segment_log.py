"""The log on disk: what is acknowledged has been through fsync. One thread writes for all callers of a process."""

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

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
    line_parts,
)
from service.errors import LogUnavailable
from service.files import DISK, Files
from service.ports import Acknowledgement, Entry, LogStatus, Position, Taken, acknowledged, reused_of
from service.stores.id_index import hash_id
from service.stores.known_ids import KEPT_S, KnownIds
from service.stores.segments import SegmentWriter

DECISIONS, OUTCOMES, EVENTS, IDENTITIES, QUARANTINE = "decisions", "outcomes", "events", "identities", "quarantine"
CONSENTS, ALERTS, SHADOWS = "consents", "alerts", "shadows"
KINDS = DECISIONS, OUTCOMES, EVENTS, IDENTITIES, QUARANTINE, CONSENTS, ALERTS, SHADOWS
SEGMENT_BYTES = 64 * 2**20
ID_FIELDS = {DECISIONS: "decision_id", OUTCOMES: "outcome_id", EVENTS: "event_id"}  # of kinds whose records are written once
QUEUE_BYTES = 32 * 2**20  # more waits nowhere: the disk is not keeping up
LOOK_EVERY_S = 0.5  # how often an unknown decision id makes us look into the segments of other processes


Record = TypeVar("Record", OutcomeRecord, EventRecord)
Sent = tuple[int, int]  # the hash of an id, and the checksum of what was sent under it
# puts records with these ids on disk; returns them as they were written
Write = Callable[[Sequence[Sent], Sequence[Record]], Awaitable[tuple[Record, ...]]]


class _Write(NamedTuple):
    """Lines for one file, and who waits for them."""

    kind: str
    data: bytes
    records: int
    ids: Sequence[Sent]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class SegmentLog:
    """Decisions and outcomes as segments under a folder. Callers share a write and its fsync (group commit)."""

    def __init__(
        self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, queue_bytes: int = QUEUE_BYTES, kept_s: float = KEPT_S,
        interval_s: float | None = None, files: Files = DISK, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._writers = {
            kind: SegmentWriter(folder / kind, segment_bytes, files, clock, ID_FIELDS.get(kind, "")) for kind in KINDS
        }
        self._interval = interval_s
        self._synced = time.monotonic()
        self._failures = 0
        self._encoder = msgspec.json.Encoder()
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._queue_bytes = queue_bytes
        self._thread: threading.Thread | None = None
        known = {
            kind: KnownIds(folder / kind, field, writer=self._writers[kind].mark, kept_s=kept_s, files=files, clock=clock)
            for kind, field in ID_FIELDS.items()
        }
        self._known_decisions = known[DECISIONS]
        self._outcomes: _Once[OutcomeRecord] = _Once(known[OUTCOMES], "outcome_id")
        self._events: _Once[EventRecord] = _Once(known[EVENTS], "event_id")
        self._looked = 0.0

    def status(self) -> LogStatus:
        """What the log promises, and where it stands."""
        mode, window = ("fsync", 0.0) if self._interval is None else ("interval", self._interval * 1000)
        found = {kind: writer.position for kind, writer in self._writers.items()}
        segments = {kind: Position(*position) for kind, position in found.items() if position is not None}
        return LogStatus(mode, window, self._waiting_bytes, self._failures, segments)

    def entry(self, record: DecisionRecord) -> Entry:
        """A decision spelt out, which is most of what is done here before the disk: 13 us."""
        return Entry(record, line_parts(self._encoder.encode(record)), (hash_id(record.decision_id), _check(record.sent)))

    async def append_decisions(self, entries: Sequence[Entry]) -> None:
        """Write down decisions. Raises LogUnavailable, having acknowledged nothing."""
        ids = [entry.id for entry in entries]
        await self._write_lines(DECISIONS, [entry.line for entry in entries], ids)
        self._known_decisions.add(dict(ids))

    def has_decision(self, decision_id: str) -> bool:
        """Whether this id was decided, by any process, as long ago as ids are known."""
        return bool(self._known_decisions.among([hash_id(decision_id)]))

    async def append_outcomes(self, records: Sequence[OutcomeRecord]) -> Acknowledgement:
        """Write down outcomes whose id is new. Raises LogUnavailable, having acknowledged nothing."""
        written, reused = await self._outcomes.append(records, self._write_outcomes)
        return acknowledged(records, written, reused)

    async def _write_outcomes(self, ids: Sequence[Sent], records: Sequence[OutcomeRecord]) -> tuple[OutcomeRecord, ...]:
        decided = self._decided({r.decision_id for r in records})
        marked = tuple(msgspec.structs.replace(r, orphan=r.decision_id not in decided) for r in records)
        await self._write(OUTCOMES, marked, ids)
        return marked

    async def append_events(self, records: Sequence[EventRecord]) -> Taken[EventRecord]:
        """Write down events whose id is new. Raises LogUnavailable, having acknowledged nothing."""
        return await self._events.append(records, self._write_events)

    async def _write_events(self, ids: Sequence[Sent], records: Sequence[EventRecord]) -> tuple[EventRecord, ...]:
        await self._write(EVENTS, records, ids)
        return tuple(records)

    async def append_identities(self, records: Sequence[IdentityRecord]) -> None:
        """Write down links. Raises LogUnavailable."""
        await self._write(IDENTITIES, records)

    async def append_consents(self, records: Sequence[ConsentRecord]) -> None:
        """Write down what customers consent to. Raises LogUnavailable."""
        await self._write(CONSENTS, records)

    async def append_alerts(self, records: Sequence[AlertRaised]) -> None:
        """Write down alerts. Raises LogUnavailable."""
        await self._write(ALERTS, records)

    async def append_shadows(self, records: Sequence[ShadowRecord]) -> None:
        """Write down what shadows would have decided. Raises LogUnavailable."""
        await self._write(SHADOWS, records)

    async def quarantine(self, records: Sequence[QuarantinedRecord]) -> None:
        """Write down events that could not be taken. Raises LogUnavailable."""
        if records:
            await self._write(QUARANTINE, records)

    def _decided(self, decision_ids: set[str]) -> set[str]:
        """Those that name a decision that is known."""
        hashed = {hash_id(name): name for name in decision_ids}
        found = set(self._known_decisions.among(hashed, look=False))
        if len(found) < len(hashed) and time.monotonic() - self._looked > LOOK_EVERY_S:
            self._looked = time.monotonic()
            found |= self._known_decisions.among(hashed.keys() - found).keys()
        return {hashed[one] for one in found}

    async def _write(self, kind: str, records: Sequence[msgspec.Struct], ids: Sequence[Sent] = ()) -> None:
        await self._write_lines(kind, [line_parts(self._encoder.encode(record)) for record in records], ids)

    async def _write_lines(self, kind: str, lines: Sequence[tuple[bytes, ...]], ids: Sequence[Sent]) -> None:
        data = b"".join(itertools.chain.from_iterable(lines))
        if self._waiting_bytes + len(data) > self._queue_bytes:
            raise LogUnavailable(f"Expected the disk to keep up, found {self._waiting_bytes} bytes waiting for it")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="segment-log", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        write = _Write(kind, data, len(lines), ids, loop, loop.create_future())
        self._waiting_bytes += len(data)
        self._queue.put(write)
        await write.done

    def _work(self) -> None:
        """The thread: whatever has gathered goes to disk together."""
        ended = False
        while not ended:
            together, ended = self._gathered()
            self._commit(together)
            if self._interval is not None and time.monotonic() - self._synced >= self._interval:
                self._sync()

    def _gathered(self) -> tuple[list[_Write], bool]:
        """What waits to be written, and whether it is the last."""
        together: list[_Write] = []
        try:
            one = self._queue.get(timeout=self._interval)
            while one is not None:
                together.append(one)
                if self._queue.empty():
                    return together, False
                one = self._queue.get()
        except queue.Empty:
            return together, False
        return together, True

    def _commit(self, together: Sequence[_Write]) -> None:
        for kind, writer in self._writers.items():
            mine = [write for write in together if write.kind == kind]
            error = self._attempt(writer, mine) if mine else None
            for loop in {write.loop for write in mine}:
                loop.call_soon_threadsafe(self._acknowledge, [w for w in mine if w.loop is loop], error)

    def _attempt(self, writer: SegmentWriter, mine: Sequence[_Write]) -> OSError | None:
        ids = itertools.chain.from_iterable(write.ids for write in mine)
        try:
            records = sum(write.records for write in mine)
            writer.write(b"".join([write.data for write in mine]), ids, wait=self._interval is None, records=records)
        except OSError as error:
            self._failures += 1
            return error
        return None

    def _sync(self) -> None:
        """What was acknowledged since the last time is on disk; where the disk refuses, that is lost with the power."""
        self._synced = time.monotonic()
        for writer in self._writers.values():
            try:
                writer.sync()
            except OSError:
                self._failures += 1

    def _acknowledge(self, written: Sequence[_Write], error: OSError | None) -> None:
        for write in written:
            self._waiting_bytes -= len(write.data)
            if write.done.done():
                continue
            if error is None:
                write.done.set_result(None)
            else:
                write.done.set_exception(LogUnavailable(f"Expected the disk to take a record, got: {error}"))

    async def close(self) -> None:
        """Write down what is pending and release the files."""
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        for writer in self._writers.values():
            try:
                writer.close()
            except OSError:
                self._failures += 1


class _Once(Generic[Record]):
    """Records of one kind, each id written once; two processes that are told of one at the same moment both write it."""

    def __init__(self, known: KnownIds, field: str) -> None:
        self._known = known
        self._field = field
        self._in_flight: dict[int, asyncio.Task[tuple[Record, ...]]] = {}

    async def append(self, records: Sequence[Record], write: Write[Record]) -> Taken[Record]:
        """Those that were new, as they were written; and which ones have an id that stood for something else before."""
        sent = [(hash_id(getattr(r, self._field)), _check(r.sent)) for r in records]
        by_id = {
            hashed: record for (hashed, _), record in zip(reversed(sent), reversed(records), strict=True)
        }  # the first counts
        known = await self._settled(by_id.keys())
        new = {h: r for h, r in reversed(by_id.items()) if h not in known}
        reused = reused_of(sent, known | {h: _check(r.sent) for h, r in new.items()})
        if not new:
            return Taken((), reused)
        claim = asyncio.create_task(self._append_new(new, write))
        self._in_flight.update(dict.fromkeys(new, claim))
        claim.add_done_callback(_retrieve)
        return Taken(await asyncio.shield(claim), reused)  # a caller who leaves does not stop the write

    async def _settled(self, hashed: AbstractSet[int]) -> dict[int, int]:
        """Which of them are on disk, at a moment when none is on its way there. Raises LogUnavailable."""
        synced: set[tuple[Path, int]] = set()
        while True:
            if others := {self._in_flight[h] for h in hashed if h in self._in_flight}:
                await asyncio.wait(others)  # an id on its way to disk: its fate decides whether ours is a duplicate
                continue
            known = self._known.among(hashed)
            doubtful = self._known.doubtful(known.keys()) - synced
            if not doubtful:
                return known
            try:
                await asyncio.to_thread(self._known.sync, {path for path, _ in doubtful})
            except OSError as error:
                raise LogUnavailable(f"Expected the disk to keep what another process wrote, got: {error}") from error
            synced |= doubtful  # and is looked for again: where the disk refused it to its writer, it is no more

    async def _append_new(self, new: dict[int, Record], write: Write[Record]) -> tuple[Record, ...]:
        """Write, and remember the ids once they are on disk."""
        ids = [(hashed, _check(record.sent)) for hashed, record in new.items()]
        try:
            written = await write(ids, list(new.values()))
            self._known.add(dict(ids))
            return written
        finally:
            for hashed in new:
                del self._in_flight[hashed]


def _check(sent: str) -> int:
    """0 where nobody compares."""
    return int(sent, 16) if sent else 0


def _retrieve(claim: asyncio.Task[tuple[Record, ...]]) -> None:
    """A failure whose caller has left is nobody's to handle."""
    if not claim.cancelled():
        claim.exception()
