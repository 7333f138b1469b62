"""Customers are scored in slices, by several processes where there are any. Nothing here needs Feast, which takes 3 s."""

import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.contract import Contract
from features.homes import home_contract
from features.layout import JOIN_KEY
from features.predictions import Prediction
from training.predictions.models import load, predictions_registry
from training.predictions.rows import History
from training.spreading import Workers, spread

ROWS_AT_ONCE = 100_000

Rates = npt.NDArray[np.float64]


class Slice(NamedTuple):
    """Some customers of one prediction, as a process is told of them: `model` is kept for the feature of this name."""

    home: Path
    feature: str
    prediction: Prediction
    model: str
    at: float
    customers: pa.Array
    start: int


def values_of(
    home: Path, contract: Contract, asked: Mapping[str, tuple[Prediction, str]], at: float, workers: Workers
) -> dict[str, tuple[pa.Array, Rates]]:
    """Customers and what is predicted of them, by feature. `asked`: a prediction and its model for each."""
    _histories.clear()
    history = _histories[home, at] = History(home, contract)
    customers = {name: history.customers(one, at) for name, (one, _) in asked.items()}
    size = max(1, min(ROWS_AT_ONCE, math.ceil(max(map(len, customers.values())) / workers.how_many())))
    slices = [
        Slice(home, name, one, model, at, customers[name].slice(start, size), start)
        for name, (one, model) in asked.items() for start in range(0, len(customers[name]), size)
    ]  # fmt: skip
    parts: dict[str, dict[int, Rates]] = {name: {} for name in asked}
    for name, start, rates in spread(score_slice, slices, workers):
        parts[name][start] = rates
    _histories.clear()
    return {
        name: (customers[name], np.concatenate([*(found[start] for start in sorted(found)), np.zeros(0)]))
        for name, found in parts.items()
    }  # fmt: skip


_histories: dict[tuple[Path, float], History] = {}  # of this process, one at most: reading it takes longer than a slice
_lock = threading.Lock()  # a Dask worker may have several threads


def score_slice(some: Slice) -> tuple[str, int, Rates]:
    """What is predicted of some customers: the feature, where the slice starts, (customers,)."""
    with _lock:
        history = _histories.get((some.home, some.at))
        if history is None:
            _histories.clear()
            history = _histories[some.home, some.at] = History(some.home, home_contract(some.home))
        folder = predictions_registry(some.home).bundle_folder(some.model)
        asked = pa.table({JOIN_KEY: some.customers, "at": pa.array(np.full(len(some.customers), some.at))})
        return some.feature, some.start, load(folder, some.prediction, history.inputs).rates(history.matrix(asked))
