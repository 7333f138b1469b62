"""What a prediction is worth on a time that it has not seen, against what needs no model."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from training.fit import POWER, Learned
from training.off_policy import mean_interval
from training.scores import Values, scores

FEWEST_ROWS = 100
FEWEST_OF_EACH = 20
MEAN, LIFETIME = "mean", "lifetime_model"  # baselines
TINY = 1e-9  # a value expected to be nothing: its deviance must stay finite


class Judgement(NamedTuple):
    """Figures of the rows that were held out, and why the prediction must not be used: empty where it may."""

    figures: dict[str, float]
    reasons: tuple[str, ...]


def judge(learned: Learned, labels: Values, predicted: Values, baselines: Mapping[str, Values]) -> Judgement:
    """Compare losses row by row with the best of the baselines; the gain must be above zero with its 95 % interval.

    The loss of a rate is its log loss, that of a value its deviance, which the true mean makes smallest. Shapes: (rows,).
    """
    losses = {name: loss(learned, labels, values) for name, values in baselines.items()}
    best = min(losses, key=lambda name: float(losses[name].mean()))
    own = loss(learned, labels, predicted)
    gain = mean_interval(losses[best] - own, np.arange(len(labels)))
    figures = (scores(labels, predicted) if learned == "rate" else _value_figures(labels, predicted)) | {
        "rows": float(len(labels)), "loss": float(own.mean()), **{f"loss_of_{n}": float(one.mean()) for n, one in losses.items()},
        "gain": gain.value, "gain_low": gain.low, "gain_high": gain.high,
    }  # fmt: skip
    reasons = list(_too_few(learned, labels))
    if not gain.low > 0.0:
        instead = " (the measure `lifetime_value` needs no training)" if best == LIFETIME else ""
        reasons.append(f"gain over `{best}` {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]: expected above zero{instead}")
    return Judgement({name: round(value, 6) for name, value in figures.items()}, tuple(reasons))


def loss(learned: Learned, labels: Values, predicted: Values) -> Values:
    """Of each row. Deviances: Joergensen 1987, for Poisson and for Tweedie's power 1.5."""
    if learned == "rate":
        rate = np.clip(predicted, 1e-12, 1 - 1e-12)
        result: Values = -(labels * np.log(rate) + (1 - labels) * np.log1p(-rate))
        return result
    mean = np.maximum(predicted, TINY)
    if learned == "count":
        return 2 * (np.where(labels > 0, labels * np.log(np.maximum(labels, TINY) / mean), 0.0) - labels + mean)
    p = POWER
    return 2 * (labels ** (2 - p) / ((1 - p) * (2 - p)) - labels * mean ** (1 - p) / (1 - p) + mean ** (2 - p) / (2 - p))


def _value_figures(labels: Values, predicted: Values) -> dict[str, float]:
    """Means, mean absolute error, and the share of the variance that is explained: negative where the mean would be nearer."""
    spread = float(((labels - labels.mean()) ** 2).sum())
    return {
        "mean": float(labels.mean()), "mean_predicted": float(predicted.mean()), "mae": float(np.abs(labels - predicted).mean()),
        "r2": 1 - float(((labels - predicted) ** 2).sum()) / spread if spread else 0.0,
    }  # fmt: skip


def _too_few(learned: Learned, labels: Values) -> list[str]:
    positive = int((labels > 0).sum())
    fewest = min(positive, len(labels) - positive) if learned == "rate" else positive
    if len(labels) >= FEWEST_ROWS and fewest >= FEWEST_OF_EACH:
        return []
    of_each = " of each" if learned == "rate" else ""
    return [
        f"{len(labels)} rows held out, {positive} of them above zero: expected {FEWEST_ROWS} with {FEWEST_OF_EACH}{of_each}",
    ]
