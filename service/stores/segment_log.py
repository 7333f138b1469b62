"""The log on disk: what is acknowledged has been through fsync. One thread writes for all callers of a process."""

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
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
    encode_line,
)
from service.errors import LogUnavailable
from service.ports import Acknowledgement
from service.stores.known_ids import KnownIds, hash_id, id_of
from service.stores.segments import SegmentFollower, SegmentWriter

DECISIONS, OUTCOMES, EVENTS, IDENTITIES, QUARANTINE = "decisions", "outcomes", "events", "identities", "quarantine"
CONSENTS, ALERTS = "consents", "alerts"
KINDS = DECISIONS, OUTCOMES, EVENTS, IDENTITIES, QUARANTINE, CONSENTS, ALERTS
SEGMENT_BYTES = 64 * 2**20
QUEUE_BYTES = 32 * 2**20  # more waits nowhere: the disk is not keeping up
REMEMBERED_BYTES = 32 * 2**20  # of the newest segments, read at start for their ids: 10,000 decisions, 130,000 outcomes; 60 ms
REMEMBERED_EVENTS = 8 * 2**20  # the same of events, which are many: 40,000; 0.2 s. Features notice a repetition themselves
LOOK_EVERY_S = 0.5  # how often an unknown decision id makes us look into the segments of other processes


Record = TypeVar("Record", bound=msgspec.Struct)
Write = Callable[[Sequence[Record]], Awaitable[tuple[Record, ...]]]  # puts records on disk; returns them as they were written


class _Write(NamedTuple):
    """Lines for one file, and who waits for them."""

    kind: str
    data: bytes
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class SegmentLog:
    """Decisions and outcomes as segments under a folder. Callers share a write and its fsync (group commit)."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, queue_bytes: int = QUEUE_BYTES) -> None:
        self._writers = {kind: SegmentWriter(folder / kind, segment_bytes) for kind in KINDS}
        self._encoder = msgspec.json.Encoder()
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._queue_bytes = queue_bytes
        self._thread: threading.Thread | None = None
        self._decisions = SegmentFollower(folder / DECISIONS, ours=self._writers[DECISIONS].mark)
        self._known_decisions = KnownIds()
        self._known_decisions.add(hash_id(id_of(p, "decision_id")) for p in self._decisions.start(REMEMBERED_BYTES))
        self._outcomes: _Once[OutcomeRecord] = _Once(folder / OUTCOMES, "outcome_id", REMEMBERED_BYTES)
        self._events: _Once[EventRecord] = _Once(folder / EVENTS, "event_id", REMEMBERED_EVENTS)
        self._looked = 0.0

    async def append_decisions(self, records: Sequence[DecisionRecord]) -> None:
        """Write down decisions. Raises LogUnavailable, having acknowledged nothing."""
        await self._write(DECISIONS, records)
        self._known_decisions.add(hash_id(r.decision_id) for r in records)

    async def append_outcomes(self, records: Sequence[OutcomeRecord]) -> Acknowledgement:
        """Write down outcomes whose id is new. Raises LogUnavailable, having acknowledged nothing."""
        written = await self._outcomes.append(records, self._write_outcomes)
        return Acknowledgement(len(written), len(records) - len(written), sum(r.orphan for r in written), written)

    async def _write_outcomes(self, records: Sequence[OutcomeRecord]) -> tuple[OutcomeRecord, ...]:
        marked = tuple(msgspec.structs.replace(r, orphan=not self._decided(r.decision_id)) for r in records)
        await self._write(OUTCOMES, marked)
        return marked

    async def append_events(self, records: Sequence[EventRecord]) -> tuple[EventRecord, ...]:
        """Write down events whose id is new, and return those. Raises LogUnavailable, having acknowledged nothing."""
        return await self._events.append(records, self._write_events)

    async def _write_events(self, records: Sequence[EventRecord]) -> tuple[EventRecord, ...]:
        await self._write(EVENTS, records)
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

    async def quarantine(self, records: Sequence[QuarantinedRecord]) -> None:
        """Write down events that could not be taken. Raises LogUnavailable."""
        if records:
            await self._write(QUARANTINE, records)

    def _decided(self, decision_id: str) -> bool:
        hashed = hash_id(decision_id)
        if hashed not in self._known_decisions and time.monotonic() - self._looked > LOOK_EVERY_S:
            self._looked = time.monotonic()
            self._known_decisions.add(hash_id(id_of(payload, "decision_id")) for payload in self._decisions.look())
        return hashed in self._known_decisions

    async def _write(self, kind: str, records: Sequence[msgspec.Struct]) -> None:
        data = b"".join([encode_line(self._encoder.encode(r)) for r in records])
        if self._waiting_bytes + len(data) > self._queue_bytes:
            raise LogUnavailable(f"Expected the disk to keep up, found {self._waiting_bytes} bytes waiting for it")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="segment-log", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        write = _Write(kind, data, loop, loop.create_future())
        self._waiting_bytes += len(data)
        self._queue.put(write)
        await write.done

    def _work(self) -> None:
        """The thread: whatever has gathered goes to disk together."""
        while (first := self._queue.get()) is not None:
            together, ended = [first], False
            while not ended and not self._queue.empty():
                write = self._queue.get()
                ended = write is None
                together += [write] if write is not None else []
            self._commit(together)
            if ended:
                return

    def _commit(self, together: Sequence[_Write]) -> None:
        for kind, writer in self._writers.items():
            mine = [write for write in together if write.kind == kind]
            error = _attempt(writer, b"".join([write.data for write in mine])) if mine else None
            for loop in {write.loop for write in mine}:
                loop.call_soon_threadsafe(self._acknowledge, [w for w in mine if w.loop is loop], error)

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
            writer.close()


class _Once(Generic[Record]):
    """Records of one kind, each id written once: by this process, or in what others wrote before it started."""

    def __init__(self, folder: Path, field: str, remembered: int) -> None:
        self._field = field
        self._known = KnownIds()
        self._known.add(hash_id(id_of(p, field)) for p in SegmentFollower(folder).start(remembered))
        self._in_flight: dict[int, asyncio.Task[tuple[Record, ...]]] = {}

    async def append(self, records: Sequence[Record], write: Write[Record]) -> tuple[Record, ...]:
        """Those that were new, as they were written."""
        by_id = {hash_id(getattr(r, self._field)): r for r in reversed(records)}  # the first of a call counts
        while others := {self._in_flight[h] for h in by_id if h in self._in_flight}:
            await asyncio.wait(others)  # an id on its way to disk: its fate decides whether ours is a duplicate
        new = {h: r for h, r in reversed(by_id.items()) if h not in self._known}
        if not new:
            return ()
        claim = asyncio.create_task(self._append_new(new, write))
        self._in_flight.update(dict.fromkeys(new, claim))
        claim.add_done_callback(_retrieve)
        return await asyncio.shield(claim)  # a caller who leaves does not stop the write

    async def _append_new(self, new: dict[int, Record], write: Write[Record]) -> tuple[Record, ...]:
        """Write, and remember the ids once they are on disk."""
        try:
            written = await write(list(new.values()))
            self._known.add(new)
            return written
        finally:
            for hashed in new:
                del self._in_flight[hashed]


def _retrieve(claim: asyncio.Task[tuple[Record, ...]]) -> None:
    """A failure whose caller has left is nobody's to handle."""
    if not claim.cancelled():
        claim.exception()


def _attempt(writer: SegmentWriter, data: bytes) -> OSError | None:
    try:
        writer.write(data)
    except OSError as error:
        return error
    return None
