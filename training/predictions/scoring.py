"""`nextbest predictions score`: every customer, as of a moment, into the offline table and from there to Redis."""

import datetime as dt
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.contract import PREDICTIONS_VIEW, Contract
from features.homes import home_contract
from features.layout import JOIN_KEY
from features.materialize import BEGINNING, materialize
from features.offline import EVENT_TIMESTAMP, MOMENT, write_view
from features.predictions import Prediction, home_predictions
from service.errors import NotReady
from training.predictions.models import load, predictions_registry
from training.predictions.rows import History
from training.spreading import ALONE, Workers, spread

ROWS_AT_ONCE = 100_000

Rates = npt.NDArray[np.float64]


class Scored(NamedTuple):
    """How many customers have each prediction now, and which predictions have no model yet."""

    customers: dict[str, int]
    untrained: tuple[str, ...]


def score(home: Path, redis_url: str, at: float, workers: Workers = ALONE) -> Scored:
    """Write what the kept models say of everybody as of a moment, which is the age of it. `at`: seconds since 1970 UTC.

    Raises NotReady where no feature has a trained prediction, BundleRefused where one was trained for another contract.
    """
    contract = home_contract(home)
    declared = home_predictions(home, contract)
    used = {f.name: declared[f.prediction] for f in contract.features if f.prediction is not None}
    kept = predictions_registry(home).current().others
    trained = {name: one for name, one in used.items() if one.name in kept}
    untrained = tuple(sorted({one.name for one in used.values() if one.name not in kept}))
    if not trained:
        raise NotReady(
            f"Expected a feature in features.yaml with `prediction:` and a trained model, found {len(used)} such features "
            "and no model of them: run `nextbest predictions train`"
        )
    values = _values(home, contract, {name: (one, kept[one.name]) for name, one in trained.items()}, at, workers)
    names = pc.unique(pa.chunked_array([found[0] for found in values.values()], pa.string())).sort()
    columns = {name: pa.nulls(len(names), pa.float64()) for name in used} | {
        name: pa.array(rates).take(pc.index_in(names, customers)) for name, (customers, rates) in values.items()
    }
    moment = pa.array([instant(at)] * len(names), MOMENT)
    write_view(home, PREDICTIONS_VIEW, pa.table({JOIN_KEY: names, EVENT_TIMESTAMP: moment, **columns}))
    materialize(home, redis_url, instant(at), only=PREDICTIONS_VIEW)
    return Scored({name: len(customers) for name, (customers, _) in values.items()}, untrained)


def instant(at: float) -> dt.datetime:
    """A moment in whole microseconds, by one rounding for all: a copy to Redis that ends just before the rows copies none."""
    return BEGINNING + dt.timedelta(microseconds=round(at * 1e6))


class _Slice(NamedTuple):
    """Some customers of one prediction, as a process is told of them: `model` is kept for the feature of this name."""

    home: Path
    feature: str
    prediction: Prediction
    model: str
    at: float
    customers: pa.Array
    start: int


def _values(
    home: Path, contract: Contract, asked: Mapping[str, tuple[Prediction, str]], at: float, workers: Workers
) -> dict[str, tuple[pa.Array, Rates]]:
    """Customers and what is predicted of them, by feature. `asked`: a prediction and its model for each."""
    _histories.clear()
    history = _histories[home, at] = History(home, contract)
    customers = {name: history.customers(one, at) for name, (one, _) in asked.items()}
    size = max(1, min(ROWS_AT_ONCE, math.ceil(max(map(len, customers.values())) / workers.how_many())))
    slices = [
        _Slice(home, name, one, model, at, customers[name].slice(start, size), start)
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


def score_slice(some: _Slice) -> tuple[str, int, Rates]:
    """What is predicted of some customers: the feature, where the slice starts, (customers,)."""
    with _lock:
        history = _histories.get((some.home, some.at))
        if history is None:
            _histories.clear()
            history = _histories[some.home, some.at] = History(some.home, home_contract(some.home))
        folder = predictions_registry(some.home).bundle_folder(some.model)
        asked = pa.table({JOIN_KEY: some.customers, "at": pa.array(np.full(len(some.customers), some.at))})
        return some.feature, some.start, load(folder, some.prediction, history.inputs).rates(history.matrix(asked))
