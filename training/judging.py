"""Values, gains and a verdict: what the estimates of an evaluation amount to."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from training import off_policy
from training.checks import Check
from training.examples import Examples
from training.learning_rules import GateRules
from training.off_policy import ESTIMATORS, Clusters, Interval, Values, mean_interval
from training.overlap import ActionOverlap
from training.policies import ALWAYS, BUNDLE, PolicyRows
from training.slate_values import PlacementSlates, slate_values

Verdict = Literal["promote", "keep", "refuse"]

LOGGED = "logged"
MEAN, DOUBLY_ROBUST = "mean", "dr"
REFRESH_MARGIN = GateRules().refresh_margin
DIGITS = 6


class PolicyValue(msgspec.Struct, frozen=True, omit_defaults=True):
    """A policy's mean reward per decision with its 95 % interval. `ess` and `max_weight` are of the rows that it decides."""

    value: float
    ci: tuple[float, float]
    estimator: str
    ess: float | None = None
    max_weight: float | None = None
    estimators: dict[str, float] | None = None


class Gain(msgspec.Struct, frozen=True):
    """A difference of two values on the same rows, with its 95 % interval."""

    value: float
    ci: tuple[float, float]


class Report(msgspec.Struct, frozen=True):
    """What `evaluate --json` prints. `slates`: only where the log holds slates of several slots; `overlap`: of the bundle."""

    objective: str
    rows: int
    policies: dict[str, PolicyValue]
    best_static: str | None
    gain_over_logged: Gain
    gain_over_best_static: Gain | None
    beats_best_static: bool
    verdict: Verdict
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    slates: tuple[PlacementSlates, ...] | msgspec.UnsetType = msgspec.UNSET
    overlap: tuple[ActionOverlap, ...] = ()

    @property
    def bundle(self) -> str:
        """The id of the bundle that was evaluated: the first of the bundles."""
        return self._bundles[0]

    @property
    def champion(self) -> str | None:
        """The id of the bundle that it was judged against; None where none served, or it did itself."""
        return next(iter(self._bundles[1:]), None)

    @property
    def _bundles(self) -> list[str]:
        return [policy.removeprefix(BUNDLE) for policy in self.policies if policy.startswith(BUNDLE)]


class _Judged(NamedTuple):
    """Contributions of every policy on the same rows, and who goes together."""

    contributions: dict[str, Values]
    clusters: Clusters

    def gain(self, policy: str, over: str) -> Gain:
        return _gain(mean_interval(self.contributions[policy] - self.contributions[over], self.clusters))


def report(
    objective: str, bundle: str, champion: str | None, unseen: Examples, found: PolicyRows, *,
    checks: Sequence[Check] = (), margin: float = REFRESH_MARGIN, overlap: tuple[ActionOverlap, ...] = (),
) -> Report:  # fmt: skip
    """What the rows say of the bundle, against the champion, or against the log where none serves; and the gate's checks.

    `margin`: of the champion's value, what a refresh must be proven not to lose.
    """
    clusters = np.unique(unseen.customer_id, return_inverse=True)[1]
    contributions = {LOGGED: unseen.label, **{p: off_policy.doubly_robust(found.rows(p)) for p in found.policies}}
    judged = _Judged(contributions, clusters)
    policies = {LOGGED: _logged_value(judged), **{p: _policy_value(found, judged, p) for p in found.policies}}
    own, best = f"{BUNDLE}{bundle}", _best_static(policies, found)
    over_best = judged.gain(own, best) if best else None
    against = f"{BUNDLE}{champion}" if champion not in (None, bundle) else LOGGED
    verdict, reasons = _verdict(own, against, found, judged, margin)
    if broken := [f"{check.name}: {check.told}" for check in checks if not check.holds]:
        verdict, reasons = "refuse", [*broken, *reasons]
    return Report(
        objective=objective, rows=len(unseen), policies=policies, best_static=best,
        gain_over_logged=judged.gain(own, LOGGED), gain_over_best_static=over_best,
        beats_best_static=over_best is not None and over_best.ci[0] > 0.0, verdict=verdict, reasons=tuple(reasons),
        checks=tuple(checks), slates=slate_values(unseen, found, clusters) or msgspec.UNSET, overlap=overlap,
    )  # fmt: skip


def _logged_value(judged: _Judged) -> PolicyValue:
    interval = mean_interval(judged.contributions[LOGGED], judged.clusters)
    return PolicyValue(*_rounded(interval), estimator=MEAN)


def _policy_value(found: PolicyRows, judged: _Judged, policy: str) -> PolicyValue:
    rows = found.rows(policy)
    return PolicyValue(
        *_rounded(mean_interval(judged.contributions[policy], judged.clusters)), estimator=DOUBLY_ROBUST,
        ess=round(off_policy.effective_sample_size(rows.own_weight), 1),
        max_weight=round(float(rows.own_weight.max(initial=0.0)), DIGITS),
        estimators={name: round(float(estimator(rows).mean()), DIGITS) for name, estimator in ESTIMATORS.items()},
    )  # fmt: skip


def _best_static(policies: Mapping[str, PolicyValue], found: PolicyRows) -> str | None:
    """The best of those that the log can say something about."""
    known = [
        p for p, v in policies.items()
        if p.startswith(ALWAYS) and (v.ess or 0.0) >= off_policy.FEWEST_EFFECTIVE
        and off_policy.successes(found.rows(p)) >= off_policy.FEWEST_SUCCESSES
    ]  # fmt: skip
    return max(known, key=lambda p: policies[p].value, default=None)


def _verdict(own: str, against: str, found: PolicyRows, judged: _Judged, margin: float) -> tuple[Verdict, list[str]]:
    compared = [policy for policy in (own, against) if policy != LOGGED]
    refusals = [f"{p}: {doubt}" for p in compared for doubt in off_policy.doubts_of(found.rows(p), judged.clusters)]
    if refusals:
        return "refuse", refusals
    gain, value = judged.gain(own, against), float(judged.contributions[against].mean())
    told = f"gain over {against}: {gain.value:+.6f} [{gain.ci[0]:+.6f}, {gain.ci[1]:+.6f}]"
    if gain.ci[0] > 0.0:
        return "promote", [told]
    if against != LOGGED and gain.ci[0] > -margin * value:
        return "promote", [told, f"a refresh: the champion's value is at most {margin:.0%} higher"]
    return "keep", [told, "proven to be worse" if gain.ci[1] < 0.0 else "the interval does not exclude a loss"]


def _gain(interval: Interval) -> Gain:
    return Gain(*_rounded(interval))


def _rounded(interval: Interval) -> tuple[float, tuple[float, float]]:
    return round(interval.value, DIGITS), (round(interval.low, DIGITS), round(interval.high, DIGITS))
