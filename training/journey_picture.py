"""A picture of a journey: stages in a row, what leads on above, what times out below, and what became of the visits to each.

The width of a band is its share of all flows; it is widest where it leaves a stage, and narrow where it arrives. The colours are
those of Okabe and Ito, which people tell apart who see colours differently.
"""

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Polygon

from training.journey_tables import flow_label, headline, lasting
from training.journeys import Flow, JourneyReport, StageFigures

FORWARD, BACKWARD, LOST, HERE, INK = "#0072B2", "#56B4E9", "#D55E00", "#B8BDC4", "#22262B"
WIDEST = 0.26  # of a band, where the distance between stages is 1
NARROWEST = 0.008
LOWEST = 0.45  # height of a band to the next stage
MARGIN = 0.22  # above and below the bands
APART = 2.1  # inches from stage to stage
NARROWEST_PAGE, BAR_ROW = 11.0, 0.42  # inches
HEADS = 1.9  # inches for all titles and legends
LONGEST_LINE = 14  # characters of a stage's name
LABELLED = 0.015  # share of all flows from which on a band says its count
BACK_IS_FLATTER = 0.68  # so that two bands between the same stages do not lie on each other
NARROW_SEGMENT = 0.06  # of a bar: no room for a figure
PARTS = (("moved_on", FORWARD, "went on"), ("timed_out", LOST, "dropped off"), ("here", HERE, "still here"))
CURVE = np.linspace(0.0, np.pi, 60)


class _Drawn(NamedTuple):
    """A flow, and between which places it is drawn."""

    flow: Flow
    start: int
    end: int

    @property
    def is_forward(self) -> bool:
        return self.end > self.start

    @property
    def height(self) -> float:
        """Of its highest point; below the stages it is negative."""
        up = LOWEST * float(abs(self.end - self.start) ** 0.72) * (1.0 if self.is_forward else BACK_IS_FLATTER)
        return -up if self.flow.timed_out else up

    @property
    def colour(self) -> str:
        if self.flow.timed_out:
            return LOST
        return FORWARD if self.is_forward else BACKWARD


def journey_figure(report: JourneyReport) -> Figure:
    """The picture. At least one stage was visited."""
    lost = _lost_in(report)
    stages = sorted(report.stages, key=lambda one: (one.stage in lost, one.position, one.stage))
    drawn = _placed(report, stages)
    low, high = _extent(drawn)
    width = max(NARROWEST_PAGE, APART * len(stages))
    heights = ((high - low) * width / len(stages), BAR_ROW * len(stages))
    padded = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12)
    figure = Figure(figsize=(width, sum(heights) + HEADS), layout=padded, facecolor="white")
    flows, bars = figure.subplots(2, 1, height_ratios=heights)
    figure.suptitle("Where customers go, and where they are lost", x=0.012, ha="left", fontsize=19, fontweight="bold", color=INK)
    _draw_flows(flows, drawn)
    for place, stage in enumerate(stages):
        _draw_stage(flows, place, stage, is_lost=stage.stage in lost)
    flows.set_xlim(-0.5, len(stages) - 0.5)
    flows.set_ylim(low, high)
    said = f"{headline(report)}\nA band says how often, and for what share of the visits to the stage it leaves."
    flows.set_title(said, loc="left", fontsize=11, color=INK)
    _draw_bars(bars, stages)
    return figure


def _lost_in(report: JourneyReport) -> set[str]:
    """Stages to which time-outs lead more often than events do."""
    balance: Counter[str] = Counter()
    for flow in report.flows:
        balance[flow.target] += flow.count if flow.timed_out else -flow.count
    return {stage for stage, more in balance.items() if more > 0}


def _placed(report: JourneyReport, stages: Sequence[StageFigures]) -> list[_Drawn]:
    places = {one.stage: place for place, one in enumerate(stages)}
    return [_Drawn(flow, places[flow.origin], places[flow.target]) for flow in report.flows]


def _extent(drawn: Sequence[_Drawn]) -> tuple[float, float]:
    """From where to where the bands reach."""
    heights = [one.height for one in drawn]
    return min([*heights, 0.0]) - MARGIN, max([*heights, 0.0]) + MARGIN


def _draw_flows(axes: Axes, drawn: Sequence[_Drawn]) -> None:
    total, largest = sum(one.flow.count for one in drawn), max([one.flow.count for one in drawn], default=1)
    for one in reversed(drawn):  # the large ones last, on top
        width = max(NARROWEST, WIDEST * one.flow.count / largest)
        axes.add_patch(Polygon(_band(one, width), closed=True, facecolor=one.colour, edgecolor="none", alpha=0.72))
    for one in drawn:
        if one.flow.count >= LABELLED * total:
            _label(axes, one)
    axes.set_aspect("equal")
    axes.set_axis_off()
    for colour, text in ((FORWARD, "led on by an event"), (BACKWARD, "led back by an event"), (LOST, "dropped off: a time-out")):
        axes.fill([], [], facecolor=colour, alpha=0.8, label=text)
    axes.legend(loc="upper right", frameon=False, fontsize=9.5, ncols=3, bbox_to_anchor=(1.0, 0.0))


def _band(one: _Drawn, width: float) -> npt.NDArray[np.float64]:
    """Its outline: float64, (points, 2). An arch that narrows to a fifth on its way."""
    middle, radius = (one.start + one.end) / 2, (one.start - one.end) / 2
    x, y = middle + radius * np.cos(CURVE), one.height * np.sin(CURVE)
    along = np.stack([-radius * np.sin(CURVE), one.height * np.cos(CURVE)])
    across = np.stack([-along[1], along[0]]) / np.hypot(*along)
    half = width / 2 * np.linspace(1.0, 0.2, len(CURVE)) * across
    return np.concatenate([np.stack([x, y]).T + half.T, (np.stack([x, y]).T - half.T)[::-1]])


def _label(axes: Axes, one: _Drawn) -> None:
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": one.colour, "linewidth": 0.8, "alpha": 0.92}
    middle = (one.start + one.end) / 2
    arrow = f"{flow_label(one.flow)} →" if one.is_forward else f"← {flow_label(one.flow)}"
    axes.text(middle, one.height, arrow, ha="center", va="center", fontsize=8.5, color=INK, bbox=box, zorder=5)


def _draw_stage(axes: Axes, place: int, one: StageFigures, *, is_lost: bool) -> None:
    box = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": LOST if is_lost else INK, "linewidth": 1.6}
    text = f"{textwrap.fill(one.stage.replace('_', ' '), LONGEST_LINE)}\n{one.visits:,} visits"
    axes.text(place, 0.0, text, ha="center", va="center", fontsize=10, fontweight="bold", color=INK, bbox=box, zorder=6)


def _draw_bars(axes: Axes, stages: Sequence[StageFigures]) -> None:
    names = [one.stage.replace("_", " ") for one in stages]
    left = np.zeros(len(stages))
    for key, colour, text in (
        ("moved_on", FORWARD, "went on"),
        ("timed_out", LOST, "dropped off"),
        ("here", HERE, "still here"),
    ):
        shares = np.array([getattr(one, key) / one.visits for one in stages])
        hatch = "///" if key == "timed_out" else None  # for print without colours
        axes.barh(names, shares, left=left, color=colour, label=text, height=0.68, edgecolor="white", hatch=hatch)
        for row, (share, start) in enumerate(zip(shares, left, strict=True)):
            if share >= NARROW_SEGMENT:
                _share(axes, (start + share / 2, row), share, colour)
        left += shares
    for row, one in enumerate(stages):
        stay = f"   typically {lasting(one.median_s)}" if one.median_s is not None else ""
        axes.text(1.01, row, f"{one.customers:,} customers{stay}", va="center", fontsize=9, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.28)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=10, labelcolor=INK)
    axes.set_title("What became of the visits to each stage", loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.legend(loc="lower right", frameon=False, fontsize=9.5, ncols=3, bbox_to_anchor=(1.0, 1.0))


def _share(axes: Axes, place: tuple[float, int], share: float, colour: str) -> None:
    box = {"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": "none"}
    ink = INK if colour == HERE else "white"
    axes.text(*place, f"{share:.0%}", ha="center", va="center", fontsize=9.5, fontweight="bold", color=ink, bbox=box)
