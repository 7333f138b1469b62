"""Row 2: power fails at any moment, and the disk has kept of the unsynced what it liked."""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from service.decision.records import DecisionRecord, EventRecord, OutcomeRecord, Versions
from service.stores.segment_log import SegmentLog
from tests.acceptance.disks import EXTREMES, Disk, Keeps, RecordingFiles, Step, without
from tests.acceptance.row import Context, Measured, Row
from training.lake_store import FolderLake
from training.live_log import read_payloads
from training.sealing import manifest_names, remove_sealed, seal
from training.verifying import verify

CUTS = 2000
SEGMENT_BYTES = 2500  # five calls of three records
START = 1_790_000_000.0
IDS = {"decisions": "decision_id", "outcomes": "outcome_id", "events": "event_id"}
NEAREST = 4  # cuts that are tried after a sync that is left out
CHANCES = 6  # further tries per cut where one sync is left out


class State(NamedTuple):
    """A moment of a recorded run, and what is left of the unsynced."""

    cut: int
    keeps: Keeps
    seed: int


def record_run(folder: Path) -> list[Step]:
    """A server that writes and ends, one that goes on, a seal in between, one at the end, and segments removed."""
    root = folder / "run"
    root.mkdir()
    files = RecordingFiles(root)
    asyncio.run(_run(root / "home", files))
    return files.steps


async def _run(home: Path, files: RecordingFiles) -> None:
    moment = iter(range(10_000))
    first, second = (
        SegmentLog(home / "log", segment_bytes=SEGMENT_BYTES, files=files, clock=lambda: START + next(moment)) for _ in range(2)
    )
    await _write(first, files, "a", 8)
    await first.close()
    await _write(second, files, "b", 7)
    _seal(home, files)
    await _write(second, files, "c", 4)
    await second.close()
    _seal(home, files)
    remove_sealed(home, float("inf"), files)
    files.promise("removed")


async def _write(log: SegmentLog, files: RecordingFiles, name: str, calls: int) -> None:
    for call in range(calls):
        names = [f"{name}{call}-{n}" for n in range(3)]
        await log.append_decisions([log.entry(decision(one)) for one in names])
        for one in names:
            files.promise(f"decisions {one}")
        await log.append_outcomes([OutcomeRecord(one, one, "click", START, START) for one in names])
        for one in names:
            files.promise(f"outcomes {one}")
        await log.append_events([EventRecord(one, "c1", "viewed", "web", START, START) for one in names])
        for one in names:
            files.promise(f"events {one}")


def decision(name: str) -> DecisionRecord:
    return DecisionRecord(name, "c1", START, {"filler": "x" * 100}, {}, (), Versions(1, None, "x"), ())


def _seal(home: Path, files: RecordingFiles) -> None:
    """What a manifest was written for is promised as soon as the next one is begun."""

    def tell(_done: int = 0, _of: int = 0) -> None:
        lake = FolderLake(home / "lake")
        for kind in IDS:
            for name in manifest_names(lake, kind):
                files.promise(f"sealed {name}")

    seal(home, files=files, progress=tell)
    tell()


def states(steps: Sequence[Step], count: int, seed: int) -> Iterator[State]:
    """Every moment with every extreme, then moments and sectors by chance."""
    chance = random.Random(seed)
    for number in range(count):
        if number < len(steps) * len(EXTREMES) and count >= len(steps) * len(EXTREMES):
            yield State(number // len(EXTREMES) + 1, EXTREMES[number % len(EXTREMES)], number)
        else:
            keeps = chance.choice([*EXTREMES, *[Keeps("some", "some")] * 5])
            yield State(chance.randint(1, len(steps)), keeps, number)


def problems_after(steps: Sequence[Step], state: State, folder: Path) -> list[str]:
    """What is wrong with what a power loss leaves: promises that do not hold, and files that are there by half."""
    disk = Disk()
    for step in steps[: state.cut]:
        disk.play(step)
    return problems_on(disk, state, folder)


def problems_on(disk: Disk, state: State, folder: Path) -> list[str]:
    left = folder / "left"
    disk.lose_power(state.keeps, random.Random(state.seed), left)
    try:
        return _problems(left / "home", disk.promised)
    finally:
        shutil.rmtree(left)


def _problems(home: Path, promised: Sequence[str]) -> list[str]:
    found: list[str] = []
    try:
        for kind, field in IDS.items():
            counts = Counter(msgspec.json.decode(payload)[field] for payload in read_payloads(home, kind))
            told = [what.partition(" ")[2] for what in promised if what.startswith(kind)]
            found += [f"{kind} {name}: {counts[name]} times" for name in told if counts[name] != 1]
            found += [f"{kind} {name}: {count} times" for name, count in counts.items() if count > 1]
    except (ValueError, OSError) as error:
        found.append(str(error))
    sealed = [what.partition(" ")[2] for what in promised if what.startswith("sealed")]
    found += [f"{name} is gone" for name in sealed if not (home / "lake" / name).exists()]
    segments = (finding for finding in verify(home).findings if not finding.file.endswith(".log"))
    return found + [f"{finding.file}: {finding.reason}" for finding in segments]


def needed_syncs(steps: Sequence[Step]) -> list[int]:
    """Syncs that made something certain before something was promised, or before the same was synced again."""
    disk = Disk()
    certain = [number for number, step in enumerate(steps) if disk.play(step)]
    return [number for number in certain if not _repeated(steps, number)]


def _repeated(steps: Sequence[Step], sync: int) -> bool:
    """Whether the same is synced again before anything is promised."""
    same = (steps[sync].what, steps[sync].path, steps[sync].inode)
    for step in steps[sync + 1 :]:
        if step.what == "promise":
            return False
        if (step.what, step.path, step.inode) == same:
            return True
    return True  # nothing is promised any more


def is_missed(steps: Sequence[Step], sync: int, folder: Path) -> bool:
    """Whether some power loss shows that a sync was left out: at the promises and renames that follow, and at the end."""
    rest, disk = without(steps, sync), Disk()
    telling = [n for n, step in enumerate(rest) if n >= sync and step.what in ("promise", "rename")]
    tried = {*telling[:NEAREST], *telling[-1:]}
    for number, step in enumerate(rest):
        disk.play(step)
        if number not in tried:
            continue
        tries = [*((keeps, 0) for keeps in EXTREMES), *((Keeps("some", "some"), seed) for seed in range(CHANCES))]
        if any(problems_on(disk, State(number, keeps, seed), folder) for keeps, seed in tries):
            return True
    return False


def measure(context: Context) -> Measured:
    folder = context.scratch / "power"
    folder.mkdir()
    steps = record_run(folder)
    wrong = [state for state in states(steps, CUTS, context.seed) if problems_after(steps, state, folder)]
    syncs = needed_syncs(steps)
    unnoticed = [sync for sync in syncs if not is_missed(steps, sync, folder)]
    acknowledged = sum(step.what == "promise" and step.path.split()[0] in IDS for step in steps)
    figure = (
        f"{CUTS:,} power losses in a run of {len(steps)} steps and {acknowledged} acknowledged records: {len(wrong)} with a "
        f"loss, a double or a half-visible file; each of {len(syncs)} syncs left out: {len(syncs) - len(unnoticed)} noticed"
    )
    return Measured(figure, not wrong and not unnoticed and bool(syncs))


ROW = Row(
    2,
    "power loss: torn, dropped and reordered data and names",
    f">= {CUTS:,} cut points, none with a loss; any sync left out is noticed",
    measure,
)
