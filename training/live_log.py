"""What the service writes down, read as whole records: what was sealed, then the segments that were not, each record once."""

import datetime as dt
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import pyarrow.compute as pc

from service.decision import records
from service.decision.records import DecisionRecord, decode_lines, encode_line, record_in
from service.files import DISK, put_file
from training.lake import table_of
from training.lake_store import Lake, open_lake
from training.sealing import holders, sealed_payloads, unsealed

Record = TypeVar("Record", bound=msgspec.Struct)
_decisions = msgspec.json.Decoder(DecisionRecord)


def _untold(_spoiled: int) -> None:
    """`nextbest log verify` tells."""


class Source(NamedTuple):
    """A sealed file, by its name in a lake; or, without one, a segment, by its path.

    `size` in bytes; `spoiled`: lines that were damaged or torn when they were sealed, and all those of a file that is gone, of
    which there is nothing else (`size` 0): who no longer needs a day may delete it.
    """

    home: Path
    name: str
    size: int
    lake: Lake | None
    spoiled: int = 0


def sources(home: Path, kind: str, lake: Lake | None = None) -> list[Source]:
    """All of a kind (`decisions`, `outcomes`, ...), oldest first. Raises ManifestInvalid."""
    found, lake = [], lake or open_lake(home)
    held = holders(home, kind, lake)
    there = frozenset(lake.names(kind)) if held.manifests else frozenset[str]()
    for manifest in held.manifests:
        spoiled = sum(segment.damaged + segment.torn for segment in manifest.segments)
        for file in manifest.files:
            is_there = file.name in there
            found.append(Source(home, file.name, file.bytes * is_there, lake, spoiled + file.rows * (not is_there)))
            spoiled = 0
    return found + [Source(home, str(path), path.stat().st_size, None) for path in held.segments]


def sources_since(home: Path, kind: str, since: float) -> list[Source]:
    """Those that may hold what was written after a moment, in seconds since 1970 UTC: by day, or by when a segment grew last."""
    day = dt.datetime.fromtimestamp(since, dt.UTC).date().isoformat()
    return [one for one in sources(home, kind) if _is_recent(one, since, day)]


def _is_recent(source: Source, since: float, day: str) -> bool:
    if source.lake is None:
        return Path(source.name).stat().st_mtime >= since
    return source.name.partition("/date=")[2][: len(day)] >= day


def segments(home: Path, kind: str) -> list[Path]:
    """The files of a kind that were not sealed, oldest first."""
    return unsealed(home, kind)


def payloads(source: Source, tell: Callable[[int], None] = _untold) -> Iterator[bytes]:
    """The lines of one source. `tell` hears, on the way, how many are damaged or torn."""
    if source.lake is not None:
        tell(source.spoiled)
        yield from sealed_payloads(source.lake, source.name) if source.size else ()
        return
    for line in decode_lines(Path(source.name).read_bytes()):
        if line.payload is None:
            tell(1)
        else:
            yield line.payload


def records_in(
    source: Source, decoder: msgspec.json.Decoder[Record], tell: Callable[[int], None] = _untold
) -> Iterator[tuple[bytes, Record]]:
    """The readable records of one source, each as it was written and what it says. `tell` hears how many lines are none."""
    for payload in payloads(source, tell):
        record = record_in(payload, decoder)
        if record is None:
            tell(1)
        else:
            yield payload, record


def read_payloads(home: Path, kind: str) -> Iterator[bytes]:
    """Every line of a kind, as it was written."""
    return (payload for source in sources(home, kind) for payload in payloads(source))


def read_log(home: Path, kind: str, record: type[Record]) -> Iterator[Record]:
    """Every readable record of a kind, or as much of each as `record` declares."""
    decoder = msgspec.json.Decoder(record)
    return (one for source in sources(home, kind) for _, one in records_in(source, decoder))


def find_in(source: Source, decision_id: str) -> DecisionRecord | None:
    """The decision of this id in one source."""
    if source.lake is None:
        return records.find_decision(Path(source.name).read_bytes(), decision_id)
    if not source.size:
        return None
    table = table_of(source.lake.get(source.name), ["decision_id", "record"])
    found = table.filter(pc.equal(table["decision_id"], decision_id))["record"].to_pylist()
    return record_in(found[0].encode(), _decisions) if found else None


def write_segment(home: Path, kind: str, writer: str, written: Sequence[msgspec.Struct], now: float) -> None:
    """Add records in a segment of their own, on disk when this returns. `now`: seconds since 1970 UTC; `writer`: in its name.

    So is chance: two commands of one millisecond would be one file.
    """
    lines = b"".join(encode_line(msgspec.json.encode(one)) for one in written)
    put_file(DISK, home / "log" / kind / f"{int(now * 1000):013d}-{writer}-{secrets.token_hex(6)}-1.log", lines)
