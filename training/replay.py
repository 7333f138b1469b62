"""`nextbest replay`: logged decisions made again from record, catalog revision and bundle, and compared byte for byte."""

from collections.abc import Callable, Iterable, Iterator
from math import inf
from pathlib import Path

import msgspec

from features.homes import home_contract
from service.bundles.archive import EngineArchive
from service.decision.again import encode_record, request_of
from service.decision.decide import decide
from service.decision.engine import Engine
from service.errors import RegistryError
from service.registry import Registry
from training.decision_log import Logged, in_batches, read_decisions

Progress = Callable[[int, int], None]

MADE_AT_ONCE = 256
SHOWN = 20  # mismatches; the rest are counted


class Mismatch(msgspec.Struct, frozen=True):
    """A decision that would be made differently, and the first field in which it differs."""

    decision_id: str
    field: str
    logged: str
    replayed: str


class ReplayReport(msgspec.Struct, frozen=True):
    """What a replay found. `impossible`: the versions that made them are gone, or the features were declared differently."""

    decisions: int
    identical: int
    impossible: int
    mismatches: tuple[Mismatch, ...]
    reasons: tuple[str, ...]

    @property
    def different(self) -> int:
        return self.decisions - self.identical - self.impossible

    @property
    def holds(self) -> bool:
        return self.identical == self.decisions and self.decisions > 0


def replay(home: Path, start: float = -inf, end: float = inf, progress: Progress = lambda _done, _of: None) -> ReplayReport:
    """Make every decision of a span again. Reads nothing but the log and the registry."""
    archive = EngineArchive(Registry(home / "registry"), home_contract(home))
    decisions = identical = impossible = 0
    mismatches: list[Mismatch] = []
    reasons: dict[str, None] = {}
    for engine, batch in _batches(archive, read_decisions(home, start, end), reasons):
        decisions += len(batch)
        if engine is None:
            impossible += len(batch)
            continue
        for logged, again in zip(batch, decide(engine, [request_of(one.record) for one in batch]), strict=True):
            replayed = encode_record(again)
            if replayed == logged.payload:
                identical += 1
            elif len(mismatches) < SHOWN:
                mismatches.append(_mismatch(logged.payload, replayed))
        progress(decisions, 0)
    return ReplayReport(decisions, identical, impossible, tuple(mismatches), tuple(reasons))


def _batches(
    archive: EngineArchive, logged: Iterable[Logged], reasons: dict[str, None]
) -> Iterator[tuple[Engine | None, list[Logged]]]:
    """Decisions that one engine made, together; in the order of the log otherwise."""
    for chunk in in_batches(logged, MADE_AT_ONCE):
        together: dict[int, tuple[Engine | None, list[Logged]]] = {}
        for one in chunk:
            engine = _engine(archive, one, reasons)
            together.setdefault(id(engine), (engine, []))[1].append(one)
        yield from together.values()


def _engine(archive: EngineArchive, one: Logged, reasons: dict[str, None]) -> Engine | None:
    try:
        return archive.engine_of(one.record)
    except RegistryError as error:
        reasons[str(error).partition(" - at ")[0]] = None
        return None


def _mismatch(logged: bytes, replayed: bytes) -> Mismatch:
    before, after = msgspec.json.decode(logged), msgspec.json.decode(replayed)
    field = next((key for key in {**before, **after} if before.get(key) != after.get(key)), "order of fields")
    return Mismatch(before["decision_id"], field, _short(before.get(field)), _short(after.get(field)))


def _short(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else f"{text[:197]}..."  # noqa: PLR2004  # what a terminal shows
