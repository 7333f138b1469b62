"""Platt scaling: two numbers that turn a margin into an honest rate. Platt 1999, section 2."""

import numpy as np
import numpy.typing as npt

from service.bundles.manifest import Calibration

Values = npt.NDArray[np.float64]

IDENTITY = Calibration(slope=1.0, intercept=0.0)
STEPS = 50  # Newton's method needs about 6, from margins far off the level up to 25
SMALLEST_STEP = 1e-10  # well below the 1e-6 to which rates are compared
SMALLEST_SLOPE = 0.05  # below it the margin would say nothing, or the opposite: only the level is corrected then


def sigmoid(margins: Values) -> Values:
    """1 / (1 + exp(-m)), without overflow."""
    result: Values = np.exp(-np.logaddexp(0.0, -margins))
    return result


def fit_platt(margins: Values, labels: Values) -> Calibration:
    """Slope and intercept that maximise the likelihood of the labels, with Platt's smoothed targets.

    Shapes: (rows,) each. Where the best slope is not positive, the slope stays 1 and only the intercept is fitted.
    """
    positives = labels.sum()
    targets = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    slope, intercept = _newton(np.column_stack([margins, np.ones_like(margins)]), targets, np.zeros_like(margins))
    if not slope >= SMALLEST_SLOPE:
        (intercept,) = _newton(np.ones((len(margins), 1)), targets, margins)
        slope = 1.0
    return Calibration(float(slope), float(intercept))


def recalibrated(margins: Values, labels: Values) -> tuple[float, float]:
    """The slope that new rows would give the margins, beside an intercept, and its standard error: (rows,) each.

    Cox 1958; the error is the inverse of Fisher's information.
    """
    design = np.column_stack([margins, np.ones_like(margins)])
    weights = _newton(design, labels, np.zeros_like(margins))
    rates = sigmoid(design @ weights)
    information = design.T @ (design * (rates * (1 - rates))[:, None]) + 1e-9 * np.eye(2)
    return float(weights[0]), float(np.sqrt(np.linalg.inv(information)[0, 0]))


def fit_level(margins: Values, values: Values) -> Calibration:
    """The intercept with which the mean of exp(margin) is that of the values: (rows,) each. As it is where all are zero."""
    total = float(values.sum())
    return IDENTITY if total <= 0.0 else Calibration(1.0, float(np.log(total) - np.logaddexp.reduce(margins)))


def _newton(design: npt.NDArray[np.float64], targets: Values, offset: Values) -> Values:
    """Logistic regression by Newton's method. Hastie, Tibshirani and Friedman 2009, section 4.4.1.

    Steps are halved until they do not lose likelihood: from margins far off the level, whole ones run away.
    """
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):
        rates = sigmoid(design @ weights + offset)
        curvature = design.T @ (design * (rates * (1 - rates))[:, None]) + 1e-9 * np.eye(design.shape[1])
        step = np.linalg.solve(curvature, design.T @ (targets - rates))
        while _loss(design @ (weights + step) + offset, targets) > _loss(design @ weights + offset, targets):
            step = step / 2
        weights = weights + step
        if np.abs(step).max() < SMALLEST_STEP:
            break
    return weights


def _loss(margins: Values, targets: Values) -> float:
    """Negative log-likelihood of the targets."""
    return float((np.logaddexp(0.0, margins) - targets * margins).sum())
