"""`nextbest ingest FILE`: a history of events, from JSON lines, CSV or Parquet, into the lake and into the features.

Columns, or keys, are `event_id`, `customer_id`, `type`, `channel`, `at`; all others are properties. A mapping file says which
other names mean these. Without an id, equal rows are one event.
"""

import asyncio
import contextlib
import datetime as dt
import gzip
import hashlib
import tomllib
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from features.event_types import EventTypes, home_event_types, misplaced
from features.homes import home_contract
from features.sentiment import Sentiment
from service.decision.records import EventRecord, QuarantinedRecord
from service.errors import DependencyFailed, ImportInvalid
from service.ids import LONGEST_CUSTOMER, personal
from service.stores.completeness import INGESTED, nothing_written, set_complete
from service.stores.links import open_link
from service.stores.live_features import RedisLiveFeatures
from training.event_history import fed, is_erased, known_event_ids, moment, read_erasures, write_events
from training.feeding import has_unfed, only_feeder, part_of_feeding, put_back, set_fed, set_unfed
from training.live_log import read_log, write_segment
from training.spreading import new_pool, to_its_end
from training.tables import EXACT, read_table

AT_ONCE = 50_000  # events: a file in the lake for each of their days, fed while the next ones are read
FEEDERS = 2  # of the 2 cores that were measured: 19,000 to 20,500 events a second, 17,000 to 19,500 with one
PLAIN = (str, float, bool)  # properties that are taken as they are
TIMEOUT_MS = 60_000.0
KEPT_CHARACTERS = 20_000  # of a line that is no event, as of what the service sets aside
FARTHEST = 1e12  # seconds: beyond any calendar, and still whole microseconds in 64 bits
NO_OBJECT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what reading one as JSON raises

Progress = Callable[[int, int], None]
Row = Mapping[str, Any]


class EventMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which names of a foreign file mean what. A name may lead into what is nested, `value.amount`; `=web` stands for itself.

    `properties`: where each is found, the first that is there; without them, all other columns. `types`: other names of types.
    `at_unit`: seconds that a number in `at` counts, from `at_start` (RFC 3339) on.
    """

    customer_id: str = "customer_id"
    type: str = "type"
    channel: str = "channel"
    at: str = "at"
    event_id: str | None = "event_id"
    at_unit: float = 1.0
    at_start: str = "1970-01-01T00:00:00Z"
    properties: dict[str, tuple[str, ...]] | None = None
    types: dict[str, str] = {}


class Malformed(NamedTuple):
    """A line that holds no event: why, and the line."""

    reason: str
    text: str


class IngestReport(NamedTuple):
    """What became of the rows. `undeclared` are among the accepted."""

    rows: int
    accepted: int
    duplicates: int
    quarantined: int
    undeclared: int


def read_event_mapping(path: Path | None) -> EventMapping:
    """Raises ImportInvalid."""
    if path is None:
        return EventMapping()
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), EventMapping)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ImportInvalid([f"{path.name}: {error}"]) from error


def ingest(
    home: Path, redis_url: str, path: Path, mapping: Path | None = None, *, now: float, progress: Progress = lambda _d, _o: None
) -> IngestReport:
    """Take in a file; rows that cannot be taken are set aside in the log with their reason. Raises ImportInvalid.

    `now`: seconds since 1970 UTC. Taking in the same file again changes nothing.
    """
    with _all_fed(home, redis_url):
        ingestion, name = _Ingestion(home, read_event_mapping(mapping), now), f"ingest-{_fingerprint(path)}"
        report = _take_in(ingestion, redis_url, _rows(path, ingestion.texts), name, progress)
        _set_aside(home, name, ingestion.spoiled, now)
    return report


def ingest_quarantine(home: Path, redis_url: str, *, now: float, progress: Progress = lambda _d, _o: None) -> IngestReport:
    """Take in what was set aside and can be taken now; the rest stays where it is. What was taken before counts once."""
    with _all_fed(home, redis_url):
        ingestion = _Ingestion(home, EventMapping(), now)
        return _take_in(ingestion, redis_url, _quarantined(home), f"quarantine-{int(now * 1000):013d}", progress)


@contextlib.contextmanager
def _all_fed(home: Path, redis_url: str) -> Iterator[None]:
    """Nobody else takes in events, and whatever somebody who was killed has not fed is fed first."""
    with only_feeder(home):
        if has_unfed(home):
            asyncio.run(_make_up(home, redis_url))
        yield


async def _make_up(home: Path, redis_url: str) -> None:
    link = open_link(redis_url, timeout_ms=TIMEOUT_MS)
    try:
        await put_back(home, link)
        if nothing_written(home, but=INGESTED):
            await set_complete(link)
    finally:
        await link.close()


def _set_aside(home: Path, name: str, spoiled: Sequence[QuarantinedRecord], now: float) -> None:
    """Write down those that were not before."""
    known = {record.event for record in read_log(home, "quarantine", QuarantinedRecord)} if spoiled else set()
    new = [record for record in spoiled if record.event not in known]
    if new:
        write_segment(home, "quarantine", name, new, now)


def _take_in(
    ingestion: "_Ingestion", redis_url: str, rows: Iterator[Row | Malformed], name: str, progress: Progress
) -> IngestReport:
    done, home = 0, ingestion.home
    with _Store(home, redis_url, is_first=nothing_written(home)) as store:
        while chunk := list(islice(rows, AT_ONCE)):
            new = ingestion.take(chunk)
            if new:
                store.add(f"{name}-{done:010d}-{_digest(new)}", new, last=len(chunk) < AT_ONCE)
            done += len(chunk)
            progress(done, 0)
    return ingestion.report(done)


def _fingerprint(path: Path) -> str:
    if not path.is_file():
        raise ImportInvalid([f"Expected a file of events, found none - at `{path}`"])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _digest(records: Sequence[EventRecord]) -> str:
    """Of their ids, for the name of their file: the same rows may bring other events later, which must not replace these."""
    ids = hashlib.blake2b(digest_size=6)
    for record in records:
        ids.update(record.event_id.encode() + b"\0")
    return ids.hexdigest()


def _quarantined(home: Path) -> Iterator[Row]:
    """Events as they were sent; without a moment of their own, that of their arrival."""
    for record in read_log(home, "quarantine", QuarantinedRecord):
        try:
            event = msgspec.json.decode(record.event, type=dict[str, Any])
        except NO_OBJECT:
            event = {}  # not even an object: it stays what it is
        yield {"at": record.received_at, **event}


class _Store:
    """The lake, then features in Redis; where there is much, in processes of their own, beside the reading of what comes next.

    From before the first events are in the lake until the last ones are fed, the home is marked as one with events to feed.
    """

    def __init__(self, home: Path, redis_url: str, *, is_first: bool) -> None:
        self._home = home
        self._is_owed = False  # something may be in the lake that nobody was told to feed
        self._told = (str(home), redis_url, is_first)
        self._pool: ProcessPoolExecutor | None = None
        self._fed: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def add(self, name: str, records: Sequence[EventRecord], *, last: bool) -> None:
        """Write events down, wait for what was fed before, then feed these. `name`: of their file."""
        self._is_owed = True
        set_unfed(self._home)
        write_events(self._home, name, records)
        self._feed(records, last=last)
        self._is_owed = False

    def _feed(self, records: Sequence[EventRecord], *, last: bool) -> None:
        self._wait()
        if last and self._pool is None:
            feed(*self._told, msgspec.msgpack.encode(records))
            return
        if self._pool is None:
            self._pool = new_pool(FEEDERS)
        for part in _shared_out(records):
            self._fed.append(self._pool.submit(partial(to_its_end, feed), *self._told, msgspec.msgpack.encode(part)))

    def _wait(self) -> None:
        while self._fed:
            self._fed.pop().result()

    def __exit__(self, *_exception: object) -> None:
        try:
            self._wait()
            if not self._is_owed:
                set_fed(self._home)
        finally:
            if self._pool is not None:
                self._pool.shutdown()


def _shared_out(records: Sequence[EventRecord]) -> list[list[EventRecord]]:
    """A share for each feeder; all events of an id in one of them."""
    parts: list[list[EventRecord]] = [[] for _ in range(FEEDERS)]
    for record in records:
        parts[zlib.crc32(record.customer_id.encode()) % FEEDERS].append(record)
    return parts


def feed(home: str, redis_url: str, is_first: bool, records: bytes) -> None:  # noqa: FBT001  # called across processes
    """Feed events, as msgpack. `is_first`: before them, nothing was written that Redis could have lost."""
    with part_of_feeding(Path(home)) as is_wanted:
        if is_wanted:
            asyncio.run(_feed(Path(home), redis_url, msgspec.msgpack.decode(records, type=list[EventRecord]), is_first=is_first))


async def _feed(home: Path, redis_url: str, records: Sequence[EventRecord], *, is_first: bool) -> None:
    link, erased = open_link(redis_url, timeout_ms=TIMEOUT_MS), read_erasures(home)
    if erased:
        records = [record for record in records if not is_erased(erased, record.customer_id, record.counts_from)]
    try:
        await RedisLiveFeatures(link, home_contract(home)).apply(fed(records))
        if is_first:
            await set_complete(link)
    except DependencyFailed as error:
        raise DependencyFailed(
            f"{error}; the events are on disk: the next `nextbest ingest`, or `nextbest rebuild`, brings features up to date"
        ) from error
    finally:
        await link.close()


class _Ingestion:
    """Turns rows into events, each once."""

    def __init__(self, home: Path, mapping: EventMapping, now: float) -> None:
        self.home = home
        self.spoiled: list[QuarantinedRecord] = []
        self._mapping, self._now = mapping, now
        self._types: EventTypes = home_event_types(home, home_contract(home))
        self._sentiment = Sentiment()
        self._start = moment(mapping.at_start)
        own = {"anonymous_id", mapping.customer_id, mapping.type, mapping.channel, mapping.at, "properties"}
        self._named = own | ({mapping.event_id} if mapping.event_id else set())
        self._known = known_event_ids(home)
        self._counts = {"accepted": 0, "duplicates": 0, "undeclared": 0}

    @property
    def texts(self) -> set[str]:
        """Columns that stay as they are written, `007` among them: ids, types, channels, and what is a text by declaration."""
        m, texts = self._mapping, self._types.texts
        properties = {name: (name,) for name in texts} if m.properties is None else m.properties
        found = {column for name, columns in properties.items() if name in texts for column in columns}
        found -= {column for name, columns in properties.items() if name not in texts for column in columns}
        return (found | self._named) - {m.at}

    def take(self, rows: Sequence[Row | Malformed]) -> list[EventRecord]:
        """Those that are new."""
        new = []
        for row in rows:
            if isinstance(row, Malformed):
                self.spoiled.append(QuarantinedRecord(row.reason, self._now, row.text))
                continue
            try:
                record = self._record(row)
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                reason = f"Expected `{error.args[0]}`, got none" if isinstance(error, KeyError) else str(error)
                self.spoiled.append(QuarantinedRecord(reason, self._now, msgspec.json.encode(row, enc_hook=str).decode()))
                continue
            if record.event_id in self._known:
                self._counts["duplicates"] += 1
                continue
            self._known.add(record.event_id)
            new.append(record)
        self._counts["accepted"] += len(new)
        self._counts["undeclared"] += sum(not record.declared for record in new)
        return new

    def _record(self, row: Row) -> EventRecord:
        m = self._mapping
        kind, channel = str(_found(row, m.type)), str(_found(row, m.channel))
        kind = m.types.get(kind, kind)
        at = self._moment(_found(row, m.at))
        properties = self._properties(row)
        customer = _identifier(row, m.customer_id) or _identifier(row, "anonymous_id")
        if customer is None:
            raise KeyError(m.customer_id)
        problem = personal(customer) or misplaced(at, self._now) or self._types.problem(kind, channel, properties)
        if problem is not None:
            raise ValueError(problem)
        given = _identifier(row, m.event_id) if m.event_id else None
        name = given or _content_id((customer, kind, channel, at, properties))
        scored = self._types.with_sentiment(kind, properties, self._sentiment)
        return EventRecord(name, customer, kind, channel, at, self._now, scored, declared=kind in self._types)

    def _moment(self, value: Any) -> float:  # noqa: ANN401  # a file holds anything
        if isinstance(value, str):
            return round(moment(value) * 1e6) / 1e6
        if isinstance(value, dt.datetime):
            return round((value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp() * 1e6) / 1e6
        if isinstance(value, dt.date):
            return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC).timestamp()
        seconds = self._start + float(value) * self._mapping.at_unit
        if not abs(seconds) <= FARTHEST:
            raise ValueError(f"Expected seconds since 1970, got `{value}` - at `$.at`")
        return round(seconds * 1e6) / 1e6

    def _properties(self, row: Row) -> dict[str, float | str | bool]:
        m = self._mapping
        if m.properties is None:
            found = {key: value for key, value in row.items() if key not in self._named}
            nested = row.get("properties")
            found |= nested if isinstance(nested, Mapping) else {}
        else:
            found = {name: _first(row, paths) for name, paths in m.properties.items()}
        return {k: v if type(v) in PLAIN else _scalar(k, v) for k, v in found.items() if v is not None}

    def report(self, rows: int) -> IngestReport:
        counts = self._counts
        return IngestReport(rows, counts["accepted"], counts["duplicates"], len(self.spoiled), counts["undeclared"])


def _rows(path: Path, texts: Collection[str]) -> Iterator[Row | Malformed]:
    """The rows of a file; `texts`: columns of a CSV that are taken as they are written. Raises ImportInvalid."""
    name = path.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        yield from _lines(path)
    elif name.endswith((".parquet", ".pq")):
        try:
            for batch in pq.ParquetFile(path).iter_batches(AT_ONCE):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise ImportInvalid([f"{path.name}: Expected Parquet, got something else: {error}"]) from error
    else:
        for batch in read_table(path, texts).to_batches(AT_ONCE):
            yield from batch.to_pylist()


def _lines(path: Path) -> Iterator[Row | Malformed]:
    """JSON lines, each by itself. Raises ImportInvalid for a file without any object: it is something else."""
    decoder, first, has_objects = msgspec.json.Decoder(dict[str, Any]), "", False
    for number, line in _numbered(path):
        try:
            row = decoder.decode(line)
        except NO_OBJECT as error:
            reason = f"{path.name}: line {number}: Expected an event as a JSON object, got something else: {error}"
            if not has_objects and line.lstrip().startswith(b"["):  # one long list: its last line may be an object by itself
                raise ImportInvalid([f"{reason}; write each on a line of its own, without a list around them"]) from error
            first = first or reason
            yield Malformed(reason, line.decode(errors="backslashreplace").rstrip("\n")[:KEPT_CHARACTERS])
        else:
            has_objects = True
            yield row
    if first and not has_objects:
        raise ImportInvalid([first])


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that hold anything, counted from 1. Raises ImportInvalid."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except (OSError, EOFError, zlib.error) as error:
        raise ImportInvalid([f"{path.name}: Expected a readable file, got `{error}`"]) from error


def _found(row: Row, name: str) -> Any:  # noqa: ANN401  # a file holds anything
    """What a row has under a name, or the text that stands for itself. Raises KeyError."""
    value = row.get(name)
    if value is None:
        value = _maybe(row, name)
    if value is None:
        raise KeyError(name)
    return value


def _maybe(row: Row, name: str) -> Any:  # noqa: ANN401  # a file holds anything
    if name.startswith("="):
        return name[1:]
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _identifier(row: Row, name: str) -> str | None:
    """An id that a row has under a name; None without one. What a missing one has made a float is the whole number it was."""
    value = _maybe(row, name)
    if value is None or value == "" or value != value:  # noqa: PLR0124  # NaN is what differs from itself
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"Expected an id, a text or a whole number, got `{value}` - at `{name}`")
    if len(text := str(value)) > LONGEST_CUSTOMER:
        raise ValueError(f"Expected an id of at most {LONGEST_CUSTOMER} characters, got {len(text)} - at `{name}`")
    return text


def _first(row: Row, names: Sequence[str]) -> Any:  # noqa: ANN401  # a file holds anything
    return next((value for name in names if (value := _maybe(row, name)) is not None), None)


def _scalar(key: str, value: Any) -> float | str | bool:  # noqa: ANN401  # a file holds anything
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return float(value)
    raise ValueError(f"Expected a number, a text or a truth, got `{value}` - at `{key}`")


def _content_id(content: tuple[Any, ...]) -> str:
    return hashlib.blake2b(msgspec.json.encode(content, order="sorted"), digest_size=12).hexdigest()
