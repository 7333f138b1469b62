"""The figures of a report: what policies, actions and segments are worth, each with its interval, or why it has none."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.homes import home_contract
from service.bundles.loading import read_manifest
from service.bundles.manifest import Manifest
from service.catalog.entities import Catalog
from service.decision.engine import Engine
from service.decision.experiments import HOLDOUT
from service.errors import NotReady
from service.registry import Registry
from training.evaluate import current_catalog, engine_of
from training.examples import Examples, Objective, load_examples, texts
from training.experiments import (
    FEW_CUSTOMERS,
    FEW_OUTCOMES,
    FEWEST,
    FEWEST_WITH,
    ExperimentReport,
    always_valid,
    experiments,
    mismatch,
    too_few,
)
from training.learning_rules import read_rules
from training.maturity import corrected, mature
from training.off_policy import Interval, Rows, doubly_robust, doubts_of, mean_interval
from training.policies import UNIFORM, PolicyRows, chunks, uniform
from training.report_counts import Answers, Counted, Items, Periods, by_arm, count, periods
from training.report_drift import Drifted, compare, then_and_now
from training.report_holdout import Holdouts, Shares
from training.report_loop import Floors, Loop, loop
from training.slots import SlotRates, knows_slots
from training.split import seen

Values = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

LOGGED, CHAMPION = "logged", "champion"
FEW_VALUES = 8  # of a categorical input that makes segments
FEWEST_SUCCESSES = 5  # below, no normal interval around a rate
DECILES = 10


class Claim(NamedTuple):
    """A value with its 95 % interval, from so many rows; `doubt` says why the rows do not carry it, empty where they do."""

    name: str
    interval: Interval
    rows: int
    doubt: str = ""


class Policy(NamedTuple):
    """A policy on all rows, period by period, and by group: (kind, claims)."""

    overall: Claim
    over_time: tuple[Claim, ...]
    groups: tuple[tuple[str, tuple[Claim, ...]], ...]


class Decile(NamedTuple):
    """Items of like predicted rates: their mean, and what came of them."""

    predicted: float
    observed: Claim


class Lift(NamedTuple):
    """Everybody else against the holdout: a difference a decision, always valid; `total` over all their decisions."""

    kind: str
    holdout: Claim
    others: Claim
    each: Interval
    total: Interval
    planned: float  # p of so many customers in the holdout
    doubt: str = ""


class Figures(NamedTuple):
    """All of a report. Parts are empty or None where there is nothing to tell."""

    objective: str
    bundle: str | None
    times: Periods
    counted: Counted
    policies: tuple[Policy, ...]
    gains: tuple[Claim, ...]  # over what was logged, on the same rows
    mean_weights: tuple[Claim, ...]
    experiments: tuple[ExperimentReport, ...]
    lifts: tuple[Lift, ...]
    nobody: float  # p that nobody is in the holdout that is planned, nan where that is not so
    deciles: tuple[Decile, ...]
    loop: Loop
    drift: Drifted | str


def figures(home: Path, since: float = -math.inf, progress: Progress = lambda _done, _of: None) -> Figures:
    """Everything a page tells, of decisions from `since` on (seconds since 1970 UTC). Raises NotReady without rows."""
    registry, contract = Registry(home / "registry"), home_contract(home)
    bundle, serving = registry.current().champion, registry.current().catalog or 0
    if bundle is None:
        raise NotReady("Expected a bundle that serves, found none: run `nextbest promote`")
    manifest, catalog = read_manifest(registry.bundle_folder(bundle)), current_catalog(registry, contract)
    objective = Objective(manifest.objective, read_rules(home).window(Objective(manifest.objective).outcome))
    everything, engine = load_examples(home, objective, contract), engine_of(registry, contract, catalog, bundle)
    examples = corrected(everything, objective.window, is_value=objective.is_value)
    recent = examples.take(examples.decided_at >= since)
    if not len(recent):
        raise NotReady("Expected decisions with outcomes in this time, found none - at `--since`")
    counted = count(home, objective.outcome, since, bundle, progress)
    moments = np.concatenate([recent.decided_at, counted.answers.at])
    times = periods(float(moments.min()), float(moments.max()))
    own = SlotRates(lambda slot: engine_of(registry, contract, catalog, bundle, slot=slot))
    holdouts = Holdouts(registry, contract)
    policies, gains, weights = _policies(recent, (engine, own), (manifest, catalog), times, progress)
    judged = mature(everything, objective.window)
    if knows_slots(manifest.inputs):  # what was predicted is what the first slot brings
        judged = judged.take(judged.slot == 1)
    return Figures(
        objective.name, bundle, times, counted, policies, gains, weights, _experiments(home, objective.outcome),
        lifts(*holdouts.compared(counted.answers)), holdouts.nobody(counted.answers, serving),
        deciles(judged, counted.items) if manifest.predicts != "uplift" else (),
        loop(counted.served, times, _floors(catalog, manifest)), _drift(manifest, engine, examples, progress),
    )  # fmt: skip


def claim(name: str, contributions: Values, customers: npt.NDArray[np.str_], judged: Rows | None = None) -> Claim:
    """A mean over rows, clustered by customer, with what is to be doubted of it. `judged`: the rows as a policy sees them."""
    if not len(contributions):
        return Claim(name, Interval(math.nan, -math.inf, math.inf), 0, "no rows")
    names, clusters = np.unique(customers, return_inverse=True)
    told = doubts_of(judged, clusters) if judged is not None else []
    if len(names) < FEWEST:
        told.insert(0, f"{len(names)} customers, at least {FEWEST} are needed")
    elif judged is None and np.count_nonzero(contributions) < FEWEST_SUCCESSES:
        told.append(f"{np.count_nonzero(contributions)} successes, at least {FEWEST_SUCCESSES} are needed")
    return Claim(name, mean_interval(contributions, clusters), len(contributions), "; ".join(told))


def _policies(
    recent: Examples, champion: tuple[Engine, SlotRates], known: tuple[Manifest, Catalog], times: Periods, progress: Progress
) -> tuple[tuple[Policy, ...], tuple[Claim, ...], tuple[Claim, ...]]:
    """Logged, champion and uniform; the latter two, doubly robust, on rows that the champion did not learn from."""
    (manifest, catalog), (engine, own) = known, champion
    policies = [_policy(LOGGED, recent, recent.label, None, (times, catalog))]
    unseen = recent.take(~seen(manifest.split, recent))
    found, done = PolicyRows(unseen), 0
    for chunk in chunks(unseen, engine):
        table = chunk.choices(engine)
        rates = table.predicted_rates
        if knows_slots(manifest.inputs):
            rates = own.rates(chunk, unseen.slot[chunk.rows], rates)
        found.add(CHAMPION, chunk, table.probabilities, rates)
        found.add(UNIFORM, chunk, uniform(table.allowed), rates)
        done += len(chunk.rows)
        progress(done, len(unseen))
    weights, gains = [], []
    for name in found.policies:
        rows = found.rows(name)
        policies.append(_policy(name, unseen, doubly_robust(rows), rows, (times, catalog)))
        gained = doubly_robust(rows) - unseen.label
        gains.append(claim(f"{name} over {LOGGED}", gained, unseen.customer_id, rows))
        weights.append(claim(name, rows.weight, unseen.customer_id, rows))
    return tuple(policies), tuple(gains), tuple(weights)


def _policy(name: str, rows: Examples, contributions: Values, judged: Rows | None, known: tuple[Periods, Catalog]) -> Policy:
    times, catalog = known

    def part(label: str, where: npt.NDArray[np.bool_]) -> Claim:
        return claim(label, contributions[where], rows.customer_id[where], None if judged is None else judged.take(where))

    place = times.of(rows.decided_at)
    over_time = tuple(part(name, place == one) for one in range(len(times.starts)))
    groups = []
    for kind, values in groups_of(rows, catalog).items():
        if kind == "action" and judged is not None:
            continue  # an action is the policy's choice, and no group of customers
        groups.append((kind, tuple(part(value, values == value) for value in sorted(set(values.tolist())))))
    return Policy(part(name, np.ones(len(rows), np.bool_)), over_time, tuple(groups))


def groups_of(rows: Examples, catalog: Catalog) -> dict[str, npt.NDArray[np.str_]]:
    """What rows are grouped by: action, placement, channel, and inputs of few values; (rows,) texts each."""
    channels = {name: placement.channel for name, placement in catalog.placements.items()}
    found = {
        "action": rows.action_id, "placement": rows.placement,
        "channel": np.array([channels.get(name, "unknown") for name in rows.placement.tolist()], np.str_),
    }  # fmt: skip
    for key, column in rows.values.items():
        if pa.types.is_string(column.type):
            values = texts(column.fill_null("missing"))
            if 1 < len(np.unique(values)) <= FEW_VALUES:
                found[key] = values
    return found


def deciles(examples: Examples, items: Items) -> tuple[Decile, ...]:
    """Served items of the champion by their predicted rate, ten groups of equal size, against what came of them."""
    keys = zip(examples.decision_id.to_pylist(), examples.placement.tolist(), examples.slot.tolist(), strict=True)
    rates = np.array([items.rates.get(key, math.nan) for key in keys], np.float64)
    rows = np.flatnonzero(~np.isnan(rates))
    parts = np.array_split(rows[np.argsort(rates[rows], kind="stable")], DECILES)
    return tuple(
        Decile(float(rates[part].mean()), claim(str(n), examples.label[part], examples.customer_id[part]))
        for n, part in enumerate(parts, 1) if len(part)
    )  # fmt: skip


def lifts(answers: Answers, shares: Shares) -> tuple[Lift, ...]:
    """Successes and money of everybody else over the holdout, a decision; empty where nobody is in a holdout.

    `shares` as planned for these answers. Who is not personalised is on neither side.
    """
    inside, outside = answers.arm == HOLDOUT, answers.arm == ""
    if not inside.any() or not outside.any():
        return ()
    planned = (shares.holdout, (1.0 - shares.holdout) * (1.0 - shares.plain))
    return tuple(
        _lift(kind, outcome, answers, planned) for kind, outcome in {"successes": answers.success, **answers.worth}.items()
    )


def _lift(kind: str, outcome: Values, answers: Answers, shares: tuple[float, float]) -> Lift:
    inside, outside = answers.arm == HOLDOUT, answers.arm == ""
    held, others = (by_arm(answers, outcome, arm) for arm in (inside, outside))
    gained = others.value - held.value
    each = Interval(gained, *always_valid(gained, others.variance + held.variance, others.customers + held.customers))
    total = Interval(*(end * others.decisions for end in each))
    planned = mismatch([held.customers, others.customers], shares) if shares[0] else math.nan
    few = min(held.customers, others.customers)
    doubt = {
        FEW_CUSTOMERS: f"{few} customers in the smaller group, at least {FEWEST} are needed",
        FEW_OUTCOMES: f"{FEW_OUTCOMES}: {FEWEST_WITH} customers of each group must have one or be expected to",
    }.get(too_few(others, held), "")
    claims = [claim(name, outcome[arm], answers.customer[arm]) for name, arm in ((HOLDOUT, inside), ("everybody else", outside))]
    return Lift(kind, claims[0], claims[1], each, total, planned, doubt)


def _experiments(home: Path, objective: str) -> tuple[ExperimentReport, ...]:
    try:
        return tuple(one for one in experiments(home, objective) if len(one.arms) > 1)
    except NotReady:
        return ()


def _floors(catalog: Catalog, manifest: Manifest) -> Floors:
    thin: Mapping[str, frozenset[str]] = {
        name: frozenset(a.id for a in catalog.actions if manifest.action_rows.get(a.id, 0) < placement.explore.floor_below)
        for name, placement in catalog.placements.items()
    }
    return Floors(catalog.placements, thin, frozenset(a.id for a in catalog.actions if a.mandatory))


def _drift(manifest: Manifest, engine: Engine, examples: Examples, progress: Progress) -> Drifted | str:
    """Or why there is nothing to compare."""
    try:
        return compare(manifest, engine, examples, then_and_now(manifest, examples, None), progress)
    except NotReady as error:
        return str(error)
