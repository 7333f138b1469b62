"""How good predicted rates are, in the figures that people compare."""

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

BINS = 10


def scores(labels: Values, rates: Values) -> dict[str, float]:
    """Area under the ROC curve, mean log loss, base rate, and expected calibration error. Shapes: (rows,) each."""
    return {
        "auc": round(area_under_curve(labels, rates), 6),
        "log_loss": round(mean_log_loss(labels, rates), 6),
        "base_rate": round(float(labels.mean()), 6),
        "calibration_error": round(calibration_error(labels, rates), 6),
    }


def mean_log_loss(labels: Values, rates: Values, weights: Values | None = None) -> float:
    """Negative log-likelihood per row, weighed where rows do not count alike. Shapes: (rows,) each."""
    clipped = np.clip(rates, 1e-12, 1 - 1e-12)
    return -float(np.average(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped), weights=weights))


def area_under_curve(labels: Values, rates: Values) -> float:
    """Chance that a success is ranked above a failure, ties half: Mann and Whitney 1947. 0.5 without both."""
    positives = labels.sum()
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return 0.5
    _, inverse, counts = np.unique(rates, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # the mean rank of equal rates, counted from 1
    return float((ranks[labels > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def calibration_error(labels: Values, rates: Values) -> float:
    """Mean distance between predicted and observed rate over ten bins of equal size. Naeini et al. 2015.

    Rows of equal rates share their labels: which of them falls into which bin must not count.
    """
    _, inverse, counts = np.unique(rates, return_inverse=True, return_counts=True)
    observed = (np.bincount(inverse, labels) / counts)[inverse]
    bins = np.array_split(np.argsort(rates, kind="stable"), BINS)
    return float(sum(len(b) * abs(observed[b].mean() - rates[b].mean()) for b in bins if len(b)) / len(labels))
