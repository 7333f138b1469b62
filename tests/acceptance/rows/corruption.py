"""Row 3: bits flip and files are cut, in segments, in their indexes and in the lake."""

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from service.decision.records import EventRecord, decode_lines
from service.files import DISK
from service.stores.segment_log import SegmentLog
from tests.acceptance.row import Context, Measured, Row
from training.sealing import seal
from training.verifying import verify

FLIPS, CUTS = 1000, 200
SEGMENTS, RECORDS = 4, 60  # records in each segment
IN_SEGMENTS = 0.7  # of the damage; the rest is in the lake and beside the segments
AT = 1_790_000_000.0

Detect = Callable[[Path], bool]  # whether a home is known to be damaged


class Damage(NamedTuple):
    """A file, and what it holds afterwards; which records are hit, by their place in it."""

    path: Path
    data: bytes
    hit: range


class Outcome(NamedTuple):
    noticed: bool
    others_readable: bool


def make_home(home: Path) -> list[Path]:
    """Segments that ended in good order, half of them sealed; every file that can be damaged."""
    asyncio.run(_write(home, range(SEGMENTS // 2)))
    seal(home)
    asyncio.run(_write(home, range(SEGMENTS // 2, SEGMENTS)))
    return sorted(path for path in home.rglob("*") if path.is_file() and path.stat().st_size)  # a lock holds nothing


async def _write(home: Path, segments: range) -> None:
    for segment in segments:
        log = SegmentLog(home / "log", files=DISK, clock=lambda at=AT + segment: at)
        for call in range(RECORDS // 3):
            names = [f"e{segment}-{call}-{n}" for n in range(3)]
            properties = {"note": "Jjk*z " * random.Random(call).randint(1, 5)}  # some of it one bit away from a newline
            await log.append_events([EventRecord(name, "c1", "viewed", "web", AT, AT, properties) for name in names])
        await log.close()


def flips(files: list[Path], count: int, chance: random.Random) -> Iterator[Damage]:
    """One bit each; of a segment, often one that frames records."""
    for _ in range(count):
        path = _pick(files, chance)
        data = bytearray(path.read_bytes())
        frames = [n for n, byte in enumerate(data) if byte == ord("\n")] if path.suffix == ".log" else []
        position = chance.choice(frames) if frames and chance.random() < 0.2 else chance.randrange(len(data))
        data[position] ^= 1 << chance.randrange(8)
        line = path.read_bytes()[:position].count(b"\n")
        yield Damage(path, bytes(data), range(line, line + 1))


def cuts(files: list[Path], count: int, chance: random.Random) -> Iterator[Damage]:
    """Shorter than it was; a third of those of segments at the end of a line."""
    for _ in range(count):
        path = _pick(files, chance)
        data = path.read_bytes()
        frames = [n + 1 for n, byte in enumerate(data[:-1]) if byte == ord("\n")] if path.suffix == ".log" else []
        length = chance.choice(frames) if frames and chance.random() < 0.3 else chance.randrange(len(data))
        yield Damage(path, data[:length], range(data[:length].count(b"\n"), data.count(b"\n")))


def _pick(files: list[Path], chance: random.Random) -> Path:
    logs = [path for path in files if path.suffix == ".log"]
    others = [path for path in files if path.suffix != ".log"]
    return chance.choice(logs if chance.random() < IN_SEGMENTS else others)


def is_noticed(home: Path) -> bool:
    """By `nextbest log verify`."""
    found = verify(home)
    return bool(found.findings or found.torn)


def without_checksums(home: Path) -> bool:
    """The same with the protection taken away: lines that look like records are believed."""
    segments = list(home.rglob("*.log"))
    lines = [line for path in segments for line in path.read_bytes().splitlines()]
    return len(lines) != SEGMENTS * RECORDS or any(not _looks_right(line) for line in lines)


def _looks_right(line: bytes) -> bool:
    try:
        msgspec.json.decode(line.split(b" ", 2)[2], type=EventRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
        return False
    return True


def tried(home: Path, damage: Damage, detect: Detect) -> Outcome:
    """Do the damage, look, and put things right again."""
    before = damage.path.read_bytes()
    damage.path.write_bytes(damage.data)
    try:
        return Outcome(detect(home), damage.path.suffix != ".log" or _others(before, damage) <= _readable(damage.data))
    finally:
        damage.path.write_bytes(before)


def _readable(data: bytes) -> set[bytes]:
    return {line.payload for line in decode_lines(data) if line.payload is not None}


def _others(before: bytes, damage: Damage) -> set[bytes]:
    payloads = [line.payload for line in decode_lines(before) if line.payload is not None]
    return {payload for number, payload in enumerate(payloads) if number not in damage.hit}


def measure(context: Context) -> Measured:
    home, chance = context.scratch / "corrupted", random.Random(context.seed)
    files = make_home(home)
    damages = [*flips(files, FLIPS, chance), *cuts(files, CUTS, chance)]
    outcomes = [tried(home, damage, is_noticed) for damage in damages]
    missed = sum(not tried(home, damage, without_checksums).noticed for damage in damages)
    noticed = [sum(o.noticed for o in some) for some in (outcomes[:FLIPS], outcomes[FLIPS:])]
    unreadable = sum(not outcome.others_readable for outcome in outcomes)
    figure = (
        f"{noticed[0]:,} of {FLIPS:,} flips and {noticed[1]} of {CUTS} cuts noticed; {unreadable} cost another record; without "
        f"checksums {missed} would have passed; sound before and after: {not is_noticed(home)}"
    )
    holds = noticed == [FLIPS, CUTS] and not unreadable and missed > 0 and not is_noticed(home)
    return Measured(figure, holds)


ROW = Row(
    3,
    "corruption: bits flip, files are cut",
    f"{FLIPS:,} flips and {CUTS} cuts all noticed; every other record readable",
    measure,
)
