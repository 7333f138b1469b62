"""`nextbest log verify`: every line of every segment, and every file of the lake against its manifest. Changes nothing."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from service.decision.records import Line, decode_lines
from service.files import is_written
from service.stores.id_index import ids_hold, index_path, read_index
from training.lake import SEALED
from training.lake_store import Lake, open_lake
from training.sealing import (
    RECORDS,
    Manifest,
    ManifestInvalid,
    checksum,
    file_problems,
    log_kinds,
    log_segments,
    manifest_names,
    read_manifest,
)

LAKE_KINDS = ("decisions", "outcomes", "events", "identities", "consents", "alerts", "quarantine", "shadows", "erasures")

Progress = Callable[[int, int], None]


class Finding(NamedTuple):
    """Damage: which file, at which byte (0 where the whole file is meant), and what is wrong."""

    file: str
    offset: int
    reason: str


class VerifyReport(NamedTuple):
    """What there is. A torn tail is what a writer that was killed left behind: counted, and no damage.

    `unfinished`: files that an interrupted seal left, and nobody reads.
    """

    segments: int
    records: int
    torn: int
    sealed_files: int
    sealed_rows: int
    unfinished: int
    findings: tuple[Finding, ...]


class _Segment(NamedTuple):
    records: int
    torn: int
    findings: list[Finding]


def verify(home: Path, progress: Progress = lambda _done, _of: None) -> VerifyReport:
    """Read everything. Never raises for what it finds."""
    lake = open_lake(home)
    kinds = sorted({*log_kinds(home), *LAKE_KINDS})
    manifests, findings = _manifests(lake, kinds)
    sealed = {segment.name: segment for _, manifest in manifests for segment in manifest.segments}
    segments = [(kind, path) for kind in kinds for path in log_segments(home, kind)]
    size = len(segments) + len(manifests)
    checked = []
    for done, (kind, path) in enumerate(segments):
        progress(done, size)
        one = _segment(path, RECORDS.get(kind))
        checked.append(one)
        findings += one.findings
        if path.name in sealed and checksum(path.read_bytes()) != sealed[path.name].crc32c:
            findings.append(
                Finding(str(path), 0, f"Expected what was sealed (CRC32C {sealed[path.name].crc32c}), got other bytes")
            )
    for done, (name, manifest) in enumerate(manifests, len(segments)):
        progress(done, size)
        findings += [Finding(f"{lake.where}/{file}", 0, reason) for file, reason in file_problems(lake, manifest)]
        findings += _sums(f"{lake.where}/{name}", manifest)
    files = [file for _, manifest in manifests for file in manifest.files]
    left = {name for kind in kinds for name in lake.names(kind) if name.rpartition("/")[2].startswith(SEALED)}
    return VerifyReport(
        len(segments), sum(one.records for one in checked), sum(one.torn for one in checked), len(files),
        sum(file.rows for file in files), len(left - {file.name for file in files}), tuple(findings),
    )  # fmt: skip


def _manifests(lake: Lake, kinds: list[str]) -> tuple[list[tuple[str, Manifest]], list[Finding]]:
    found, findings = [], []
    for name in (name for kind in kinds for name in manifest_names(lake, kind)):
        try:
            found.append((name, read_manifest(lake, name)))
        except ManifestInvalid as error:
            findings.append(Finding(f"{lake.where}/{name}", 0, str(error)))
    return found, findings


def _sums(where: str, manifest: Manifest) -> Iterator[Finding]:
    """A manifest that does not add up."""
    rows, records = sum(file.rows for file in manifest.files), sum(segment.records for segment in manifest.segments)
    if not rows == records == manifest.rows:
        yield Finding(where, 0, f"Expected {manifest.rows} rows, got {rows} in files and {records} in segments")


def _segment(path: Path, kind: type[msgspec.Struct] | None) -> _Segment:
    grows = is_written(path)
    data = path.read_bytes()
    lines = list(decode_lines(data))
    if grows and lines and lines[-1].torn:
        lines.pop()  # it is being written
    damaged = [line for line in lines if line.payload is None and not line.torn]
    findings = [Finding(str(path), line.offset, _reason(data, line.offset)) for line in damaged]
    findings += [] if kind is None else _strangers(path, lines, kind)
    torn = sum(line.torn for line in lines)
    findings += [] if grows else _index_findings(path, data, torn)
    return _Segment(sum(line.payload is not None for line in lines), torn, findings)


def _strangers(path: Path, lines: Iterable[Line], kind: type[msgspec.Struct]) -> Iterator[Finding]:
    """Whole lines that are no records of a kind, and that every reader passes over."""
    decoder = msgspec.json.Decoder(kind)
    for line in lines:
        try:
            if line.payload is not None:
                decoder.decode(line.payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            yield Finding(str(path), line.offset, f"Expected a record, got what readers pass over: {error}")


def _reason(data: bytes, offset: int) -> str:
    end = data.find(b"\n", offset)
    line = data[offset : len(data) if end < 0 else end]
    return f"Expected `<CRC32C> <length> <JSON>` that agree, got {len(line)} bytes that begin with {line[:24]!r}"


def _index_findings(path: Path, data: bytes, torn: int) -> Iterator[Finding]:
    """Whether a segment is still what its index says: a cut at the end of a line shows nowhere else."""
    beside = index_path(path)
    if not beside.exists():
        return
    found = read_index(path)
    if found is None:
        yield Finding(str(beside), 0, "Expected an index, got something else: remove it, and the next start makes it again")
        return
    index, _ = found
    if not ids_hold(path):
        yield Finding(str(beside), 0, "Expected ids that agree with their checksum: remove it, and the next start makes it again")
    if index.bytes != len(data):
        yield Finding(str(path), min(index.bytes, len(data)), f"Expected {index.bytes} bytes, got {len(data)}")
    elif checksum(data) != f"{index.checksum:08x}":
        yield Finding(str(path), 0, f"Expected CRC32C {index.checksum:08x} of the whole, got {checksum(data)}, {torn} torn")
