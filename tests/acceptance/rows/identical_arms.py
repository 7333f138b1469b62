"""Row 8: two arms that are the same, 200 times: how often the analysis says that they differ."""

from collections.abc import Iterator

import msgspec
import numpy as np

from service.catalog.entities import Arm, Experiment
from service.decision.decide import decide
from service.decision.engine import Engine, arm_catalogs, build_engine, with_arms
from service.decision.experiments import Assigned
from service.decision.records import Versions
from service.decision.scoring import FlatScorer
from tests.acceptance.row import Context, Measured, Row
from training.experiments import ArmSums, arm_sums, difference, mismatch
from training.simulate import DAY, World

REPEATS = 200
DECISIONS = 4000
LOOKS = 10  # at each tenth of the decisions: whoever peeks must not be misled
CONTROLS = 20  # repeats in which the arms do differ
EFFECT = 0.05  # by which one arm's rates are raised in a control
MOST_ALARMS = 0.05
FEWEST_FOUND = 0.8
START = 1_790_000_000.0


def measure(context: Context) -> Measured:
    world = World(4000, context.seed)
    alarms = sum(alarmed(world, context.seed * 1000 + n, 0.0) for n in range(REPEATS))
    found = sum(alarmed(world, context.seed * 1000 + 500 + n, EFFECT) for n in range(CONTROLS))
    shares = [mismatch([len(c) for c in _customers(world, n)], [0.5, 0.5]) for n in range(REPEATS)]
    figure = (
        f"{alarms} of {REPEATS} false alarms, each looked at {LOOKS} times over {DECISIONS:,} decisions; shares of customers "
        f"doubted (p < 0.01) in {sum(p < 0.01 for p in shares)}; a real difference of {EFFECT} found in {found} of {CONTROLS}"
    )
    return Measured(figure, alarms <= MOST_ALARMS * REPEATS and found >= FEWEST_FOUND * CONTROLS)


def alarmed(world: World, run: int, effect: float) -> bool:
    """Whether any look says that the arms differ."""
    engine = _engine(world, f"run{run}")
    moments = world.moments(DECISIONS, START, START + 30 * DAY, run)
    records = decide(engine, [world.request(m, f"{run}-{n}") for n, m in enumerate(moments)])
    chosen = np.array([engine.positions.get(r.placements[0].items[0].action_id, 0) for r in records], np.intp)
    arms = np.array([r.experiment is not None and r.experiment.arm == "b" for r in records])
    clicks, _ = world.respond(moments, chosen, run)
    clicks = np.maximum(clicks, arms & (np.random.default_rng([run, 7]).random(DECISIONS) < effect))
    customers = np.array([m.customer for m in moments])
    for look in range(1, LOOKS + 1):
        until = DECISIONS * look // LOOKS
        first, second = (_sums(customers[:until], clicks[:until], arms[:until] == arm) for arm in (False, True))
        if difference("b", second, first).verdict in ("better", "worse"):
            return True
    return False


def _sums(customers: np.ndarray, clicks: np.ndarray, rows: np.ndarray) -> ArmSums:
    _, who = np.unique(customers[rows], return_inverse=True)
    return arm_sums(np.bincount(who).astype(np.float64), np.bincount(who, clicks[rows]))


def _customers(world: World, run: int) -> Iterator[list[str]]:
    engine = _engine(world, f"run{run}")
    arms = [engine.assignment.of(customer) for customer in world.customer_ids]
    for name in ("a", "b"):
        yield [c for c, arm in zip(world.customer_ids, arms, strict=True) if arm == Assigned("same", name)]


def _engine(world: World, salt: str) -> Engine:
    """The demo catalog with an experiment for everybody, whose arms change nothing."""
    same = Experiment("same", salt, 0.0, 1.0, (Arm("a", 0.5), Arm("b", 0.5)))
    catalog = msgspec.structs.replace(world.catalog, experiments=(same,))
    scorer, versions = FlatScorer([0.1] * len(world.actions)), Versions(1, "flat", world.contract.fingerprint)
    arms = {arm: build_engine(part, world.contract, scorer, versions) for arm, (part, _) in arm_catalogs(catalog).items()}
    return with_arms(build_engine(catalog, world.contract, scorer, versions), arms)


ROW = Row(
    8,
    f"two identical arms over the simulated world, {REPEATS} times",
    f"at most {MOST_ALARMS:.0%} false alarms; a real difference is found",
    measure,
)
