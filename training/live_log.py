"""What the service writes down, read as whole records: every readable line, oldest segment first."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from service.decision.records import decode_lines, encode_line
from service.registry import write_atomically

Record = TypeVar("Record", bound=msgspec.Struct)


def segments(home: Path, kind: str) -> list[Path]:
    """The files of `decisions`, `outcomes`, `events`, `identities`, `alerts` or `quarantine`, oldest first."""
    return sorted((home / "log" / kind).rglob("*.log"), key=lambda path: path.name)


def payloads(path: Path) -> Iterator[bytes]:
    """The readable lines of one file."""
    return (line.payload for line in decode_lines(path.read_bytes()) if line.payload is not None)


def read_log(home: Path, kind: str, record: type[Record]) -> Iterator[Record]:
    """Every readable record of a kind, or as much of each as `record` declares."""
    decoder = msgspec.json.Decoder(record)
    return (decoder.decode(payload) for path in segments(home, kind) for payload in payloads(path))


def write_segment(home: Path, kind: str, writer: str, written: Sequence[msgspec.Struct], now: float) -> None:
    """Add records in a segment of their own, on disk when this returns. `now`: seconds since 1970 UTC; `writer`: in its name."""
    folder = home / "log" / kind
    folder.mkdir(parents=True, exist_ok=True)
    lines = b"".join(encode_line(msgspec.json.encode(one)) for one in written)
    write_atomically(folder / f"{int(now * 1000):013d}-{writer}-1.log", lines)
