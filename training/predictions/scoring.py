"""`nextbest predictions score`: every customer, as of a moment, into the offline table and from there to Redis."""

import datetime as dt
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from features.contract import PREDICTIONS_VIEW
from features.homes import home_contract
from features.layout import JOIN_KEY
from features.materialize import BEGINNING, materialize
from features.offline import EVENT_TIMESTAMP, MOMENT, write_view
from features.predictions import home_predictions
from service.errors import NotReady
from training.erasing import forget_features
from training.predictions.models import predictions_registry
from training.predictions.slices import values_of
from training.spreading import ALONE, Workers


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
    values = values_of(home, contract, {name: (one, kept[one.name]) for name, one in trained.items()}, at, workers)
    names = pc.unique(pa.chunked_array([found[0] for found in values.values()], pa.string())).sort()
    columns = {name: pa.nulls(len(names), pa.float64()) for name in used} | {
        name: pa.array(rates).take(pc.index_in(names, customers)) for name, (customers, rates) in values.items()
    }
    moment = pa.array([instant(at)] * len(names), MOMENT)
    write_view(home, PREDICTIONS_VIEW, pa.table({JOIN_KEY: names, EVENT_TIMESTAMP: moment, **columns}))
    materialize(home, redis_url, instant(at), only=PREDICTIONS_VIEW)
    forget_features(home, redis_url)
    return Scored({name: len(customers) for name, (customers, _) in values.items()}, untrained)


def instant(at: float) -> dt.datetime:
    """A moment in whole microseconds, by one rounding for all: a copy to Redis that ends just before the rows copies none."""
    return BEGINNING + dt.timedelta(microseconds=round(at * 1e6))
