"""`nextbest whatif`: what a draft catalog, or another bundle, would have made of the logged decisions."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from features.homes import home_contract
from service.bundles.assembling import Choice, assemble
from service.bundles.loading import load_bundle
from service.catalog.validate import load_catalog
from service.decision.engine import Engine
from service.decision.records import OutcomeRecord
from service.errors import NotReady
from service.registry import Registry
from training import off_policy
from training.judging import Gain
from training.left_out import LeftOut, left_out
from training.live_log import read_log, sources
from training.spreading import new_pool
from training.tallies import Hashes, Item, Part, Tally, hashes_of, parts_of, tally_part, told_again

PARTS_PER_PROCESS = 4  # so that none is left working alone for long
SHORTEST_PART = 2_000_000  # bytes; about 1,000 decisions: less is not worth another process
GONE = "gone"  # an action or a placement that the draft does not have

Progress = Callable[[int, int], None]


class Draft(msgspec.Struct, frozen=True):
    """What is tried: a catalog document, and the bundle that serves it."""

    document: dict[str, Any]
    bundle: str | None


class Compared(msgspec.Struct, frozen=True):
    """Shares by name, as logged and as the draft would have it."""

    logged: dict[str, float]
    drafted: dict[str, float]


class WhatIfReport(msgspec.Struct, frozen=True):
    """Shares are of items; `nothing` is the share of a placement's answers that show its fallback.

    `value_logged` and `value_drafted`: reward a first item, with 95 % intervals over customers; None where no outcome is known.
    `held_out`: decisions for the universal holdout, which are none of `decisions`.
    """

    decisions: int
    unknown_placements: int
    actions: Compared
    groups: Compared
    channels: Compared
    nothing: Compared
    dropped: dict[str, int]
    objective: str
    rows: int
    value_logged: Gain | None
    value_drafted: Gain | None
    effective_rows: float
    doubts: tuple[str, ...]
    held_out: int = 0


def what_if(
    home: Path, draft: Draft, objective: str, processes: int | None = None, progress: Progress = lambda _done, _of: None
) -> WhatIfReport:
    """Run the logged decisions against the draft, on all cores. Raises NotReady where nothing was logged.

    The value is importance-weighted (self-normalised, Swaminathan and Joachims 2015): how the logged choices that the draft
    might have made, too, were answered.
    """
    workers = processes or os.cpu_count() or 1
    logged = sources(home, "decisions")
    size = sum(source.size for source in logged)
    parts = parts_of(logged, max(SHORTEST_PART, size // (workers * PARTS_PER_PROCESS)))
    if not parts:
        raise NotReady(f"Expected logged decisions under `{home}`, found none")
    total = Tally()
    for done, tally in enumerate(_tallies(home, draft, parts, workers), 1):
        total.add(tally)
        progress(done, len(parts))
    return _report(build(home, draft), total, _rewards(home, objective, total), objective)


def _tallies(home: Path, draft: Draft, parts: Sequence[Part], workers: int) -> Iterator[Tally]:
    out = left_out(home)
    if workers == 1 or len(parts) == 1:
        engine = build(home, draft)
        again = told_again(map(hashes_of, parts))
        yield from (tally_part(engine, part, out, places) for part, places in zip(parts, again, strict=True))
        return
    told = (str(home), msgspec.json.encode(draft), out)
    with new_pool(workers, _start, told) as pool:
        again = told_again(pool.map(hashes_of, parts))
        for done in as_completed([pool.submit(_work, part, places) for part, places in zip(parts, again, strict=True)]):
            yield done.result()


_given: list[tuple[Engine, LeftOut]] = []  # the engine of this worker process, and who does not count


def _start(home: str, draft: bytes, out: LeftOut) -> None:
    _given.append((build(Path(home), msgspec.json.decode(draft, type=Draft)), out))


def _work(part: Part, again: frozenset[int]) -> Tally:
    engine, out = _given[0]
    return tally_part(engine, part, out, again)


def build(home: Path, draft: Draft) -> Engine:
    """The engine of the draft, experiments aside. Raises CatalogInvalid and BundleRefused."""
    contract, registry = home_contract(home), Registry(home / "registry")
    catalog = msgspec.structs.replace(load_catalog(draft.document, contract), experiments=(), holdout=None, not_personalised=None)
    others = registry.current().others
    names = [name for name in (draft.bundle, *others.values()) if name]
    loaded = {name: load_bundle(registry.bundle_folder(name), contract) for name in names}
    return assemble(catalog, contract, Choice(0, draft.bundle, others), loaded.get)


class _Rewards(NamedTuple):
    """For every logged first item: whether it was seen, and what came of it. (choices,) each."""

    seen: npt.NDArray[np.bool_]
    reward: npt.NDArray[np.float64]


def _rewards(home: Path, objective: str, total: Tally) -> _Rewards:
    """Seen means that an outcome of any kind came back. One that names no placement or action speaks of all."""
    seen: set[tuple[str | None, ...]] = set()
    rewarded: set[tuple[str | None, ...]] = set()
    for outcome in read_log(home, "outcomes", OutcomeRecord):
        key = (outcome.decision_id, outcome.placement, outcome.action_id)
        seen.add(key)
        if outcome.type == objective:
            rewarded.add(key)

    def among(keys: set[tuple[str | None, ...]]) -> list[bool]:
        return [
            (d, p, a) in keys or (d, p, None) in keys or (d, None, a) in keys or (d, None, None) in keys
            for d, p, a in total.choices
        ]

    return _Rewards(np.array(among(seen), np.bool_), np.array(among(rewarded), np.float64))


def _report(engine: Engine, total: Tally, rewards: _Rewards, objective: str) -> WhatIfReport:
    groups = {action.id: action.group for action in engine.actions}
    channels = {name: placement.channel for name, placement in engine.catalog.placements.items()}
    seen = rewards.seen
    weights, customers, nothing = np.array(total.weights)[seen], np.array(total.customers)[seen], np.zeros(int(seen.sum()))
    rows = off_policy.Rows(weights, rewards.reward[seen], nothing, nothing)
    return WhatIfReport(
        decisions=total.decisions, unknown_placements=total.unknown_placements,
        actions=_compared(total, lambda item: item[1]),
        groups=_compared(total, lambda item: groups.get(item[1], GONE)),
        channels=_compared(total, lambda item: channels.get(item[0], GONE)),
        nothing=Compared(_per_ask(total.logged_nothing, total), _per_ask(total.drafted_nothing, total)),
        dropped=dict(total.dropped.most_common()), objective=objective, rows=len(weights),
        value_logged=value_of(rows.reward, customers),
        value_drafted=value_of(off_policy.self_normalized(rows), customers) if len(weights) else None,
        effective_rows=round(off_policy.effective_sample_size(weights), 1), doubts=tuple(off_policy.doubts(weights)),
        held_out=total.held_out,
    )  # fmt: skip


def _compared(total: Tally, name: Callable[[Item], str]) -> Compared:
    return Compared(_shares(total.logged, name), _shares(total.drafted, name))


def _shares(counts: Mapping[Item, int], name: Callable[[Item], str]) -> dict[str, float]:
    together: Counter[str] = Counter()
    for item, count in counts.items():
        together[name(item)] += count
    size = sum(together.values()) or 1
    return {key: round(count / size, 6) for key, count in together.most_common()}


def _per_ask(nothing: Mapping[str, int], total: Tally) -> dict[str, float]:
    return {placement: round(nothing.get(placement, 0) / asked, 6) for placement, asked in total.asked.items()}


def value_of(contributions: npt.NDArray[np.float64], customers: Hashes) -> Gain | None:
    """Their mean, with a 95 % interval that allows for rows of one customer to go together; None where there are none.

    Both (rows,); clustered as in `training.off_policy.mean_interval`.
    """
    if not len(contributions):
        return None
    found = off_policy.mean_interval(contributions, np.unique(customers, return_inverse=True)[1])
    return Gain(round(found.value, 6), (round(found.low, 6), round(found.high, 6)))
