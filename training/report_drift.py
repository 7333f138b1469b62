"""`nextbest drift`: whether rows since the champion's training still look like those that it learned from.

Inputs, predictions, what comes of each action, and which actions are shown: each against its own chance.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import norm

from features.homes import home_contract
from service.bundles.loading import read_manifest
from service.bundles.manifest import Manifest
from service.decision.engine import Engine
from service.errors import NotReady
from service.registry import Registry
from training.drift import ColumnDrift, DriftReport, drift
from training.evaluate import current_catalog, engine_of
from training.examples import Examples, Objective, load_examples
from training.learning_rules import read_rules
from training.maturity import corrected
from training.off_policy import NORMAL_95, Interval, mean_interval
from training.policies import UNKNOWN, chunks
from training.split import seen

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]

TRAIN = "train"  # as the reference: the rows that the champion learned from
MOST_ROWS = 20_000  # of either side, at random: the classifier takes a second for 40,000 rows of 20 columns
FEWEST_ROWS = 100  # of an action on either side: below, its rate has no interval to speak of
CHANCE = 0.01  # how often some action's rate seems to move where none has
MUCH = 0.1  # of the former rate: a smaller change is none that anybody acts on


class Reference(NamedTuple):
    """The rows of then: decided from `start` to `end`, in seconds since 1970 UTC."""

    start: float
    end: float


class RateDrift(msgspec.Struct, frozen=True):
    """An action's outcome rate then and now, each with its 95 % interval; `p` of no change, over customers."""

    action: str
    then: Interval
    now: Interval
    p: float
    is_shifted: bool


class Drifted(msgspec.Struct, frozen=True):
    """What has moved. `shares`: of each action, then and now. `rows`: then and now."""

    bundle: str
    objective: str
    rows: tuple[int, int]
    inputs: DriftReport
    predictions: ColumnDrift | None
    rates: tuple[RateDrift, ...]
    mix: ColumnDrift
    shares: dict[str, tuple[float, float]]

    @property
    def reasons(self) -> tuple[str, ...]:
        """What has moved, in words; empty where nothing has."""
        told = [f"inputs: {reason}" for reason in self.inputs.reasons]
        if self.predictions is not None and self.predictions.is_shifted:
            told.append(f"predicted rates have moved: stability index {self.predictions.index:.2f}")
        told += [
            f"`{one.action}` brings {one.now.value:.4f} [{one.now.low:.4f}, {one.now.high:.4f}] instead of {one.then.value:.4f} "
            f"[{one.then.low:.4f}, {one.then.high:.4f}] (p {one.p:.1e})"
            for one in self.rates if one.is_shifted
        ]  # fmt: skip
        if self.mix.is_shifted:
            told.append(f"other actions are shown: stability index {self.mix.index:.2f}")
        return tuple(told)


def drifted(
    home: Path, reference: Reference | None = None, progress: Progress = lambda _done, _of: None, seed: int = 0
) -> Drifted:
    """Rows since the champion's training against those it learned from, or those of `reference` and what came after.

    Raises NotReady without a champion, or without rows of either side.
    """
    registry, contract = Registry(home / "registry"), home_contract(home)
    champion = registry.current().champion
    if champion is None:
        raise NotReady("Expected a bundle that serves, found none: run `nextbest promote`")
    manifest = read_manifest(registry.bundle_folder(champion))
    objective = Objective(manifest.objective, read_rules(home).window(Objective(manifest.objective).outcome))
    examples = corrected(load_examples(home, objective, contract, progress), objective.window)
    engine = engine_of(registry, contract, current_catalog(registry, contract), champion)
    return compare(manifest, engine, examples, then_and_now(manifest, examples, reference), progress, seed=seed)


def then_and_now(manifest: Manifest, examples: Examples, reference: Reference | None) -> tuple[Mask, Mask]:
    """Which rows are of then, and which of now: bool, (rows,) each. Raises NotReady where one side has none."""
    if reference is not None:
        then = (examples.decided_at >= reference.start) & (examples.decided_at < reference.end)
        now = examples.decided_at >= reference.end
    else:
        then = seen(manifest.split, examples)
        since = manifest.learned_until if manifest.learned_until is not None else -np.inf
        then &= examples.decided_at <= (since if np.isfinite(since) else np.inf)
        now = ~seen(manifest.split, examples) if manifest.split.by == "time" else examples.decided_at > since
        now &= ~then
    if not then.any() or not now.any():
        raise NotReady(f"Expected rows of then and now, found {then.sum():,} and {now.sum():,}: serve on, or give other dates")
    return then, now


def compare(
    manifest: Manifest, engine: Engine, examples: Examples, sides: tuple[Mask, Mask],
    progress: Progress = lambda _done, _of: None, *, seed: int = 0,
) -> Drifted:  # fmt: skip
    """All of it for two sides of the rows."""
    chance = np.random.default_rng(seed)
    then, now = (examples.take(_some(mask, chance)) for mask in sides)
    total = len(then) + len(now)
    predicted = [
        _predicted(engine, then, lambda done: progress(done, total)),
        _predicted(engine, now, lambda done: progress(len(then) + done, total)),
    ]
    known = [rates[~np.isnan(rates)] for rates in predicted]
    of_rates = [pa.table({"predicted_rate": rates}) for rates in known]
    before, after = (examples.take(mask) for mask in sides)
    actions = [pa.table({"action": pa.array(side.action_id.tolist(), pa.string())}) for side in (before, after)]
    return Drifted(
        manifest.bundle_id, manifest.objective, (len(before), len(after)), drift(_inputs(then), _inputs(now), seed),
        drift(of_rates[0], of_rates[1], seed).columns[0] if all(map(len, known)) else None,
        rate_drifts(before, after), drift(*_thinned(actions), seed=seed).columns[0], _shares(before, after),
    )  # fmt: skip


def _some(mask: Mask, chance: np.random.Generator) -> npt.NDArray[np.intp]:
    rows = np.flatnonzero(mask)
    return rows if len(rows) <= MOST_ROWS else np.sort(chance.choice(rows, MOST_ROWS, replace=False))


def _thinned(tables: list[pa.Table]) -> tuple[pa.Table, pa.Table]:
    """Every so many rows: the order is that of time, so that all of it is there."""
    then, now = (t.take(pa.array(np.arange(0, t.num_rows, max(1, t.num_rows // MOST_ROWS)))) for t in tables)
    return then, now


def _inputs(examples: Examples) -> pa.Table:
    return pa.table(dict(examples.values))


def _predicted(engine: Engine, examples: Examples, progress: Callable[[int], None]) -> Values:
    """What the champion expects of each served action: (rows,), NaN where the catalog does not have it."""
    found, done = np.full(len(examples), np.nan), 0
    for chunk in chunks(examples, engine):
        rates = chunk.choices(engine).predicted_rates
        found[chunk.rows] = np.where(chunk.served == UNKNOWN, np.nan, rates[np.arange(len(chunk.rows)), chunk.served])
        done += len(chunk.rows)
        progress(done)
    return found


def rate_drifts(then: Examples, now: Examples) -> tuple[RateDrift, ...]:
    """Actions with enough rows on both sides, the most surprising first. Several at once are judged as Holm 1979 does.

    The test is that of two means whose variances are clustered by customer (Liang and Zeger 1986).
    """
    found = []
    for action in sorted(set(then.action_id.tolist()) & set(now.action_id.tolist())):
        sides = [side.take(side.action_id == action) for side in (then, now)]
        if min(map(len, sides)) >= FEWEST_ROWS:
            before, after = (_mean(side) for side in sides)
            found.append((difference_p(before, after), action, before, after))
    found.sort()
    told, alive = [], True
    for place, (p, action, before, after) in enumerate(found):
        alive = alive and p <= CHANCE / (len(found) - place)
        is_much = abs(after.value - before.value) > MUCH * abs(before.value)
        told.append(RateDrift(action, before, after, p, alive and is_much))
    return tuple(told)


def difference_p(before: Interval, after: Interval) -> float:
    """P of two means so far apart, from their 95 % intervals: a normal test of independent means."""
    errors = [(one.high - one.low) / 2 / NORMAL_95 for one in (before, after)]
    error = float(np.hypot(errors[0], errors[1]))
    if not np.isfinite(error):
        return 1.0
    if error == 0.0:
        return float(before.value == after.value)
    return float(2 * norm.sf(abs(after.value - before.value) / error))


def _mean(side: Examples) -> Interval:
    return mean_interval(side.label, np.unique(side.customer_id, return_inverse=True)[1])


def _shares(then: Examples, now: Examples) -> dict[str, tuple[float, float]]:
    actions = sorted({*then.action_id.tolist(), *now.action_id.tolist()})
    return {a: (float((then.action_id == a).mean()), float((now.action_id == a).mean())) for a in actions}
