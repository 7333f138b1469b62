"""`nextbest log seal`: segments that grow no more become sorted Parquet in the lake, and a manifest says which.

The manifest is written last and commits: before it, readers read the segments; from it on, they read the files it names and skip
the segments it names. A seal that was interrupted leaves files that nobody reads, and the next one writes them again. The
segments stay where they are until somebody says `--remove`: the service looks decisions up in them.
"""

import base64
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import msgspec
import numpy as np
import pyarrow as pa

from service.decision.records import (
    ConsentRecord,
    DecisionRecord,
    ErasureRecord,
    EventRecord,
    IdentityRecord,
    OutcomeRecord,
    QuarantinedRecord,
    ShadowRecord,
    decode_lines,
)
from service.files import DISK, Files, is_written, locked
from training.lake import MOMENT, SEALED, by_day, parquet, table_of
from training.lake_store import Lake, open_lake

SCHEMA = 1  # of sealed files and their manifest
AT_ONCE = 128 * 2**20  # bytes of segments under one manifest: about 1 GB of memory
SUFFIX = ".log"
LOCK = "seal.lock"
RECORDS: dict[str, type[msgspec.Struct]] = {
    "decisions": DecisionRecord, "outcomes": OutcomeRecord, "events": EventRecord, "identities": IdentityRecord,
    "quarantine": QuarantinedRecord, "consents": ConsentRecord, "shadows": ShadowRecord, "erasures": ErasureRecord,
}  # fmt: skip
"""Kinds whose plain fields are columns, too. Any other kind is sealed without."""

COLUMN_TYPES: dict[Any, pa.DataType] = {str: pa.string(), str | None: pa.string(), float: pa.float64(), bool: pa.bool_()}
MICROS = 1e6

Progress = Callable[[int, int], None]


class SealedSegment(msgspec.Struct, frozen=True):
    """A segment under a manifest: all of its bytes. `damaged` lines and a torn tail are kept in the manifest's `spoiled` file."""

    name: str
    bytes: int
    crc32c: str
    records: int
    damaged: int
    torn: int


class SealedFile(msgspec.Struct, frozen=True):
    name: str
    rows: int
    bytes: int
    crc32c: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a seal made of which segments. `check` is the CRC32C of the manifest without it."""

    schema: int
    kind: str
    rows: int
    segments: tuple[SealedSegment, ...]
    files: tuple[SealedFile, ...]
    spoiled: str | None = None
    check: str = ""


class SealReport(NamedTuple):
    """What became of the segments: sealed ones, records in them, damaged lines, torn tails; those that still grow."""

    segments: int
    records: int
    damaged: int
    torn: int
    growing: int


class _Row(NamedTuple):
    micros: int
    segment: str
    offset: int
    record: bytes


class ManifestInvalid(ValueError):
    """A manifest that is not what was written; the message says which."""


def manifest_names(lake: Lake, kind: str) -> list[str]:
    return [name for name in lake.names(f"{kind}/manifests") if name.endswith(".json")]


def read_manifest(lake: Lake, name: str) -> Manifest:
    """Raises ManifestInvalid: what it names must not be guessed."""
    try:
        found = msgspec.json.decode(lake.get(name), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestInvalid(f"Expected a manifest, got something else: {error} - at `{lake.where}/{name}`") from error
    if _signed(found).check != found.check or found.schema != SCHEMA:
        raise ManifestInvalid(f"Expected a manifest of schema {SCHEMA} with its checksum, got another - at `{lake.where}/{name}`")
    return found


def read_manifests(lake: Lake, kind: str) -> list[Manifest]:
    """Oldest first. Raises ManifestInvalid."""
    return [read_manifest(lake, name) for name in manifest_names(lake, kind)]


def _signed(manifest: Manifest) -> Manifest:
    plain = msgspec.structs.replace(manifest, check="")
    return msgspec.structs.replace(plain, check=checksum(msgspec.json.encode(plain)))


def checksum(data: bytes) -> str:
    """CRC32C, 8 hexadecimal digits."""
    return f"{google_crc32c.value(data):08x}"


def log_segments(home: Path, kind: str) -> list[Path]:
    """Every segment of a kind that holds something, oldest first, sealed or not."""
    return sorted(filter(_holds, (home / "log" / kind).rglob(f"*{SUFFIX}")), key=lambda path: path.name)


def _holds(path: Path) -> bool:
    """Whether there is anything in it. Where there is not, it may be gone in a moment: the disk may refuse its first record."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def log_kinds(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "log").glob("*") if path.is_dir())


def seal(
    home: Path, before: float = float("inf"), files: Files = DISK, progress: Progress = lambda _done, _of: None
) -> SealReport:
    """Seal every segment that grows no more, and whose last record was written before a moment (seconds since 1970 UTC).

    One process at a time on this machine: a second one waits, since two lists of segments that differ would become two manifests
    that name the same records. Raises OSError, ManifestInvalid.
    """
    with locked(home / LOCK):
        return _seal_all(home, before, files, progress)


def _seal_all(home: Path, before: float, files: Files, progress: Progress) -> SealReport:
    lake, growing = open_lake(home, files), 0
    made: list[Manifest] = []
    ready: defaultdict[str, list[Path]] = defaultdict(list)
    for kind in log_kinds(home):
        for path in unsealed(home, kind, lake):
            found = path.stat()  # first: who has written something by now had locked the file before
            if is_written(path):
                growing += 1
            elif found.st_size and found.st_mtime < before:
                ready[kind].append(path)
    batches = [(kind, batch) for kind, paths in ready.items() for batch in _batches(paths)]
    for done, (kind, batch) in enumerate(batches):
        progress(done, len(batches))
        made.append(_seal(lake, kind, batch))
    segments = [segment for manifest in made for segment in manifest.segments]
    return SealReport(
        len(segments), sum(m.rows for m in made), sum(s.damaged for s in segments), sum(s.torn for s in segments), growing
    )


class Holders(NamedTuple):
    """What holds the records of a kind, each of them once: manifests, and segments that none of them names; oldest first."""

    manifests: list[Manifest]
    segments: list[Path]


def holders(home: Path, kind: str, lake: Lake) -> Holders:
    """As of one moment, whatever is sealed meanwhile. Raises ManifestInvalid."""
    paths = log_segments(home, kind)  # first: what is sealed from here on is named by a manifest that is read, or still listed
    manifests = read_manifests(lake, kind)
    named = {segment.name for manifest in manifests for segment in manifest.segments}
    return Holders(manifests, [path for path in paths if path.name not in named])


def unsealed(home: Path, kind: str, lake: Lake | None = None) -> list[Path]:
    """Segments that no manifest names, oldest first."""
    return holders(home, kind, lake or open_lake(home)).segments


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in paths:
        batch.append(path)
        size += path.stat().st_size
        if size >= AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _seal(lake: Lake, kind: str, paths: Sequence[Path]) -> Manifest:
    """Files first, the manifest last. The same segments get the same names, also after an interruption."""
    seal_name = f"{paths[0].stem.partition('-')[0]}-{_digest([path.name for path in paths])}"
    rows: list[_Row] = []
    spoiled: list[dict[str, Any]] = []
    segments = [_read(path, rows, spoiled) for path in paths]
    rows.sort(key=lambda row: row.micros)  # stable: what was written at one moment stays in order
    files = tuple(_write_days(lake, kind, seal_name, rows))
    kept = f"{kind}/spoiled/{seal_name}.jsonl" if spoiled else None
    if kept is not None:
        lake.put(kept, b"".join(msgspec.json.encode(one) + b"\n" for one in spoiled))
    manifest = _signed(Manifest(SCHEMA, kind, len(rows), tuple(segments), files, kept))
    lake.put(f"{kind}/manifests/{seal_name}.json", msgspec.json.encode(manifest))
    return manifest


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def _read(path: Path, rows: list[_Row], spoiled: list[dict[str, Any]]) -> SealedSegment:
    data = path.read_bytes()
    lines = list(decode_lines(data))
    ends = [line.offset for line in lines[1:]] + [len(data)]
    moment = round(path.stat().st_mtime * MICROS)
    records = 0
    for line, end in zip(lines, ends, strict=True):
        if line.payload is None or not _is_text(line.payload):
            kept = base64.b64encode(data[line.offset : end]).decode()
            spoiled.append({"segment": path.name, "offset": line.offset, "torn": line.torn, "base64": kept})
        else:
            moment = _written_at(line.payload, moment)
            rows.append(_Row(moment, path.name, line.offset, line.payload))
            records += 1
    torn = sum(line.torn for line in lines)
    return SealedSegment(path.name, len(data), checksum(data), records, len(lines) - records - torn, torn)


def _is_text(payload: bytes) -> bool:
    """Whether a column of texts can hold it. What the service writes is."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Moment(msgspec.Struct):
    received_at: float | None = None
    at: float | None = None


_moments = msgspec.json.Decoder(_Moment)


def _written_at(payload: bytes, otherwise: int) -> int:
    """When a record was written, in microseconds since 1970: what came late lies on the day that it came."""
    try:
        found = _moments.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return otherwise
    at = found.at if found.received_at is None else found.received_at
    return otherwise if at is None else round(at * MICROS)


def _write_days(lake: Lake, kind: str, seal_name: str, rows: Sequence[_Row]) -> Iterator[SealedFile]:
    if not rows:
        return
    for day, part in by_day(_table(kind, rows), "written_at"):
        name, data = f"{kind}/date={day}/{SEALED}{seal_name}.parquet", parquet(part)
        lake.put(name, data)
        yield SealedFile(name, part.num_rows, len(data), checksum(data))


def _table(kind: str, rows: Sequence[_Row]) -> pa.Table:
    """The record as it was written, when, and from where; and its plain fields beside it, for whoever asks with SQL."""
    columns = {
        "written_at": pa.array(np.array([row.micros for row in rows], np.int64)).cast(MOMENT),
        "segment": pa.array([row.segment for row in rows], pa.string()),
        "offset": pa.array([row.offset for row in rows], pa.int64()),
    }
    plain = plain_columns(kind)
    found = [_fields(row.record) for row in rows] if plain else []
    for name, type_ in plain.items():
        columns[name] = pa.array([one.get(name) for one in found], type_, from_pandas=False)
    columns["record"] = pa.array([row.record.decode() for row in rows], pa.string())
    return pa.table(columns)


def _fields(record: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(record, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def plain_columns(kind: str) -> dict[str, pa.DataType]:
    """Fields of a kind's records that hold one text, number or truth."""
    fields = msgspec.structs.fields(RECORDS[kind]) if kind in RECORDS else ()
    return {field.name: COLUMN_TYPES[field.type] for field in fields if field.type in COLUMN_TYPES}


def sealed_payloads(lake: Lake, name: str) -> Iterator[bytes]:
    """The records of a sealed file, as they were written, in order of time."""
    for record in table_of(lake.get(name), ["record"])["record"].to_pylist():
        yield record.encode()


def remove_sealed(home: Path, before: float, files: Files = DISK, progress: Progress = lambda _done, _of: None) -> int:
    """Remove segments that are in the lake, whole, and were last written to before a moment; how many.

    The lake is read and compared first. A segment that is not what was sealed stays.
    """
    lake = open_lake(home, files)
    manifests = [manifest for kind in log_kinds(home) for manifest in read_manifests(lake, kind)]
    removed = 0
    for done, manifest in enumerate(manifests):
        progress(done, len(manifests))
        paths = [(home / "log" / manifest.kind / segment.name, segment) for segment in manifest.segments]
        there = [(path, segment) for path, segment in paths if path.exists() and path.stat().st_mtime < before]
        if there and not file_problems(lake, manifest):
            for path, segment in there:
                removed += _remove(path, segment, files)
    return removed


def _remove(path: Path, segment: SealedSegment, files: Files) -> bool:
    if is_written(path) or checksum(path.read_bytes()) != segment.crc32c:
        return False
    files.unlink(path)
    if path.with_suffix(".ids").exists():
        files.unlink(path.with_suffix(".ids"))
    return True


def file_problems(lake: Lake, manifest: Manifest) -> list[tuple[str, str]]:
    """Files of a manifest that are not what was written, each with what is wrong."""
    found = []
    for file in manifest.files:
        try:
            data = lake.get(file.name)
        except FileNotFoundError:
            found.append((file.name, f"Expected a file of {file.rows} rows, found none"))
            continue
        if len(data) != file.bytes or checksum(data) != file.crc32c:
            found.append((file.name, f"Expected {file.bytes} bytes with CRC32C {file.crc32c}, got {len(data)}, {checksum(data)}"))
    return found
