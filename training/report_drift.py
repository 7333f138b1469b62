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
from training.examples import Examples, Names, Objective, load_examples
from training.learning_rules import read_rules
from training.maturity import corrected
from training.off_policy import FEWEST_SUCCESSES, Interval, mean_interval
from training.policies import UNKNOWN, chunks
from training.split import seen

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]

TRAIN = "train"  # as the reference: the rows that the champion learned from
MOST_ROWS = 20_000  # of either side, one of each customer: the classifier takes a second for 40,000 rows of 20 columns
FEWEST_ROWS = 100  # of an action on either side: below, its rate has no interval to speak of
CHANCE = 0.01  # how often some action's rate seems to move where none has
MUCH = 0.1  # of the former rate: a smaller change is none that anybody acts on
NO_INPUTS = DriftReport((), 0.5, 1.0)  # of a home without features


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
    examples = corrected(load_examples(home, objective, contract, progress), objective.window, is_value=objective.is_value)
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
    then, now = (examples.take(_some(mask, examples.customer_id, chance)) for mask in sides)
    total = len(then) + len(now)
    predicted = [
        _predicted(engine, then, lambda done: progress(done, total)),
        _predicted(engine, now, lambda done: progress(len(then) + done, total)),
    ]
    known = [rates[~np.isnan(rates)] for rates in predicted]
    of_rates = [pa.table({"predicted_rate": rates}) for rates in known]
    before, after = (examples.take(mask) for mask in sides)
    actions = [pa.table({"action": pa.array(side.action_id.tolist(), pa.string())}) for side in (then, now)]
    return Drifted(
        manifest.bundle_id, manifest.objective, (len(before), len(after)), _of_inputs(then, now, seed),
        drift(of_rates[0], of_rates[1], seed).columns[0] if all(map(len, known)) else None,
        rate_drifts(before, after), drift(actions[0], actions[1], seed).columns[0], _shares(before, after),
    )  # fmt: skip


def _some(mask: Mask, customers: Names, chance: np.random.Generator) -> npt.NDArray[np.intp]:
    """A row of each customer, at random, MOST_ROWS at most: rows of one customer are alike, and would pass for proof."""
    shuffled = chance.permutation(np.flatnonzero(mask))
    rows = shuffled[np.sort(np.unique(customers[shuffled], return_index=True)[1])[:MOST_ROWS]]
    return np.sort(rows)


def _of_inputs(then: Examples, now: Examples, seed: int) -> DriftReport:
    """Without features there are no columns, and a table without columns has no rows either."""
    if not then.values:
        return NO_INPUTS
    return drift(_inputs(then), _inputs(now), seed, (then.customer_id, now.customer_id))


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


class _Side(NamedTuple):
    """An action on one side: its mean, the variance of that over customers, how many these are, and how many had a success."""

    mean: Interval
    variance: float
    customers: int
    succeeded: int


def rate_drifts(then: Examples, now: Examples) -> tuple[RateDrift, ...]:
    """Actions with enough rows on both sides, the most surprising first. Several at once are judged as Holm 1979 does.

    The test is that of two means whose variances are clustered by customer (Liang and Zeger 1986), none of them less than that of
    both sides together: of a side without a success it would be 0. There is no alarm where customers with a success are few, had
    or to be expected.
    """
    found = []
    for action in sorted(set(then.action_id.tolist()) & set(now.action_id.tolist())):
        before, after = (side.take(side.action_id == action) for side in (then, now))
        if min(len(before), len(after)) >= FEWEST_ROWS:
            p, means = _changed(before, after)
            found.append((p, action, *means))
    found.sort()
    told, alive = [], True
    for place, (p, action, before_mean, after_mean) in enumerate(found):
        alive = alive and p <= CHANCE / (len(found) - place)
        is_much = abs(after_mean.value - before_mean.value) > MUCH * abs(before_mean.value)
        told.append(RateDrift(action, before_mean, after_mean, p, alive and is_much))
    return tuple(told)


def _changed(before: Examples, after: Examples) -> tuple[float, tuple[Interval, Interval]]:
    """P of no change, and both means. 1 where too few succeeded to tell."""
    overall = float(np.concatenate([before.label, after.label]).mean())
    sides = [_side(side, overall) for side in (before, after)]
    means = sides[0].mean, sides[1].mean
    share = sum(side.succeeded for side in sides) / sum(side.customers for side in sides)
    if any(max(side.succeeded, side.customers * share) < FEWEST_SUCCESSES for side in sides):
        return 1.0, means
    pooled = sum(side.variance * len(rows.label) ** 2 for side, rows in zip(sides, (before, after), strict=True))
    pooled /= len(before) + len(after)  # of a row, as those of a customer go together
    errors = [max(side.variance, pooled / len(rows)) for side, rows in zip(sides, (before, after), strict=True)]
    error = float(np.sqrt(sum(errors)))
    if error == 0.0:
        return float(means[0].value == means[1].value), means
    return float(2 * norm.sf(abs(means[1].value - means[0].value) / error)), means


def _side(side: Examples, overall: float) -> _Side:
    """`overall`: the mean of both sides, around which there is no change."""
    clusters = np.unique(side.customer_id, return_inverse=True)[1]
    sums, groups = np.bincount(clusters, side.label - overall), int(clusters.max()) + 1
    succeeded = int(np.count_nonzero(np.bincount(clusters, side.label != 0.0)))
    return _Side(mean_interval(side.label, clusters), float((sums**2).sum()) / len(side) ** 2, groups, succeeded)


def _shares(then: Examples, now: Examples) -> dict[str, tuple[float, float]]:
    actions = sorted({*then.action_id.tolist(), *now.action_id.tolist()})
    return {a: (float((then.action_id == a).mean()), float((now.action_id == a).mean())) for a in actions}
