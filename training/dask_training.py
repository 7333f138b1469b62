"""Trees grown on a Dask cluster by LightGBM's own distributed training: rows stay where they are, workers share histograms."""

import contextlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dask.array as da
import lightgbm
import lightgbm.dask
import numpy as np
import numpy.typing as npt
from distributed import Client, LocalCluster

from features.vectors import Matrix
from service.errors import NotReady
from training.dask_cluster import connected
from training.fit import POWER, Grow, Growth, Learned

Values = npt.NDArray[np.float64]
MODELS: dict[Learned, Any] = {
    "rate": lightgbm.dask.DaskLGBMClassifier, "count": lightgbm.dask.DaskLGBMRegressor, "sum": lightgbm.dask.DaskLGBMRegressor,
    "amount": lightgbm.dask.DaskLGBMRegressor,
}  # fmt: skip
LOCAL = ("num_threads", "metric", "deterministic")  # parameters that a cluster sets itself, or does not keep
HIGHEST = 700.0  # of a margin whose exponential is a number


def grow_on(scheduler: str | None, processes: int) -> Grow:
    """A way to get trees: on the cluster of a scheduler, or, without one, on so many processes of this machine's loopback.

    Raises NotReady where LightGBM lacks what it needs for that.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise NotReady("Expected scikit-learn, found that it is not installed: pip install 'nextbest[cluster]'")

    def grow(growth: Growth) -> lightgbm.Booster:
        with _client(scheduler, processes) as client:
            return _grown(growth, client)

    return grow


@contextlib.contextmanager
def _client(scheduler: str | None, processes: int) -> Iterator[Client]:
    if scheduler is not None:
        with connected(scheduler) as client:
            yield client
        return
    cluster = LocalCluster(n_workers=processes, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0")
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


def _grown(growth: Growth, client: Client) -> lightgbm.Booster:
    """All rounds are grown, for workers do not see the checked rows; those rows say afterwards how many count."""
    parameters = {name: value for name, value in growth.parameters.items() if name not in LOCAL}
    model = MODELS[growth.learned](client=client, n_estimators=growth.settings.rounds, **parameters)
    parts = max(1, len(client.scheduler_info()["workers"]))
    try:
        with client.as_current(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Parameter n_jobs will be ignored", UserWarning)  # set by LightGBM itself
            model.fit(
                _spread(growth.shown, client, parts), _spread(growth.labels, client, parts),
                sample_weight=None if growth.weights is None else _spread(growth.weights, client, parts),
            )  # fmt: skip
    except lightgbm.basic.LightGBMError as error:
        raise NotReady(f"Expected the workers to train together, found: {error} - at `--engine dask`") from error
    booster = lightgbm.Booster(model_str=model.booster_.model_to_string())
    booster.best_iteration = best_round(booster, growth)
    if growth.progress is not None:
        growth.progress(growth.settings.rounds, growth.settings.rounds)
    return booster


def _spread(rows: npt.NDArray[Any], client: Client, parts: int) -> Any:  # noqa: ANN401  # Dask publishes no types
    """Rows in as many parts as there are workers, sent there: float32 (rows, columns), or (rows,)."""
    pieces = np.array_split(rows, parts)
    sent = client.scatter(pieces)
    arrays = [da.from_delayed(future, piece.shape, piece.dtype) for future, piece in zip(sent, pieces, strict=True)]
    return da.concatenate(arrays)


def best_round(booster: lightgbm.Booster, growth: Growth) -> int:
    """How many trees predict the checked rows best."""
    loss, margins, found = LOSSES[growth.learned], np.zeros(len(growth.check_labels)), []
    for tree in range(booster.num_trees()):
        margins += _margins_of(booster, growth.check, tree)
        found.append(float(np.average(loss(margins, growth.check_labels), weights=growth.check_weights)))
    return int(np.argmin(found)) + 1 if found else 0


def _margins_of(booster: lightgbm.Booster, rows: Matrix, tree: int) -> Values:
    return np.asarray(booster.predict(rows, raw_score=True, start_iteration=tree, num_iteration=1, num_threads=1), np.float64)


def _log_loss(margins: Values, labels: Values) -> Values:
    return np.asarray(np.logaddexp(0.0, margins) - labels * margins)


def _poisson(margins: Values, labels: Values) -> Values:
    return np.asarray(np.exp(np.minimum(margins, HIGHEST)) - labels * margins)


def _tweedie(margins: Values, labels: Values) -> Values:
    """Joergensen 1987, without what does not depend on the margin."""
    low, high = np.exp((1 - POWER) * margins) / (1 - POWER), np.exp(np.minimum((2 - POWER) * margins, HIGHEST)) / (2 - POWER)
    return np.asarray(high - labels * low)


def _gamma(margins: Values, labels: Values) -> Values:
    """Half the deviance of a gamma (McCullagh and Nelder 1989), without what does not depend on the margin."""
    return np.asarray(labels * np.exp(np.minimum(-margins, HIGHEST)) + margins)


LOSSES: dict[Learned, Callable[[Values, Values], Values]] = {
    "rate": _log_loss, "count": _poisson, "sum": _tweedie, "amount": _gamma,
}  # fmt: skip
