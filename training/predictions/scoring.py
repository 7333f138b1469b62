"""`nextbest predictions score`: every customer, as of a moment, into the offline table and from there to Redis."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.contract import PREDICTIONS_VIEW, Contract
from features.homes import home_contract
from features.layout import JOIN_KEY
from features.materialize import materialize
from features.offline import EVENT_TIMESTAMP, MOMENT, write_view
from features.predictions import Prediction, home_predictions
from service.errors import NotReady
from training.predictions.models import load, predictions_registry
from training.predictions.rows import History

ROWS_AT_ONCE = 100_000


class Scored(NamedTuple):
    """How many customers have each prediction now, and which predictions have no model yet."""

    customers: dict[str, int]
    untrained: tuple[str, ...]


def score(home: Path, redis_url: str, at: float) -> Scored:
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
    values = _values(home, contract, trained, kept, at)
    names = pc.unique(pa.chunked_array([found[0] for found in values.values()], pa.string())).sort()
    columns = {name: pa.nulls(len(names), pa.float64()) for name in used} | {
        name: pa.array(rates).take(pc.index_in(names, customers)) for name, (customers, rates) in values.items()
    }
    moment = pa.array([round(at * 1e6)] * len(names), pa.int64()).cast(MOMENT)
    write_view(home, PREDICTIONS_VIEW, pa.table({JOIN_KEY: names, EVENT_TIMESTAMP: moment, **columns}))
    materialize(home, redis_url, dt.datetime.fromtimestamp(at, dt.UTC), only=PREDICTIONS_VIEW)
    return Scored({name: len(customers) for name, (customers, _) in values.items()}, untrained)


def _values(
    home: Path, contract: Contract, trained: Mapping[str, Prediction], kept: Mapping[str, str], at: float
) -> dict[str, tuple[pa.Array, np.ndarray[tuple[int], np.dtype[np.float64]]]]:
    """Customers and what is predicted of them, by feature."""
    registry, history = predictions_registry(home), History(home, contract)
    models = {name: load(registry.bundle_folder(kept[one.name]), one, history.inputs) for name, one in trained.items()}
    found = {}
    for name, one in trained.items():
        customers = history.customers(one, at)
        asked = pa.table({JOIN_KEY: customers, "at": pa.array(np.full(len(customers), at))})
        parts = [models[name].rates(history.matrix(asked.slice(s, ROWS_AT_ONCE))) for s in range(0, len(customers), ROWS_AT_ONCE)]
        found[name] = customers, np.concatenate([*parts, np.zeros(0)])
    return found
