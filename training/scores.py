"""How good predicted rates are, in the figures that people compare."""

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

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


def ranked(
    labels: Values, rates: Values, strata: npt.NDArray[np.int64] | None = None, clusters: npt.NDArray[np.intp] | None = None
) -> tuple[float, float, float]:
    """Area under the curve, and how likely chance is to make it as high, and as low. Shapes: (rows,) each.

    With `strata` rows are compared within each, and the pairs of all count together. Mann and Whitney 1947, summed over strata as
    in van Elteren 1960 with equal weights; normal approximation, corrected for ties and continuity. With `clusters`, 0 to G - 1,
    rows of one customer may go together: the error is the larger of that one and Obuchowski's (1997). 0.5 without both.
    """
    wins = pairs = variance = 0.0
    influence = np.zeros(len(labels))
    for stratum in [None] if strata is None else np.unique(strata).tolist():
        here = np.arange(len(labels)) if stratum is None else np.flatnonzero(strata == stratum)
        won = labels[here] > 0
        successes, size = float(won.sum()), len(won)
        if 0 < successes < size:
            _, inverse, counts = np.unique(rates[here], return_inverse=True, return_counts=True)
            ties = counts.astype(np.float64)
            together = successes * (size - successes)
            beaten = _beaten(inverse, won)
            own = float(beaten[won].sum())
            influence[here] = beaten - own / np.where(won, successes, size - successes)
            wins += own
            variance += together / 12 * (size + 1 - float((ties**3 - ties).sum()) / (size * (size - 1)))
            pairs += together
    if variance <= 0.0:
        return 0.5, 1.0, 1.0
    if clusters is not None:
        groups = max(2, len(np.unique(clusters)))
        variance = max(variance, float((np.bincount(clusters, influence) ** 2).sum()) * groups / (groups - 1))
    above, error = wins - pairs / 2, variance**0.5
    return wins / pairs, float(norm.sf((above - 0.5) / error)), float(norm.sf((-above - 0.5) / error))


def _beaten(inverse: npt.NDArray[np.intp], won: npt.NDArray[np.bool_]) -> Values:
    """Of a success the failures below it, of a failure the successes above it; ties half. `inverse`: places of rates in order."""
    successes, failures = (np.bincount(inverse[kind], minlength=inverse.max() + 1) for kind in (won, ~won))
    below = np.cumsum(failures) - failures / 2
    above = successes.sum() - np.cumsum(successes) + successes / 2
    return np.asarray(np.where(won, below[inverse], above[inverse]), np.float64)


def calibration_error(labels: Values, rates: Values) -> float:
    """Mean distance between predicted and observed rate over ten bins of equal size. Naeini et al. 2015.

    Rows of equal rates share their labels: which of them falls into which bin must not count.
    """
    _, inverse, counts = np.unique(rates, return_inverse=True, return_counts=True)
    observed = (np.bincount(inverse, labels) / counts)[inverse]
    bins = np.array_split(np.argsort(rates, kind="stable"), BINS)
    return float(sum(len(b) * abs(observed[b].mean() - rates[b].mean()) for b in bins if len(b)) / len(labels))
