"""Hyper-parameters by search: settings are tried on older rows and judged on the newer ones that follow."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import optuna

from features.contract import Feature
from features.vectors import Matrix
from service.errors import NotReady
from training.fit import FitSettings, fit
from training.scores import mean_log_loss

Values = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

CUTS = (0.5, 0.75, 1.0)  # of the rows in the order of time: learned until one, judged until the next
LEARNING_RATE = (0.01, 0.2)
LEAVES = (4, 63)
ROWS_PER_LEAF = (10, 500)
RIDGE = (0.1, 100.0)
DIGITS = 6  # of a loss: settings that differ by less are as good


class Tuned(NamedTuple):
    """The best settings that were tried, and mean log losses: theirs, and that of the settings the search began with."""

    settings: FitSettings
    loss: float
    before: float


def tune(
    inputs: Matrix, labels: Values, columns: Sequence[Feature], settings: FitSettings, trials: int, *,
    progress: Progress | None = None, weights: Values | None = None,
) -> Tuned:  # fmt: skip
    """Try so many settings, the given ones first; so the best are never worse on the judged rows. Same rows, same search.

    Rows are in the order of time: float32 (rows, columns), 0 or 1 (rows,). With `weights` (rows,), settings are learned
    and judged by them. Raises NotReady where there are too few.
    """
    blocks = list(_blocks(len(labels)))

    def loss(trial: optuna.Trial) -> float:
        tried = _suggested(trial, settings)
        found = []
        for end, until in blocks:
            before, after = (None, None) if weights is None else (weights[:end], weights[end:until])
            fitted = fit(inputs[:end], labels[:end], columns, tried, weights=before)
            found.append(round(mean_log_loss(labels[end:until], fitted.rates(inputs[end:until]), after), DIGITS))
        if progress is not None:
            progress(trial.number + 1, trials)
        return float(np.mean(found))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=settings.seed))
    study.enqueue_trial(_given(settings))
    try:
        study.optimize(loss, n_trials=trials)
    except NotReady as error:
        raise NotReady(f"{error}: too few to be parted for a search - at `--tune`") from error
    return Tuned(_suggested(study.best_trial, settings), study.best_value, float(study.trials[0].value or np.nan))


def _blocks(rows: int) -> Iterator[tuple[int, int]]:
    for end, until in itertools.pairwise(CUTS):
        yield int(rows * end), int(rows * until)


def _suggested(trial: optuna.trial.BaseTrial, settings: FitSettings) -> FitSettings:
    return msgspec.structs.replace(
        settings,
        learning_rate=trial.suggest_float("learning_rate", *_with(LEARNING_RATE, settings.learning_rate), log=True),
        leaves=trial.suggest_int("leaves", *_with(LEAVES, settings.leaves), log=True),
        rows_per_leaf=trial.suggest_int("rows_per_leaf", *_with(ROWS_PER_LEAF, settings.rows_per_leaf), log=True),
        ridge=trial.suggest_float("ridge", *_with(RIDGE, settings.ridge), log=True),
    )


def _with(bounds: tuple[float, float], given: float) -> tuple[float, float]:
    """The bounds, moved so far that what was given lies within."""
    return min(bounds[0], given), max(bounds[1], given)


def _given(settings: FitSettings) -> dict[str, float]:
    return {name: getattr(settings, name) for name in ("learning_rate", "leaves", "rows_per_leaf", "ridge")}
