"""Pictures of a training: whether rates are honest, and which inputs they come from."""

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.fit import Fitted
from training.scores import BINS

Values = npt.NDArray[np.float64]

BLUE, GREY = "#0072B2", "#B8BDC4"
MOST_INPUTS = 20


def calibration_picture(labels: Values, rates: Values) -> Figure:
    """Observed beside predicted rate in ten bins of equal size: (rows,) each. Honest rates lie on the line."""
    bins = [b for b in np.array_split(np.argsort(rates, kind="stable"), BINS) if len(b)]
    predicted, observed = [float(rates[b].mean()) for b in bins], [float(labels[b].mean()) for b in bins]
    figure = _figure(5.0, 5.0)
    axes = figure.add_subplot()
    highest = max([*predicted, *observed, 1e-6])
    axes.plot([0.0, highest], [0.0, highest], color=GREY)
    axes.plot(predicted, observed, "o-", color=BLUE)
    axes.set(xlabel="predicted", ylabel="observed", title=f"calibration on {len(labels):,} rows that no tree grew on")
    return figure


def importance_picture(fitted: Fitted) -> Figure:
    """What splits on each input gained, the share of all; the highest twenty."""
    gains = fitted.booster.feature_importance("gain", iteration=fitted.rounds)
    shares = gains / max(float(gains.sum()), 1e-12)
    shown = np.argsort(-shares, kind="stable")[:MOST_INPUTS][::-1]
    figure = _figure(7.0, 1.0 + 0.28 * len(shown))
    axes = figure.add_subplot()
    axes.barh([fitted.columns[i].key for i in shown], [float(shares[i]) for i in shown], color=BLUE)
    what = "inputs" if fitted.amount is None else "inputs that tell whether there is a value"
    axes.set(xlabel="share of the gain of all splits", title=what)
    return figure


def _figure(width: float, height: float) -> Figure:
    """In inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
