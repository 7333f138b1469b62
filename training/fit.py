"""Learning a rate or a value: gradient-boosted trees on float32, then a calibration of their margin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import lightgbm
import msgspec
import numpy as np
import numpy.typing as npt

from features.contract import ACTION_ID, Feature
from features.vectors import Matrix
from service.bundles.manifest import Calibration
from service.errors import NotReady
from training.calibrate import IDENTITY, fit_level, fit_platt, sigmoid
from training.scores import scores
from training.threads import threads_for

Values = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]  # (done, of so many)

VALIDATION_SHARE = 0.2  # the last rows as given: they stop the training and calibrate it
FEWEST_ROWS = 200
FEWEST_POSITIVES = 20
Learned = Literal["rate", "count", "sum", "amount", "uplift"]
POWER = 1.5  # of Tweedie's variance for sums: between a count and a gamma, with a mass at zero. Joergensen 1987
OBJECTIVES: dict[Learned, dict[str, Any]] = {
    "rate": {"objective": "binary", "metric": "binary_logloss"},
    "count": {"objective": "poisson", "metric": "poisson"},
    "sum": {"objective": "tweedie", "metric": "tweedie", "tweedie_variance_power": POWER},
    "amount": {"objective": "gamma", "metric": "gamma"},
    "uplift": {"objective": "regression", "metric": "l2"},
}


class FitSettings(msgspec.Struct, frozen=True):
    """Modest by default: 16,000 rows of a rate near 0.15 must not be learned by heart."""

    seed: int = 0
    threads: int = 2
    rounds: int = 300
    learning_rate: float = 0.05
    leaves: int = 15
    rows_per_leaf: int = 100
    ridge: float = 5.0  # LightGBM's lambda_l2: 0.25 % less log loss than 0 on 10,000 simulated rows
    patience: int = 30  # rounds without improvement on the validation rows
    identity_dropout: float = 0.1  # share of rows that hide the action's id, so that its attributes must explain it
    monotone: dict[str, int] = {}  # by input (`customer.engagement`): 1 it never lowers what is predicted, -1 it never raises it

    def figures(self) -> dict[str, float]:
        """All of them as numbers by name."""
        plain = {name: float(value) for name, value in msgspec.structs.asdict(self).items() if name != "monotone"}
        return plain | {f"monotone.{key}": float(way) for key, way in self.monotone.items()}


class Growth(NamedTuple):
    """What trees are grown from, and what says when to stop. float32 (rows, columns), (rows,)."""

    shown: Matrix
    labels: Values
    check: Matrix
    check_labels: Values
    parameters: dict[str, Any]  # LightGBM's
    settings: FitSettings
    learned: Learned
    progress: Progress | None
    weights: Values | None = None  # of the rows, where they do not count alike
    check_weights: Values | None = None


Grow = Callable[[Growth], lightgbm.Booster]  # its `best_iteration` says how many trees count


@dataclass(frozen=True)
class Fitted:
    """A trained and calibrated model of a rate, of a value from 0, or of an uplift. `metrics`: on the validation rows.

    With an `amount`, what is predicted is the rate of values above zero, times that amount of one.
    """

    booster: lightgbm.Booster
    calibration: Calibration
    columns: tuple[Feature, ...]
    settings: FitSettings
    metrics: dict[str, float]
    learned: Learned = "rate"
    amount: "Fitted | None" = None

    @property
    def parts(self) -> tuple["Fitted", ...]:
        """What is multiplied: itself alone, or the rate and the amount."""
        return (self,) if self.amount is None else (replace(self, amount=None), self.amount)

    @property
    def rounds(self) -> int:
        """Trees that count."""
        return int(self.booster.best_iteration)

    def rates(self, inputs: Matrix) -> Values:
        """The reference: predicted rates, or values, computed in float64. float32 (rows, columns) -> (rows,)."""
        if self.amount is not None:
            return replace(self, amount=None).rates(inputs) * self.amount.rates(inputs)
        calibrated = self.calibration.slope * margins(self.booster, inputs) + self.calibration.intercept
        if self.learned == "uplift":
            return calibrated
        return sigmoid(calibrated) if self.learned == "rate" else np.exp(calibrated)


def fit(
    inputs: Matrix, labels: Values, columns: Sequence[Feature], settings: FitSettings, progress: Progress | None = None,
    *, grow: Grow | None = None, weights: Values | None = None,
) -> Fitted:  # fmt: skip
    """Train on all but the last fifth of the rows. Same rows and settings, same model. `grow`: another way to get trees.

    `weights`, mean 1: how much each row counts for the trees and for when to stop. Calibration and metrics take rows as they were
    served, for that is where a rate is held to its word. Shapes: float32 (rows, columns), 0 or 1 (rows,), (rows,).
    Raises NotReady where there is too little to learn from.
    """
    if len(labels) < FEWEST_ROWS or not FEWEST_POSITIVES <= labels.sum() <= len(labels) - FEWEST_POSITIVES:
        raise NotReady(
            f"Expected at least {FEWEST_ROWS} rows with {FEWEST_POSITIVES} successes and failures, found {len(labels)} rows with "
            f"{labels.sum():.0f} successes"
        )
    growth, cut = growth_of(inputs, labels, columns, settings, learned="rate", progress=progress, weights=weights)
    booster = (grow or grow_here)(growth)
    return _calibrated(booster, inputs[cut:], labels[cut:], tuple(columns), settings)


def fit_value(
    inputs: Matrix, labels: Values, columns: Sequence[Feature], settings: FitSettings, *,
    learned: Learned, progress: Progress | None = None,
) -> Fitted:  # fmt: skip
    """Train a count or a sum in the same way; what is corrected afterwards is its level. Raises NotReady.

    Shapes: float32 (rows, columns), numbers of 0 and above (rows,).
    """
    if len(labels) < FEWEST_ROWS or (labels > 0).sum() < FEWEST_POSITIVES or labels.min() < 0:
        raise NotReady(
            f"Expected at least {FEWEST_ROWS} rows of 0 and above with {FEWEST_POSITIVES} above, found {len(labels)} rows, "
            f"{(labels > 0).sum()} above and {(labels < 0).sum()} below"
        )
    growth, cut = growth_of(inputs, labels, columns, settings, learned=learned, progress=progress)
    booster = grow_here(growth)
    calibration = fit_level(margins(booster, inputs[cut:]), labels[cut:])
    return Fitted(booster, calibration, tuple(columns), settings, {}, learned)


def growth_of(
    inputs: Matrix, labels: Values, columns: Sequence[Feature], settings: FitSettings, *,
    learned: Learned, progress: Progress | None, weights: Values | None = None,
) -> tuple[Growth, int]:  # fmt: skip
    """Trees come from all rows but the last fifth, which says when to stop; where that fifth begins."""
    cut = int(len(labels) * (1 - VALIDATION_SHARE))
    shown, parameters = (
        _hide_identities(inputs[:cut], columns, settings),
        parameters_of(settings, cut, columns) | OBJECTIVES[learned],
    )
    growth = Growth(shown, labels[:cut], inputs[cut:], labels[cut:], parameters, settings, learned, progress)
    return growth if weights is None else growth._replace(weights=weights[:cut], check_weights=weights[cut:]), cut


def grow_here(growth: Growth) -> lightgbm.Booster:
    """Trees until the checked rows gain nothing any more."""
    names = [f"c{i}" for i in range(growth.shown.shape[1])]  # LightGBM refuses some characters of ours
    quiet = {"feature_pre_filter": False, "verbosity": -1, "num_threads": growth.parameters["num_threads"]}
    train = lightgbm.Dataset(growth.shown, growth.labels, weight=growth.weights, feature_name=names, params=quiet)
    check = lightgbm.Dataset(growth.check, growth.check_labels, weight=growth.check_weights, reference=train)
    settings = growth.settings
    callbacks = [lightgbm.early_stopping(settings.patience, verbose=False), _Told(growth.progress, settings.rounds)]
    return lightgbm.train(growth.parameters, train, settings.rounds, valid_sets=[check], callbacks=callbacks)


def _calibrated(
    booster: lightgbm.Booster, inputs: Matrix, labels: Values, columns: tuple[Feature, ...], settings: FitSettings
) -> Fitted:
    enough = FEWEST_POSITIVES <= labels.sum() <= len(labels) - FEWEST_POSITIVES
    calibration = fit_platt(margins(booster, inputs), labels) if enough else IDENTITY
    fitted = Fitted(booster, calibration, columns, settings, {})
    return Fitted(booster, calibration, columns, settings, scores(labels, fitted.rates(inputs)))


def margins(booster: lightgbm.Booster, inputs: Matrix) -> Values:
    """Sums of the leaves, before calibration: (rows,)."""
    found: Values = booster.predict(
        inputs, raw_score=True, num_iteration=booster.best_iteration, num_threads=threads_for(len(inputs))
    )
    return found


def parameters_of(settings: FitSettings, rows: int, columns: Sequence[Feature] = ()) -> dict[str, Any]:
    """Those of LightGBM that do not depend on what is learned. `rows`: how many trees are grown from."""
    monotone = [settings.monotone.get(feature.key, 0) for feature in columns]
    return {
        **({"monotone_constraints": monotone, "monotone_constraints_method": "intermediate"} if any(monotone) else {}),
        "learning_rate": settings.learning_rate, "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.rows_per_leaf, "lambda_l2": settings.ridge, "seed": settings.seed,
        "num_threads": threads_for(rows, settings.threads),
        "deterministic": True, "force_col_wise": True, "zero_as_missing": False, "verbosity": -1, "feature_pre_filter": False,
    }  # fmt: skip


def _hide_identities(inputs: Matrix, columns: Sequence[Feature], settings: FitSettings) -> Matrix:
    """Some rows without the action's id, where attributes can take its place: a new action is scored from those."""
    positions = [i for i, c in enumerate(columns) if c.scope == "action"]
    identity = next((i for i in positions if columns[i].name == ACTION_ID), None)
    if identity is None or len(positions) == 1:
        return inputs
    hidden = inputs.copy()
    rows = np.random.default_rng(settings.seed).random(len(inputs)) < settings.identity_dropout
    hidden[rows, identity] = np.nan
    return hidden


class _Told:
    """Tells the progress after each round."""

    def __init__(self, progress: Progress | None, rounds: int) -> None:
        self._progress = progress
        self._rounds = rounds

    def __call__(self, environment: Any) -> None:  # noqa: ANN401  # LightGBM's callback environment has no public type
        if self._progress is not None:
            self._progress(environment.iteration + 1, self._rounds)
