"""`nextbest experiments`: what the arms of each experiment brought, and whether they differ.

Customers are what chance assigned, so customers are what is counted: an arm's value is a ratio of sums over its customers.
Differences carry intervals that hold at all times together: whoever looks every day is not misled more often than whoever looks
once.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from features.homes import home_contract
from service.decision.experiments import CANARY, HOLDOUT, NOT_PERSONALISED, PLAIN_ARM, Assigned
from service.decision.records import OutcomeRecord
from service.errors import NotReady
from service.registry import Registry
from training.event_history import is_erased, read_erasures
from training.judging import Gain
from training.live_log import read_log, records_in, sources
from training.planned import Plan, Plans

Values = npt.NDArray[np.float64]
Counts = Mapping[str, Sequence[float]]  # (decisions, outcomes) of each customer
Progress = Callable[[int, int], None]

ALPHA = 0.05
PLANNED = 5000  # customers: where the intervals are tightest
FEWEST = 100  # customers in an arm: below, sums are too far from normal
# customers with an outcome, had or to be expected: of none at all the variance is 0, as if it were known for sure
FEWEST_WITH = 5
FEW_CUSTOMERS, FEW_OUTCOMES = "too few customers", "too few outcomes"
MISMATCH = 0.001  # p below which the shares of customers are not those of the plan


class ArmSums(NamedTuple):
    """An arm's outcomes per decision. `variance` is that of `value`, over customers; `succeeded` are those with any outcome."""

    customers: int
    decisions: int
    value: float
    variance: float
    succeeded: int


class Difference(msgspec.Struct, frozen=True):
    """An arm against the first one: the difference of their values, and what can be said of it."""

    arm: str
    gain: Gain
    verdict: str  # better, worse, no difference shown, too few customers, too few outcomes

    @property
    def is_told(self) -> bool:
        """Whether there are enough customers and outcomes for the interval to mean anything."""
        return self.verdict not in (FEW_CUSTOMERS, FEW_OUTCOMES)


class ArmReport(msgspec.Struct, frozen=True):
    arm: str
    customers: int
    decisions: int
    value: float


class ExperimentReport(msgspec.Struct, frozen=True):
    """One experiment. `arms`: those that are planned, in that order, also where nobody got one; then those that were.

    `mismatch`: p of the customers' shares under the planned ones; None where nobody knows these. `left_out`: decisions of
    when the arms were planned otherwise than by the newest of its catalogs.
    """

    id: str
    objective: str
    arms: tuple[ArmReport, ...]
    differences: tuple[Difference, ...]
    mismatch: float | None
    left_out: int = 0


def arm_sums(decisions: Values, outcomes: Values) -> ArmSums:
    """From (customers,) decisions and outcomes of each. The variance of a ratio of means: Cochran 1977, section 6.3."""
    total, size, succeeded = float(decisions.sum()), len(decisions), int(np.count_nonzero(outcomes))
    if not total or size <= 1:
        return ArmSums(size, int(total), float(outcomes.sum()) / total if total else 0.0, math.inf, succeeded)
    value = float(outcomes.sum()) / total
    residuals = outcomes - value * decisions
    return ArmSums(size, int(total), value, float((residuals**2).sum()) / total**2 * size / (size - 1), succeeded)


def always_valid(value: float, variance: float, customers: int, alpha: float = ALPHA) -> tuple[float, float]:
    """An interval around an estimate that covers at all sample sizes together with probability 1 - alpha.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2021, theorem 2.2, tightest at PLANNED.
    """
    if not math.isfinite(variance):
        return -math.inf, math.inf
    rho = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / PLANNED  # their appendix B.2, squared
    spread = customers * rho
    radius = math.sqrt(variance * 2 * (spread + 1) / spread * math.log(math.sqrt(spread + 1) / alpha))
    return value - radius, value + radius


def difference(arm: str, tried: ArmSums, first: ArmSums, alpha: float = ALPHA) -> Difference:
    """An arm against the first one."""
    gained = tried.value - first.value
    low, high = always_valid(gained, tried.variance + first.variance, tried.customers + first.customers, alpha)
    shown = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    return Difference(arm, Gain(gained, (low, high)), too_few(tried, first) or shown)


def too_few(tried: ArmSums, first: ArmSums) -> str:
    """Of what there is too little for an interval, empty where there is enough.

    An arm without outcomes counts where some had to be expected, by both arms' share of customers with one.
    """
    customers = tried.customers + first.customers
    if min(tried.customers, first.customers) < FEWEST:
        return FEW_CUSTOMERS
    share = (tried.succeeded + first.succeeded) / customers
    enough = all(max(arm.succeeded, arm.customers * share) >= FEWEST_WITH for arm in (tried, first))
    return "" if enough else FEW_OUTCOMES


EVERYBODY_ELSE = Assigned(NOT_PERSONALISED, "personalised")
NO_EXPERIMENT = ""


class _Versions(msgspec.Struct, frozen=True):
    catalog: int


class _Decided(msgspec.Struct, frozen=True):
    """What of a decision is counted."""

    decision_id: str
    customer_id: str
    at: float
    versions: _Versions
    experiment: Assigned | None = None


class _Counts:
    """Decisions and outcomes by arm and customer, apart for each plan; those of an experiment's newest plan are told."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        # by experiment: when its last decision was made, and by which catalog; of `not_personalised` those of who is not, and of
        # who is under no id that an experiment can have
        self._newest: dict[str, tuple[float, int]] = {}
        self._found: defaultdict[Assigned, defaultdict[Plan, defaultdict[str, list[float]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
        )
        self._others: defaultdict[Plan, set[str]] = defaultdict(set)  # who is personalised, by the plan of who is not

    def add(self, arm: Assigned, decided: _Decided, *, has_succeeded: bool) -> None:
        """One decision."""
        revision = decided.versions.catalog
        name = NO_EXPERIMENT if arm == EVERYBODY_ELSE else arm.id
        self._newest[name] = max(self._newest.get(name, (decided.at, revision)), (decided.at, revision))
        count = self._found[arm][self._plans.of(revision, arm.id)][decided.customer_id]
        count[0] += 1.0
        count[1] += has_succeeded
        if arm != PLAIN_ARM and arm.id != HOLDOUT:
            self._others[self._plans.of(revision, NOT_PERSONALISED)].add(decided.customer_id)

    def everybody_else(self) -> tuple[int, Counts, int]:
        """Who is in no experiment: their last catalog, what they did under its plan, and how many were personalised then."""
        _, revision = self._newest.get(NO_EXPERIMENT, (0.0, 0))
        plan = self._plans.of(revision, NOT_PERSONALISED)
        return revision, self._found[EVERYBODY_ELSE][plan] if revision else {}, len(self._others[plan])

    def revision(self, experiment: str) -> int:
        """The catalog of its last decision."""
        return self._newest[experiment][1]

    def _plan(self, experiment: str) -> Plan:
        return self._plans.of(self.revision(experiment), experiment)

    def by_experiment(self) -> dict[str, dict[str, Counts]]:
        """By experiment, then by arm."""
        found: defaultdict[str, dict[str, Counts]] = defaultdict(dict)
        for arm, by_plan in self._found.items():
            if arm != EVERYBODY_ELSE or PLAIN_ARM in self._found:
                found[arm.id][arm.arm] = by_plan.get(self._plan(arm.id), {})
        return {name: {arm: counts for arm, counts in arms.items() if counts} for name, arms in found.items()}

    def left_out(self, experiment: str) -> int:
        """Decisions under another plan."""
        newest = self._plan(experiment)
        return sum(
            int(count[0])
            for arm, by_plan in self._found.items() if arm.id == experiment
            for plan, counts in by_plan.items() if plan != newest
            for count in counts.values()
        )  # fmt: skip

    def assigned(self, experiment: str, arms: Mapping[str, Counts]) -> dict[str, int]:
        """Customers by arm, as chance assigned them. `arms`: what was counted of the experiment.

        Who is in no experiment depends on the experiments of the time, who is not personalised does not: beside the latter are
        all others but the holdout, whatever experiments came and went.
        """
        found = {arm: len(customers) for arm, customers in arms.items()}
        if experiment == NOT_PERSONALISED:
            found[EVERYBODY_ELSE.arm] = len(self._others[self._plan(experiment)])
        return found


def experiments(home: Path, objective: str, progress: Progress = lambda _done, _of: None) -> list[ExperimentReport]:
    """Every experiment that the log knows. `objective`: the type of outcome; a decision has it or not. Raises NotReady.

    Who was erased counts nowhere. Who does not want to be known does: nothing known of them is read here, and an arm that drives
    customers to say no would look better without them.
    `not_personalised` compares those who are in no experiment with the one in a hundred for whom nothing known of them counts.
    Of each experiment those decisions count whose catalogs planned its arms as that of its last one did.
    """
    successes = {o.decision_id for o in read_log(home, "outcomes", OutcomeRecord) if o.type == objective}
    plans = Plans(Registry(home / "registry"), home_contract(home))
    counts = _Counts(plans)
    decoder, parts, erased = msgspec.json.Decoder(_Decided), sources(home, "decisions"), read_erasures(home)
    counted: set[str] = set()  # two workers may both write an id
    for done, part in enumerate(parts, 1):
        for _, decided in records_in(part, decoder):
            if decided.decision_id in counted or is_erased(erased, decided.customer_id, decided.at):
                continue
            counted.add(decided.decision_id)
            arm = decided.experiment
            if arm is None or arm.id == CANARY:  # `nextbest guard` compares canaries
                arm = EVERYBODY_ELSE
            counts.add(arm, decided, has_succeeded=decided.decision_id in successes)
        progress(done, len(parts))
    found = counts.by_experiment()
    reports = [] if NOT_PERSONALISED in found else _missing(plans, objective, counts)
    if not found and not reports:
        raise NotReady("Expected logged decisions of an experiment, found none: declare `experiments` in the catalog")
    for name, arms in found.items():
        report = _report(name, objective, arms, _planned(plans, counts.revision(name)).get(name, {}), counts.assigned(name, arms))
        reports.append(msgspec.structs.replace(report, left_out=counts.left_out(name)))
    return reports


def _missing(plans: Plans, objective: str, counts: _Counts) -> list[ExperimentReport]:
    """`not_personalised`, where nobody is though the catalog plans it, and somebody had to be."""
    revision, arm, everybody = counts.everybody_else()
    planned = _planned(plans, revision).get(NOT_PERSONALISED, {}) if arm else {}
    if not planned.get(PLAIN_ARM.arm):
        return []
    report = _report(NOT_PERSONALISED, objective, {EVERYBODY_ELSE.arm: arm}, planned, {EVERYBODY_ELSE.arm: everybody})
    return [report] if report.mismatch is not None and report.mismatch < MISMATCH else []


def _planned(plans: Plans, revision: int) -> dict[str, dict[str, float]]:
    """Shares of the arms, in their order, by experiment, of whom `_Counts.assigned` counts; none where nobody knows them."""
    catalog = plans.catalog(revision)
    if catalog is None:
        return {}
    plain = catalog.not_personalised.share if catalog.not_personalised else 0.0
    plan = {e.id: {arm.id: arm.share for arm in e.arms} for e in catalog.experiments}
    return {**plan, NOT_PERSONALISED: {PLAIN_ARM.arm: plain, EVERYBODY_ELSE.arm: 1.0 - plain}}


def _report(
    name: str, objective: str, counts: Mapping[str, Counts], planned: Mapping[str, float], assigned: Mapping[str, int]
) -> ExperimentReport:
    order = [arm for arm, share in planned.items() if share > 0.0 or arm in counts]
    order += sorted(arm for arm in counts if arm not in planned)
    sums = {arm: arm_sums(*np.array(list(counts.get(arm, {}).values()), np.float64).reshape(-1, 2).T) for arm in order}
    first, *others = order
    doubt = None
    if all(arm in planned for arm in order):
        doubt = mismatch([assigned.get(arm, 0) for arm in order], [planned[arm] for arm in order])
    arms = tuple(ArmReport(arm, s.customers, s.decisions, s.value) for arm, s in sums.items())
    return ExperimentReport(name, objective, arms, tuple(difference(a, sums[a], sums[first]) for a in others), doubt)


def mismatch(customers: Sequence[int], shares: Sequence[float]) -> float:
    """P of so many customers in each arm, if chance assigned them by these shares: Pearson's chi-square."""
    observed, expected = np.array(customers, np.float64), np.array(shares) * sum(customers) / (sum(shares) or 1.0)
    statistic = float(((observed - expected) ** 2 / np.where(expected > 0, expected, 1.0)).sum())
    return float(chi2.sf(statistic, len(customers) - 1)) if len(customers) > 1 else 1.0
