"""`nextbest guard`: whether a canary must step back, judged by what became of its customers beside everybody else's.

Its customers are those that the hash gives it, also where the champion decided for them since the canary failed.
"""

import datetime as dt
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from features.homes import home_contract
from service.bundles.loading import read_manifest
from service.catalog.entities import PRIMARY, Scalar
from service.decision.experiments import CANARY, CANARY_FAILED, Assigned, Canary
from service.decision.records import OutcomeRecord
from service.registry import Challenger, Registry
from training.checks import Check
from training.evaluate import current_catalog, engine_of
from training.event_history import is_erased, read_erasures
from training.examples import Objective
from training.experiments import FEW_CUSTOMERS, FEWEST, FEWEST_WITH, Difference, arm_sums, difference
from training.gate import TIMED, scoring_ms
from training.judging import Gain
from training.learning_rules import GateRules, GuardRules, LearningRules, read_rules
from training.live_log import records_in, sources_since
from training.promotion import step_off

Values = npt.NDArray[np.float64]
Verdict = Literal["back", "watch", "proven"]

USUAL = LearningRules()


class Seen(NamedTuple):
    """What became of an arm's customers, (customers,) each. `failed`: decisions that its model should have made, and did not.

    `matured` are decisions whose window is over, `outcomes` those of them that succeeded. `scoring_ms`: to score a request, NaN
    unknown.
    """

    decisions: Values
    fallbacks: Values
    matured: Values
    outcomes: Values
    failed: int = 0
    scoring_ms: float = float("nan")


class Judgement(msgspec.Struct, frozen=True):
    """Guard-rails in words. `back` where one does not hold, `proven` where no loss beyond the margin is left to fear."""

    verdict: Verdict
    rails: tuple[Check, ...]
    gain: Gain

    @property
    def broken(self) -> str:
        """What does not hold, for the history."""
        return "; ".join(f"{rail.name}: {rail.told}" for rail in self.rails if not rail.holds)


class GuardReport(msgspec.Struct, frozen=True):
    """A canary as it was found, and the judgement on it."""

    bundle: str
    share: float
    since: str
    objective: str
    decisions: int
    judgement: Judgement


def judge_canary(canary: Seen, champion: Seen, rules: GuardRules = USUAL.guard, gate: GateRules = USUAL.gate) -> Judgement:
    """Errors, fallbacks, latency and reward of a canary beside the champion.

    Shares and rewards are compared by intervals that hold at all times together: it may be asked every minute.
    """
    gained = _compared(canary.matured, canary.outcomes, champion.matured, champion.outcomes)
    shown = _compared(canary.decisions, canary.fallbacks, champion.decisions, champion.fallbacks)
    worth = _ratio(champion.outcomes, champion.matured)
    tolerated = rules.less_reward * worth
    rails = (
        _errors(canary, rules),
        _fallbacks(shown, rules),
        _latency(canary.scoring_ms, champion.scoring_ms, gate),
        _reward(gained, tolerated),
    )
    verdict: Verdict = "watch"
    if not all(rail.holds for rail in rails):
        verdict = "back"
    elif gained.is_told and gained.gain.ci[0] > -tolerated:
        verdict = "proven"
    return Judgement(verdict, rails, gained.gain)


def _compared(decisions: Values, counted: Values, other_decisions: Values, other_counted: Values) -> Difference:
    there, others = decisions > 0.0, other_decisions > 0.0
    return difference(
        CANARY, arm_sums(decisions[there], counted[there]), arm_sums(other_decisions[others], other_counted[others])
    )


def _ratio(counted: Values, decisions: Values) -> float:
    total = float(decisions.sum())
    return float(counted.sum()) / total if total else 0.0


def _errors(canary: Seen, rules: GuardRules) -> Check:
    made = int(canary.decisions.sum())
    share = canary.failed / made if made else 0.0
    holds = canary.failed <= rules.few_failures or share <= rules.most_failed
    return Check("errors", holds, f"its model failed in {canary.failed} of {made:,} decisions, {rules.most_failed:.1%} may be")


def _fallbacks(shown: Difference, rules: GuardRules) -> Check:
    told = f"share of decisions with a fallback: {_told(shown)}; {rules.more_fallbacks:.1%} more may be"
    return Check("fallbacks", not shown.is_told or shown.gain.ci[0] <= rules.more_fallbacks, told)


def _latency(own: float, champion: float, gate: GateRules) -> Check:
    if np.isnan(own):
        return Check("latency", holds=True, told="not measured: no decision so far")
    if own > gate.most_ms:
        return Check("latency", holds=False, told=f"a request is scored in {own:.2f} ms, {gate.most_ms:g} may be")
    times = own / champion if champion > 0.0 else float("nan")
    words = f"a request is scored in {own:.3f} ms"
    if times > gate.most_times:
        return Check("latency", holds=False, told=f"{words}, {times:.1f} times the champion's; {gate.most_times:g} times may be")
    return Check("latency", holds=True, told=words)


def _reward(gained: Difference, tolerated: float) -> Check:
    """A loss is shown where the whole interval lies beyond what is tolerated."""
    told = f"outcomes per decision: {_told(gained)}; {tolerated:.6f} less may be"
    return Check("reward", not gained.is_told or gained.gain.ci[1] >= -tolerated, told)


def _told(found: Difference) -> str:
    if found.verdict == FEW_CUSTOMERS:
        return f"{FEW_CUSTOMERS} so far, {FEWEST} of each are needed"
    if not found.is_told:
        return f"too few of them so far, {FEWEST_WITH} customers of each must have one or be expected to"
    gain = found.gain
    return f"{gain.value:+.6f} [{gain.ci[0]:+.6f}, {gain.ci[1]:+.6f}] beside the champion"


def guard(home: Path, now: float) -> GuardReport | None:
    """Judge the canary, and take it off where a guard-rail does not hold; None where there is none.

    `now`: seconds since 1970 UTC. Raises RegistryError where somebody else has moved it meanwhile, NotReady and BundleRefused.
    """
    staged = Registry(home / "registry").current().challengers
    if not staged:
        return None
    report = look(home, staged[0], now)
    if report.judgement.verdict == "back":
        step_off(home, staged[0].bundle, f"guard: {report.judgement.broken}")
    return report


def look(home: Path, staged: Challenger, now: float) -> GuardReport:
    """Judge a canary, and change nothing."""
    registry, rules = Registry(home / "registry"), read_rules(home)
    objective = Objective(read_manifest(registry.bundle_folder(staged.bundle)).objective)
    since = dt.datetime.fromisoformat(staged.since).timestamp()
    found = _Log(home, staged, Objective(objective.name, rules.window(objective.outcome)), Span(since, now))
    canary, champion = found.arms()
    own, other = _times(home, registry, staged.bundle, found.newest)
    judgement = judge_canary(canary._replace(scoring_ms=own), champion._replace(scoring_ms=other), rules.guard, rules.gate)
    return GuardReport(staged.bundle, staged.share, staged.since, objective.name, int(canary.decisions.sum()), judgement)


class Span(NamedTuple):
    """From when until when, in seconds since 1970 UTC."""

    start: float
    end: float


class _Placed(msgspec.Struct, frozen=True):
    fallback: bool


class _Decided(msgspec.Struct, frozen=True):
    """What of a decision is counted, and what its model was given."""

    decision_id: str
    customer_id: str
    at: float
    placements: tuple[_Placed, ...]
    customer: dict[str, Scalar]
    context: dict[str, Scalar]
    degraded: tuple[str, ...] = ()
    experiment: Assigned | None = None


class _Log:
    """What was decided since a canary was staged, and what came of it. `newest`: its last decisions."""

    def __init__(self, home: Path, staged: Challenger, objective: Objective, span: Span) -> None:
        self._canary, self._span = Canary(staged.bundle, staged.share), span
        self._mature_until = span.end - objective.window if objective.window else float("inf")
        self._before, self._after = objective.span
        self.newest: deque[_Decided] = deque(maxlen=TIMED)
        self._failed = 0
        self._counts: dict[bool, defaultdict[str, Values]] = {
            is_canary: defaultdict(lambda: np.zeros(4)) for is_canary in (True, False)
        }
        successes = _successes(home, objective.outcome, span.start)
        for decided in _decisions(home, span.start):
            self._count(decided, successes)

    def arms(self) -> tuple[Seen, Seen]:
        """The canary's customers, and the champion's."""
        canary, champion = (np.array(list(self._counts[is_canary].values())).reshape(-1, 4).T for is_canary in (True, False))
        return Seen(*canary)._replace(failed=self._failed), Seen(*champion)

    def _count(self, decided: _Decided, successes: Mapping[str, Sequence[float]]) -> None:
        is_canary = self._canary.takes(decided.customer_id)
        if not is_canary and decided.experiment is not None:
            return  # still another canary's
        came = any(-self._before <= at - decided.at <= self._after for at in successes.get(decided.decision_id, ()))
        is_mature = decided.at <= self._mature_until
        fallback = any(placed.fallback for placed in decided.placements)
        self._counts[is_canary][decided.customer_id] += [1.0, fallback, is_mature, is_mature and came]
        if is_canary:
            self._failed += CANARY_FAILED + self._canary.bundle in decided.degraded
            self.newest.append(decided)


def _decisions(home: Path, since: float) -> Iterator[_Decided]:
    """Of customers who are in no experiment, and were not erased since; each once.

    Who does not want to be known counts: a canary that drives customers to say no would look better without them.
    """
    decoder, erased = msgspec.json.Decoder(_Decided), read_erasures(home)
    told: set[str] = set()  # two workers may both write an id
    for source in sources_since(home, "decisions", since):
        for _, decided in records_in(source, decoder):
            is_of_experiment = decided.experiment is not None and decided.experiment.id != CANARY
            if decided.at < since or is_of_experiment or decided.decision_id in told:
                continue
            told.add(decided.decision_id)
            if not is_erased(erased, decided.customer_id, decided.at):
                yield decided


def _successes(home: Path, outcome: str, since: float) -> dict[str, list[float]]:
    """When outcomes of a type came, by decision."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    decoder = msgspec.json.Decoder(OutcomeRecord)
    for source in sources_since(home, "outcomes", since):
        for _, one in records_in(source, decoder):
            if one.type == outcome:
                found[one.decision_id].append(one.at)
    return found


def _times(home: Path, registry: Registry, canary: str, newest: Sequence[_Decided]) -> tuple[float, float]:
    """How long the canary and the champion take to score one of these decisions, in milliseconds; NaN without one."""
    contract, champion = home_contract(home), registry.current().champion
    if not newest:
        return float("nan"), float("nan")
    catalog = current_catalog(registry, contract)
    engines = [engine_of(registry, contract, catalog, name) for name in (canary, champion) if name]
    customers, contexts = [d.customer for d in newest], [d.context for d in newest]
    found = scoring_ms([(engine, engine.encoders[PRIMARY].encode(customers, contexts)) for engine in engines])
    return float(found[0]), float(found[1]) if len(found) > 1 else float("nan")
