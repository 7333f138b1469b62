"""`nextbest predictions train`: rows at several moments in order, a model of all but the last, judged by the last."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from features.contract import Contract, Feature, FromTransactions
from features.homes import home_contract
from features.layout import JOIN_KEY
from features.ledger import Values
from features.predictions import Prediction, home_predictions
from features.transactions import transaction_values
from features.vectors import Matrix
from service.errors import NotReady
from training.fit import FitSettings, Fitted, Learned, fit, fit_value
from training.predictions.judging import LIFETIME, MEAN, judge
from training.predictions.models import Origin, keep
from training.predictions.rows import History

MOST_CUTS = 12
FEWEST_CUTS = 2  # one to learn from, one to judge by
MOST_ROWS = 400_000  # of all cuts together: customers are picked at random beyond

Progress = Callable[[int, int], None]


class Trained(NamedTuple):
    """What became of a prediction. `model_id` is None where it was refused, for the `reasons`."""

    name: str
    model_id: str | None
    cuts: tuple[float, ...]
    rows: int
    figures: dict[str, float]
    reasons: tuple[str, ...]


class Rows(NamedTuple):
    """Customers at a moment each, in order of the moments: what was known of them, and what came."""

    asked: pa.Table
    inputs: Matrix
    labels: Values


def train_prediction(
    home: Path, history: History, prediction: Prediction, end: float, settings: FitSettings, *, force: bool = False,
    now: dt.datetime | None = None, progress: Progress = lambda _done, _of: None,
) -> Trained:  # fmt: skip
    """Learn, judge, and keep what beats its baselines (or anything, by `force`). Raises NotReady where there is too little.

    `end`: until when the history is looked at, in seconds; not later than its last event.
    """
    cuts = cut_moments(history.first, min(end, history.last), prediction.label.within)
    seen = rows_at(history, prediction, cuts[:-1], settings.seed)
    held = rows_at(history, prediction, cuts[-1:], settings.seed)
    learned: Learned = "rate" if not prediction.label.is_value else "count" if prediction.label.kind == "count" else "sum"
    fitted = _fitted(seen, history.inputs, settings, learned=learned, progress=progress)
    found = judge(learned, held.labels, fitted.rates(held.inputs), baselines(history, prediction, seen, held))
    if found.reasons and not force:
        return Trained(prediction.name, None, cuts, len(seen.labels), found.figures, found.reasons)
    origin = Origin(prediction, cuts, len(seen.labels), found.figures, found.reasons)
    kept = keep(home, fitted, origin, seen.inputs, now or dt.datetime.now(dt.UTC))
    return Trained(prediction.name, kept.model_id, cuts, len(seen.labels), kept.figures, found.reasons)


def cut_moments(first: float, end: float, within: float) -> tuple[float, ...]:
    """Back from the end in steps of the label's time, so that no two labels share an event; each with as much history before.

    Raises NotReady where there are fewer than two.
    """
    found = [end - step * within for step in range(1, MOST_CUTS + 1)]
    cuts = tuple(cut for cut in reversed(found) if cut - within >= first)
    if len(cuts) < FEWEST_CUTS:
        days = within / 86_400
        raise NotReady(
            f"Expected a history of {(FEWEST_CUTS + 1) * days:g} days for labels of {days:g}, found {(end - first) / 86_400:.1f}"
        )
    return cuts


def rows_at(history: History, prediction: Prediction, cuts: tuple[float, ...], seed: int) -> Rows:
    """Everybody whom the prediction is about at each cut: in the order of cuts, at random within one."""
    chance, asked = np.random.default_rng(seed), []
    for cut in cuts:
        names = history.customers(prediction, cut)
        picked = chance.permutation(len(names))[: MOST_ROWS // len(cuts)]
        asked.append(pa.table({JOIN_KEY: names.take(pa.array(picked)), "at": pa.array(np.full(len(picked), cut))}))
    together = pa.concat_tables(asked).combine_chunks()
    return Rows(together, history.matrix(together), history.labels(prediction.label, together))


def _fitted(seen: Rows, inputs: tuple[Feature, ...], settings: FitSettings, learned: Learned, progress: Progress) -> Fitted:
    if learned == "rate":
        return fit(seen.inputs, seen.labels, inputs, settings, progress)
    return fit_value(seen.inputs, seen.labels, inputs, settings, learned=learned, progress=progress)


def baselines(history: History, prediction: Prediction, seen: Rows, held: Rows) -> dict[str, Values]:
    """What needs no model of ours: the mean of what was seen; for money, BG/NBD times gamma-gamma, where they can be fitted."""
    mean = np.full(len(held.labels), seen.labels.mean())
    label = prediction.label
    if label.kind != "sum" or label.amount is None or label.where:
        return {MEAN: mean}
    source = FromTransactions("lifetime_value", label.types, label.amount, label.within)
    probe = Contract((Feature(name="expected", type="number", origin="value", transactions=source),))
    found = transaction_values(probe, history.ledger(label), held.asked).table["expected"].to_numpy(zero_copy_only=False)
    if np.isnan(found).all():
        return {MEAN: mean}
    return {MEAN: mean, LIFETIME: np.where(np.isnan(found), mean, found)}


def train_all(
    home: Path, names: list[str], end: float, settings: FitSettings, *, force: bool, progress: Progress = lambda _done, _of: None
) -> list[Trained]:
    """Those of a home, or some by name. One that has too little to learn from is refused like one that does not help."""
    contract = home_contract(home)
    declared = home_predictions(home, contract)
    history, found = History(home, contract), []
    for name in names or declared:
        try:
            found.append(train_prediction(home, history, chosen(declared, name), end, settings, force=force, progress=progress))
        except NotReady as error:
            found.append(Trained(name, None, (), 0, {}, (str(error),)))
    return found


def chosen(declared: dict[str, Prediction], name: str) -> Prediction:
    """Raises NotReady naming what there is."""
    if name not in declared:
        known = ", ".join(f"`{one}`" for one in declared) or "none"
        raise NotReady(f"Expected a prediction of predictions.yaml ({known}), got `{name}`")
    return declared[name]
