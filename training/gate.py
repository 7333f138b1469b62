"""The gate: what must hold of a bundle besides its value before it may serve, each with its reason in words.

Every check looks at rows that the bundle has not seen, at what its manifest says of those it has, or at its files. A check
that cannot be made (a bundle of before, a value instead of a rate) holds, and says so.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import norm

from features.contract import Feature
from features.vectors import Matrix
from service.bundles.manifest import AMOUNT_FILE, BOOSTER_FILE, MODEL_FILE, InputSummary, Manifest
from service.bundles.onnx_scorer import OnnxModel
from service.catalog.entities import PRIMARY
from service.decision.engine import Engine
from service.errors import BundleRefused
from training.backfill import card
from training.calibrate import recalibrated
from training.checks import Check
from training.drift import stability_index
from training.examples import Examples, texts
from training.export import check_parity
from training.fit import VALIDATION_SHARE, FitSettings, Fitted
from training.learning_rules import GateRules
from training.policies import known_values
from training.publish import shares, summaries
from training.scores import area_under_curve, ranked
from training.segment_losses import Compared, segment_losses
from training.slots import knows_slots
from training.value_levels import by_action, level_error

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

DAY = 86_400.0
CHANCE = 0.001  # how often an honest bundle may fail one check by chance
LIKELY = 0.5  # a rank that chance makes as often as not
FAR = float(norm.isf(CHANCE / 2))  # standard errors
OTHER_ROWS = 1.0  # stability index from which rows are not those that were learned from; 0.25 is much (Siddiqi 2006)
LEAST_SHARE = 0.001  # of a bin, so that no index is infinite
OTHER_UNIT = 5.0  # times as wide, or a fifth
GONE = 0.5  # share of rows by which a value may be missing more often, or less
FEW_VALUES = 12  # of a category that is a segment
FEWEST_ROWS = 200  # of a segment or group
FEWEST_EVENTS = 20  # successes expected there
FLAT = 1e-9  # spread of rates that are all the same
TIMED, TIMES = 64, 15  # requests that are scored at once, and how often
HIGHEST = 40.0  # a margin, beyond which a rate is 0 or 1


class Standing(NamedTuple):
    """A bundle that could serve: its manifest, its files, and an engine with it."""

    manifest: Manifest
    folder: Path
    engine: Engine


class Evidence(NamedTuple):
    """What a bundle is judged by. `exposure`: how likely it gives an offer to each unseen row, (rows,); NaN unknown."""

    challenger: Standing
    champion: Standing | None
    unseen: Examples
    exposure: Values
    rules: GateRules = GateRules()
    is_rate: bool = True  # whether the bundle predicts the rate that the rows tell
    is_value: bool = False  # whether it predicts the value that they tell
    compared: Compared | None = None  # the rows as challenger and champion see them, where another bundle serves

    def inputs(self, standing: Standing) -> Matrix:
        """The unseen rows as a bundle would meet them."""
        attributes = {action.id: action.attributes for action in standing.engine.actions}
        return self.unseen.matrix(standing.manifest.inputs, attributes)


class _Seen(NamedTuple):
    """Rates of the served actions by the reference, ONNX Runtime row by row: (rows,). `old`: the champion's, where it serves.

    `clusters`: whose each row is, 0 to the number of customers.
    """

    evidence: Evidence
    inputs: Matrix
    new: Values
    old: Values | None
    clusters: npt.NDArray[np.intp]

    @property
    def label(self) -> Values:
        return self.evidence.unseen.label

    @property
    def success(self) -> Values:
        """Whether a row brought anything, where labels are values; else the labels."""
        return (self.label > 0).astype(np.float64) if self.evidence.is_value else self.label

    @property
    def is_flat(self) -> bool:
        """Whether it tells nothing apart but slots, if those."""
        strata = np.zeros(len(self.new), np.int64) if self.strata is None else self.strata
        return all(float(np.ptp(self.new[strata == one])) <= FLAT for one in np.unique(strata).tolist())

    @property
    def strata(self) -> npt.NDArray[np.int64] | None:
        """Within which rows are ranked: where a bundle knows the slots, to tell them apart is no skill of it. (rows,)."""
        standings = (self.evidence.challenger, self.evidence.champion)
        known = any(one is not None and knows_slots(one.manifest.inputs) for one in standings)
        return self.evidence.unseen.slot if known else None


def gate(evidence: Evidence) -> tuple[Check, ...]:
    """Every check of a bundle, in order: as `MADE_ALWAYS` and `MADE_OF_RATES` list them."""
    challenger, champion = evidence.challenger, evidence.champion
    inputs = evidence.inputs(challenger)
    alike = champion is not None and _what(champion) == _what(challenger)
    old = _rates(champion, evidence.inputs(champion)) if champion is not None and alike else None
    clusters = np.unique(evidence.unseen.customer_id, return_inverse=True)[1]
    seen = _Seen(evidence, inputs, _rates(challenger, inputs), old, clusters)
    checks = [*MADE_ALWAYS, *(MADE_OF_RATES if evidence.is_rate else MADE_OF_VALUES if evidence.is_value else ())]
    return tuple(_told(name, check(seen)) for name, check in checks)


def _what(standing: Standing) -> tuple[str, str]:
    """What a bundle predicts."""
    return standing.manifest.objective, standing.manifest.predicts


def _told(name: str, found: str | Sequence[str]) -> Check:
    """`found`: a text where all is well, else reasons against it."""
    return Check(name, isinstance(found, str), found if isinstance(found, str) else "; ".join(found))


def _rates(standing: Standing, inputs: Matrix) -> Values:
    model = OnnxModel((standing.folder / MODEL_FILE).read_bytes(), len(standing.manifest.inputs))
    return model.rates(inputs)


Found = str | Sequence[str]


def _parity(seen: _Seen) -> Found:
    """The exported model against LightGBM's own text, on rows that break exporters."""
    manifest, folder = seen.evidence.challenger.manifest, seen.evidence.challenger.folder
    try:
        fitted = _fitted(manifest, folder)
        worst = check_parity((folder / MODEL_FILE).read_bytes(), fitted, seen.inputs, manifest.seed)
    except (OSError, lightgbm.basic.LightGBMError) as error:
        return [f"expected LightGBM's text beside the model, found none that can be read: {error}"]
    except BundleRefused as error:
        return [str(error)]
    return f"within {worst:.1e} of LightGBM"


def _fitted(manifest: Manifest, folder: Path) -> Fitted:
    """Both parts of a value, or the rate, from LightGBM's own text. Raises OSError and LightGBMError."""
    rate = lightgbm.Booster(model_str=(folder / BOOSTER_FILE).read_text(encoding="utf-8"))
    fitted = Fitted(rate, manifest.calibration, manifest.inputs, FitSettings(), {})
    if manifest.amount_calibration is None:
        return replace(fitted, learned="uplift") if manifest.predicts == "uplift" else fitted
    amount = lightgbm.Booster(model_str=(folder / AMOUNT_FILE).read_text(encoding="utf-8"))
    return replace(fitted, amount=Fitted(amount, manifest.amount_calibration, manifest.inputs, FitSettings(), {}, "amount"))


def _inputs(seen: _Seen) -> Found:
    """Whether the rows that were learned from look like those that are served."""
    manifest = seen.evidence.challenger.manifest
    reasons = list(_lacking(seen.evidence))
    if not manifest.learned_inputs:
        return reasons or "the bundle does not say what it learned from"
    now = summaries(manifest.inputs, seen.inputs)
    for column, feature in enumerate(manifest.inputs):
        then = manifest.learned_inputs.get(feature.key)
        # the time goes on, and what goes together is shown more often by whoever has learned it: its two sides are looked at;
        # how long lists are is the placements' to say
        if then is not None and feature.origin not in ("request_time", "slot") and feature.matches is None:
            reasons += _other_input(feature, then, now[feature.key], seen.inputs[:, column])
    return reasons or "; ".join([f"{len(manifest.inputs)} inputs look as they did", *card(manifest.backfilled)])


def _lacking(evidence: Evidence) -> Iterator[str]:
    if evidence.champion is not None:
        known = {feature.key for feature in evidence.challenger.manifest.inputs}
        for feature in evidence.champion.manifest.inputs:
            if feature.key not in known and feature.origin != "slot":
                yield f"`{feature.key}` is not among the inputs, the champion has it"


def _other_input(feature: Feature, then: InputSummary, now: InputSummary, values: Matrix) -> Iterator[str]:
    if abs(then.missing - now.missing) > GONE:
        yield f"`{feature.key}` was missing in {then.missing:.0%} of the rows learned from, in {now.missing:.0%} of those served"
        return
    if not then.edges or not now.edges:
        return
    wide = [summary.high - summary.low for summary in (then, now)]
    if min(wide) > 0.0 and not 1 / OTHER_UNIT < wide[0] / wide[1] < OTHER_UNIT:
        times = wide[0] / wide[1]
        yield f"`{feature.key}` was {times:.3g} times as wide in the rows learned from as in those served: another unit?"
        return
    here = shares(values, np.array(then.edges, np.float32))
    index = stability_index(np.maximum(then.shares, LEAST_SHARE), np.maximum(here, LEAST_SHARE))
    if index > OTHER_ROWS:
        yield f"`{feature.key}` has moved since: stability index {index:.2f}, {OTHER_ROWS:g} is another column"


def _age(seen: _Seen) -> Found:
    evidence = seen.evidence
    until, champion = evidence.challenger.manifest.learned_until, evidence.champion
    if until is None:
        return "the bundle does not say how new its rows are"
    reasons, age = [], (float(evidence.unseen.decided_at.max()) - until) / DAY
    if age > evidence.rules.oldest_days:
        reasons.append(
            f"stale: its newest row is {age:.1f} days older than the newest one here, {evidence.rules.oldest_days:g} may be"
        )
    if champion is not None and (before := champion.manifest.learned_until) is not None and until < before - 1.0:
        reasons.append(f"stale: it has learned from rows until {(before - until) / DAY:.1f} days before the champion's")
    return reasons or f"its newest row is {max(0.0, age):.1f} days older than the newest one here"


def _size(seen: _Seen) -> Found:
    rules, size = seen.evidence.rules, (seen.evidence.challenger.folder / MODEL_FILE).stat().st_size
    champion = seen.evidence.champion
    before = None if champion is None else (champion.folder / MODEL_FILE).stat().st_size
    reasons = []
    if size > rules.most_bytes:
        reasons.append(f"the model has {size:,} bytes, {rules.most_bytes:,} may be")
    if before is not None and size > max(rules.small_bytes, rules.most_times * before):
        reasons.append(
            f"the model has {size:,} bytes, {size / before:.1f} times the champion's; {rules.most_times:g} times may be"
        )
    return reasons or f"{size:,} bytes"


def _latency(seen: _Seen) -> Found:
    """The best of several times, in turn with the champion."""
    rules, standing = seen.evidence.rules, [seen.evidence.challenger]
    if seen.evidence.champion is not None:
        standing.append(seen.evidence.champion)
    best = scoring_ms([(one.engine, _requests(one, seen.evidence.unseen)) for one in standing])
    reasons = []
    if best[0] > rules.most_ms:
        reasons.append(f"a request is scored in {best[0]:.2f} ms, {rules.most_ms:g} may be")
    if len(best) > 1 and best[0] > rules.most_times * best[1]:
        times = best[0] / best[1]
        reasons.append(
            f"a request is scored in {best[0]:.3f} ms, {times:.1f} times the champion's; {rules.most_times:g} times may be"
        )
    return reasons or f"a request is scored in {best[0]:.3f} ms"


def scoring_ms(engines: Sequence[tuple[Engine, Matrix]]) -> Values:
    """How long each engine takes to score one of its requests, milliseconds: the best of several times, in turn, (engines,)."""
    best = np.full(len(engines), np.inf)
    for _ in range(TIMES):
        for place, (engine, requests) in enumerate(engines):
            begun = time.perf_counter()
            engine.scorers[PRIMARY].score(requests)
            best[place] = min(best[place], (time.perf_counter() - begun) * 1e3 / len(requests))
    return best


def _requests(standing: Standing, unseen: Examples) -> Matrix:
    """Some rows as a scorer takes them."""
    encoder = standing.engine.encoders[PRIMARY]
    some = unseen.take(np.arange(min(TIMED, len(unseen))))
    return encoder.encode(known_values(some, "customer"), known_values(some, "context"))


def _leak(seen: _Seen) -> Found:
    """What only an outcome could have told: a jump of the AUC, or one input that tells it alone."""
    rules, auc = seen.evidence.rules, ranked(seen.success, seen.new, seen.strata)[0]
    reasons = []
    if seen.old is not None:
        before = ranked(seen.success, seen.old, seen.strata)[0]
        if auc > before + rules.auc_jump:
            reasons.append(f"leak? AUC jumps from the champion's {before:.3f} to {auc:.3f}; {rules.auc_jump:g} more may be")
    elif auc > rules.auc_best:
        reasons.append(f"leak? AUC {auc:.3f}, {rules.auc_best:g} may be")
    for column, feature in enumerate(seen.evidence.challenger.manifest.inputs):
        alone = 0.5 if feature.origin == "slot" else _alone(seen.success, seen.inputs[:, column], feature)
        if alone > rules.auc_alone:
            reasons.append(f"leak? `{feature.key}` alone tells the outcome with AUC {alone:.3f}: is it known only afterwards?")
    if reasons and (told := card(seen.evidence.challenger.manifest.backfilled)):
        reasons.append(f"backfilled, which is a usual way for a leak to come in: {', '.join(told)}")
    return reasons or f"AUC {auc:.3f}"


def _alone(label: Values, column: Matrix, feature: Feature) -> float:
    """How well one input tells the outcome: in either direction, or by being missing."""
    missing = np.isnan(column)
    if feature.type == "category":
        codes = np.where(missing, -1.0, column)
        _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
        told = (np.bincount(inverse, label) / counts)[inverse]
        return area_under_curve(label, told) if len(counts) <= FEW_VALUES else 0.5
    there = ~missing
    found = [area_under_curve(label[there], column[there].astype(np.float64)) if there.any() else 0.5]
    if there.any() and missing.any():
        found.append(area_under_curve(label, missing.astype(np.float64)))
    return max(max(auc, 1.0 - auc) for auc in found)


def _skill(seen: _Seen) -> Found:
    """Mann and Whitney's test (1947) that successes are ranked above failures; rows of one customer may go together."""
    if seen.is_flat:
        return [f"constant: it predicts {seen.new[0]:.4f} for every row" + ("" if seen.strata is None else " of a slot")]
    auc, above, below = ranked(seen.label, seen.new, seen.strata, seen.clusters)
    if below < CHANCE:
        return [f"successes are ranked below failures: AUC {auc:.3f}, is a sign flipped?"]
    if above > CHANCE:
        return [f"no skill: AUC {auc:.3f}, which chance may give (p {above:.2g})"]
    return f"AUC {auc:.3f}"


def _calibration(seen: _Seen) -> Found:
    """The level of the rates, and the slope of a logistic calibration on new rows (Cox 1958).

    Both were fitted on few rows, the last of those that were learned from: what chance did there is no fault.
    """
    reasons = list(_off_level(seen, np.ones(len(seen.new), np.bool_), seen.evidence.rules.level))
    told = f"predicted {seen.new.mean():.4f}, observed {seen.label.mean():.4f}"
    if not seen.is_flat:
        slope, error = recalibrated(_margins(seen.new), seen.label)
        error *= (1.0 + float(seen.label.sum()) / _fitted_on(seen)) ** 0.5
        if abs(slope - 1.0) > seen.evidence.rules.slope and abs(slope - 1.0) > FAR * error:
            reasons.append(
                f"uncalibrated: the slope on new rows is {slope:.2f} +- {error:.2f}, 1 +- {seen.evidence.rules.slope:g} may be"
            )
        told += f", slope {slope:.2f}"
    return reasons or told


def _value_calibration(seen: _Seen) -> Found:
    """What was predicted in total beside what came, of all rows and of each action's."""
    rules = seen.evidence.rules
    reasons = list(_off_level(seen, np.ones(len(seen.new), np.bool_), rules.level))
    told = [f"predicted {seen.new.mean():.4f}, observed {seen.label.mean():.4f}"]
    for action, rows in by_action(seen.evidence.unseen.action_id, FEWEST_ROWS):
        reasons += [f"`{action}` {reason}" for reason in _off_level(seen, rows, rules.segment_level)]
        told.append(f"`{action}` {seen.new[rows].mean():.4f}, {seen.label[rows].mean():.4f}")
    return reasons or "; ".join(told)


def _fitted_on(seen: _Seen) -> float:
    """About how many successes the calibration has seen."""
    manifest = seen.evidence.challenger.manifest
    return max(1.0, VALIDATION_SHARE * manifest.rows * manifest.base_rate)


def _off_level(seen: _Seen, rows: Mask, within: float) -> Iterator[str]:
    rates, label = seen.new[rows], seen.label[rows]
    predicted, observed = float(rates.mean()), float(label.mean())
    if seen.evidence.is_value:
        error = level_error(label, rates, seen.evidence.challenger.manifest.metrics.get("amounts", 0.0))
    else:
        together = float((np.bincount(seen.clusters[rows], label - rates) ** 2).sum())  # as rows of one customer may go
        here = max(float((rates * (1.0 - rates)).sum()), together) / len(rates) ** 2
        error = (here + predicted**2 / _fitted_on(seen)) ** 0.5
    if abs(predicted - observed) > max(within * observed, FAR * error):
        yield f"uncalibrated: predicted {predicted:.4f}, observed {observed:.4f}; {within:.0%} off may be"


def _margins(rates: Values) -> Values:
    with np.errstate(divide="ignore"):
        margins: Values = np.clip(np.log(rates) - np.log1p(-rates), -HIGHEST, HIGHEST)
    return margins


def _segments(seen: _Seen) -> Found:
    """Whether the rates collapse in one of the segments: their level, or what the champion still tells apart there."""
    known, looked = seen.evidence.unseen.values, 0
    undeclared = [key for key in seen.evidence.rules.segments if key not in known]
    reasons = [f"`{key}` is declared in learning.toml, the rows do not have it" for key in undeclared]
    for name, rows in _groups(seen):
        label, rates = seen.label[rows], seen.new[rows]
        if max(label.sum(), rates.sum()) < FEWEST_EVENTS * _worth(seen):
            continue
        looked += 1
        if list(_off_level(seen, rows, seen.evidence.rules.segment_level)):
            reasons.append(f"{name} collapsed: predicted {rates.mean():.4f}, observed {label.mean():.4f} on {len(rates):,} rows")
        elif seen.old is not None and _fades(seen, seen.old, rows):
            reasons.append(f"{name} collapsed: no skill on {len(rates):,} rows, where the champion has some")
    return reasons or f"{looked} segments hold"


def _fades(seen: _Seen, old: Values, rows: Mask) -> bool:
    """Whether nothing is told apart any more where the champion tells something."""
    strata, clusters = None if seen.strata is None else seen.strata[rows], np.unique(seen.clusters[rows], return_inverse=True)[1]
    new, before = (ranked(seen.label[rows], rates[rows], strata, clusters) for rates in (seen.new, old))
    return new[1] > LIKELY and before[1] < CHANCE


def _worth(seen: _Seen) -> float:
    """What one success brings: 1, or the mean of the values."""
    return float(seen.label.sum() / max(1.0, seen.success.sum())) if seen.evidence.is_value else 1.0


def _groups(seen: _Seen) -> Iterator[tuple[str, Mask]]:
    """Segments of enough rows, by name; the placements are segments, too."""
    unseen, rules = seen.evidence.unseen, seen.evidence.rules
    columns = [f for f in seen.evidence.challenger.manifest.inputs if f.scope != "action" and f.type == "category"]
    keys = rules.segments or tuple(feature.key for feature in columns)
    named = [("placement", unseen.placement), *((key, texts(unseen.values[key])) for key in keys if key in unseen.values)]
    for key, found in named:
        distinct, counts = np.unique(found, return_counts=True)
        if len(distinct) <= FEW_VALUES or rules.segments:
            for value in distinct[counts >= FEWEST_ROWS].tolist():
                yield f"`{key}` = {value or 'missing'}", found == value


def _fairness(seen: _Seen) -> Found:
    """How likely groups are to be given an offer, the least likely beside the most likely one."""
    rules, unseen = seen.evidence.rules, seen.evidence.unseen
    reasons, told = [], []
    for key in rules.fairness:
        if key not in unseen.values:
            reasons.append(f"`{key}` is declared in learning.toml, the rows do not have it")
            continue
        shares = dict(_exposures(unseen.values[key], seen.evidence.exposure))
        if len(shares) > 1:
            least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
            words = f"`{key}`: {least} is given an offer in {shares[least]:.1%}, {most} in {shares[most]:.1%}"
            told.append(words)
            if shares[least] < rules.least_exposure * shares[most]:
                reasons.append(f"unfair by {words}; {rules.least_exposure:.0%} of it must be")
    return reasons or "; ".join(told) or "no attribute is declared"


def _losses(seen: _Seen) -> Found:
    """Whether customers of one kind lose what the others gain."""
    rules, compared = seen.evidence.rules, seen.evidence.compared
    if compared is None:
        return "no other bundle serves, which a segment could lose"
    losses = segment_losses(compared, _groups(seen))
    reasons = [f"{one.told()}; {rules.segment_loss:.0%} may be" for one in losses if one.is_beyond(rules.segment_loss)]
    return reasons or f"{len(losses)} segments keep what they have"


def _exposures(column: pa.Array, exposure: Values) -> Iterator[tuple[str, float]]:
    """Numbers are grouped by thirds."""
    found = _thirds(column) if pa.types.is_floating(column.type) else texts(column)
    for name in np.unique(found).tolist():
        rows = (found == name) & ~np.isnan(exposure)
        if rows.sum() >= FEWEST_ROWS:
            yield name or "missing", float(exposure[rows].mean())


def _thirds(column: pa.Array) -> npt.NDArray[np.str_]:
    values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    there = ~np.isnan(values)
    edges = np.unique(np.quantile(values[there], (1 / 3, 2 / 3))) if there.any() else np.zeros(0)
    bounds = ["-inf", *(f"{edge:g}" for edge in edges), "inf"]
    names = np.array([*(f"{low} to {high}" for low, high in itertools.pairwise(bounds)), ""], np.str_)
    return names[np.where(there, np.searchsorted(edges, values), len(names) - 1)]


MADE_ALWAYS: tuple[tuple[str, Callable[[_Seen], Found]], ...] = (
    ("parity", _parity), ("inputs", _inputs), ("age", _age), ("size", _size), ("latency", _latency), ("fairness", _fairness),
    ("losses", _losses),
)  # fmt: skip
MADE_OF_RATES: tuple[tuple[str, Callable[[_Seen], Found]], ...] = (
    ("leak", _leak), ("skill", _skill), ("calibration", _calibration), ("segments", _segments),
)  # fmt: skip
MADE_OF_VALUES: tuple[tuple[str, Callable[[_Seen], Found]], ...] = (
    ("leak", _leak), ("skill", _skill), ("calibration", _value_calibration), ("segments", _segments),
)  # fmt: skip
