"""The closed loop as a picture: what decisions bring, step after step, beside those who know and those who do not."""

import io

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from training.closed_loop import Result

SMOOTHED = 8  # steps that one point of a line is the mean of
NAMES = {"oracle": "who knows the truth", "loop": "the loop", "static": "best single action", "uniform": "any eligible action"}


def picture(result: Result) -> bytes:
    """SVG, the same bytes for the same result."""
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    kernel = np.ones(SMOOTHED) / SMOOTHED
    for name, label in NAMES.items():
        values = np.convolve(getattr(result, name), kernel, mode="valid")
        axes.plot(result.decisions[SMOOTHED - 1 :], values, label=label, linewidth=2.0 if name == "loop" else 1.2)
    for number, at in enumerate(result.noticed):
        axes.axvline(at, color="grey", linestyle=":", linewidth=1.0, label="a change is noticed" if not number else None)
    axes.set_xlabel("decisions")
    axes.set_ylabel("clicks a decision")
    axes.set_ylim(bottom=0.0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    written = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nextbest"}):
        FigureCanvasSVG(figure)
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": "nextbest", "Title": "The closed loop"})
    return written.getvalue()
