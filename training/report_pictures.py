"""Pictures of a report as SVG: lines with their intervals, dots with theirs, shares that add up, predicted against observed.

Filled marks carry their claim, hollow ones do not. Colours are those of Okabe and Ito, which people tell apart who see colours
differently; marks of a series have a shape of their own as well. Every mark says its figures when pointed at.
"""

from collections.abc import Sequence
from html import escape
from math import isfinite
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D00", "#B8BDC4")
INK, PALE = "#22262B", "#D5D9DE"
WIDTH, LEFT, RIGHT, TOP = 900, 64, 24, 34  # pixels, as all that follow
PLOT, FOOT, ROW = 230, 34, 26
NAMES = 220  # for names beside dots
LEGEND = 150  # a name
TICKS, LABELS = 4, 8
MARK = 4.5
APART = 9  # between series in a row
FREE = 0.05  # of the span, left free above and below


class Point(NamedTuple):
    """Where it lies along the axis, its value with an interval (infinite: none), and whether the rows carry it."""

    label: str
    value: float
    low: float
    high: float
    carries: bool = True

    @property
    def told(self) -> str:
        """What it says when pointed at."""
        doubt = "" if self.carries else " (too little to tell)"
        return f"{self.label}: {number(self.value)} [{number(self.low)}, {number(self.high)}]{doubt}"


class Series(NamedTuple):
    """Points of one name, one for each place along the axis."""

    name: str
    points: Sequence[Point]


def number(value: float) -> str:
    """With as many digits as one reads."""
    if not isfinite(value):
        return "unknown" if value != value else ("∞" if value > 0 else "-∞")  # noqa: PLR0124  # NaN differs from itself
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004  # thousands have a comma


def lines(title: str, series: Sequence[Series], *, from_zero: bool = False) -> str:
    """Values over time with bands for their intervals. All series have the same labels."""
    low, high = _span([p for one in series for p in one.points], from_zero=from_zero)
    labels = [point.label for point in series[0].points]
    drawn = [*_axis(low, high), *_labels(labels)]
    for place, one in enumerate(series):
        drawn += _series(one, place, low, high)
    return _svg(title, TOP + PLOT + FOOT, [*drawn, *_legend([one.name for one in series])])


def _series(one: Series, place: int, low: float, high: float) -> list[str]:
    colour, count = COLOURS[place % len(COLOURS)], len(one.points)
    spots = [(_x(n, count), _y(p.value, low, high), p) for n, p in enumerate(one.points) if isfinite(p.value)]
    drawn = []
    band = [(x, p) for x, _, p in spots if p.carries and isfinite(p.low)]
    if len(band) > 1:
        edge = [f"{x:.1f},{_y(p.high, low, high):.1f}" for x, p in band]
        edge += [f"{x:.1f},{_y(p.low, low, high):.1f}" for x, p in reversed(band)]
        drawn.append(f'<polygon points="{" ".join(edge)}" fill="{colour}" opacity=".15"/>')
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, p in spots if p.carries)
    drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for x, y, p in spots:
        if p.carries and isfinite(p.low):
            ends = f"M{x:.1f} {_y(p.low, low, high):.1f}V{_y(p.high, low, high):.1f}"
            drawn.append(f'<path d="{ends}" stroke="{colour}" stroke-width="1" opacity=".6"/>')
        drawn.append(_mark(x, y, place, f"{one.name}, {p.told}", filled=p.carries))
    return drawn


def dots(title: str, series: Sequence[Series], *, with_zero: bool = False) -> str:
    """Values side by side, a row for each label, an interval as a line. `with_zero`: for differences."""
    points = [p for one in series for p in one.points]
    low, high = _span([*points, Point("", 0.0, 0.0, 0.0)] if with_zero else points)
    tall = max(ROW, APART * len(series) + APART)
    labels = list(dict.fromkeys(p.label for one in series for p in one.points))
    bottom = TOP + tall * len(labels)
    drawn = []
    for tick in _ticks(low, high):
        x = _across(tick, low, high)
        drawn.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="{INK if tick == 0.0 else PALE}"/>')
        drawn.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{number(tick)}</text>')
    for row, label in enumerate(labels):
        y = TOP + tall * (row + 0.5)
        drawn.append(f'<text x="{NAMES - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(_short(label))}</text>')
        for place, one in enumerate(series):
            shift = (place - (len(series) - 1) / 2) * APART
            drawn += [_dot(p, y + shift, place, (low, high), one.name) for p in one.points if p.label == label]
    return _svg(title, bottom + FOOT, [*drawn, *_legend([one.name for one in series])])


def _dot(point: Point, y: float, place: int, span: tuple[float, float], name: str) -> str:
    if not isfinite(point.value):
        return ""
    ends = [_across(min(max(end, span[0]), span[1]), *span) for end in (point.low, point.high)]
    colour, dashed = COLOURS[place % len(COLOURS)], "" if point.carries else ' stroke-dasharray="2 3"'
    line = f'<line x1="{ends[0]:.1f}" y1="{y:.1f}" x2="{ends[1]:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="2"{dashed}/>'
    return line + _mark(_across(point.value, *span), y, place, f"{name}, {point.told}", filled=point.carries)


def stacked(title: str, names: Sequence[str], labels: Sequence[str], shares: npt.NDArray[np.float64]) -> str:
    """Shares that add up to 1 (names, labels), as bars over time; a label without any has no bar."""
    wide = (WIDTH - LEFT - RIGHT) / len(labels)
    drawn = [*_axis(0.0, 1.0), *_labels(labels)]
    for column, label in enumerate(labels):
        top = 0.0
        for row, name in enumerate(names):
            share = float(shares[row, column])
            high = _y(top + share, 0.0, 1.0)
            if share > 0:
                drawn.append(
                    f'<rect x="{LEFT + column * wide + 1:.1f}" y="{high:.1f}" width="{max(wide - 2, 1):.1f}" '
                    f'height="{_y(top, 0.0, 1.0) - high:.1f}" fill="{COLOURS[row % len(COLOURS)]}" stroke="white">'
                    f"<title>{escape(name)}, {escape(label)}: {share:.1%}</title></rect>"
                )
            top += share
    return _svg(title, TOP + PLOT + FOOT + 8, [*drawn, *_legend(names, shaped=False)])


def calibration(title: str, points: Sequence[tuple[float, Point]]) -> str:
    """Observed rates over predicted ones (what lies on the line is as predicted)."""
    ends = [p.high for _, p in points if p.carries and isfinite(p.high)] + [x for x, _ in points]
    ends += [p.value for _, p in points]
    high = max([*ends, 1e-9]) * (1 + FREE)

    def across(value: float) -> float:
        return LEFT + (WIDTH / 2 - LEFT) * value / high

    start, end = _y(0, 0, high), _y(high, 0, high)
    drawn = _axis(0.0, high, width=WIDTH // 2)
    drawn.append(f'<line x1="{LEFT}" y1="{start:.1f}" x2="{WIDTH / 2}" y2="{end:.1f}" stroke="{INK}" stroke-dasharray="4 4"/>')
    for tick in _ticks(0.0, high):
        drawn.append(f'<text x="{across(tick):.1f}" y="{TOP + PLOT + 18}" text-anchor="middle">{number(tick)}</text>')
    for x, point in points:
        low, top = (_y(min(max(end, 0.0), high), 0, high) for end in (point.low, point.high))
        drawn.append(f'<path d="M{across(x):.1f} {low:.1f}V{top:.1f}" stroke="{COLOURS[0]}" stroke-width="2"/>')
        told = f"predicted {number(x)}, observed {point.told}"
        drawn.append(_mark(across(x), _y(point.value, 0, high), 0, told, filled=point.carries))
    drawn.append(f'<text x="{WIDTH / 2}" y="{TOP + PLOT + 32}" text-anchor="end">predicted rate</text>')
    return _svg(title, TOP + PLOT + FOOT + 8, drawn, WIDTH // 2 + RIGHT)


def _span(points: Sequence[Point], *, from_zero: bool = False) -> tuple[float, float]:
    """What the axis shows: all values, and the intervals of those that carry."""
    ends = [end for p in points for end in ((p.value, p.low, p.high) if p.carries else (p.value,)) if isfinite(end)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    free = (high - low or abs(high) or 1.0) * FREE
    return (0.0 if from_zero else low - free), high + free


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within the span, five or so."""
    size = 10.0 ** np.floor(np.log10((high - low) / TICKS))
    step = next(size * part for part in (1.0, 2.0, 2.5, 5.0, 10.0) if size * part * TICKS >= (high - low) * (1 - 1e-9))
    return [float(round(place * step, 12)) for place in range(int(np.ceil(low / step)), int(np.floor(high / step + 1e-9)) + 1)]


def _x(place: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (place + 0.5) / count


def _y(value: float, low: float, high: float) -> float:
    return TOP + PLOT * (1.0 - (value - low) / (high - low))


def _across(value: float, low: float, high: float) -> float:
    return NAMES + (WIDTH - NAMES - RIGHT) * (value - low) / (high - low)


def _axis(low: float, high: float, width: int = WIDTH - RIGHT) -> list[str]:
    drawn = []
    for tick in _ticks(low, high):
        y = _y(tick, low, high)
        drawn.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{width}" y2="{y:.1f}" stroke="{PALE}"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    return drawn


def _labels(labels: Sequence[str]) -> list[str]:
    step = max(1, -(-len(labels) // LABELS))
    return [
        f'<text x="{_x(n, len(labels)):.1f}" y="{TOP + PLOT + 20}" text-anchor="middle">{escape(label)}</text>'
        for n, label in enumerate(labels) if n % step == 0
    ]  # fmt: skip


def _legend(names: Sequence[str], *, shaped: bool = True) -> list[str]:
    if len(names) <= 1:
        return []
    wide, drawn = min(LEGEND, (WIDTH - LEFT) // len(names)), []
    for place, name in enumerate(names):
        x = LEFT + wide * place
        drawn.append(_mark(x, 14, place if shaped else 1, name, filled=True, colour=place))
        drawn.append(f'<text x="{x + 10}" y="18">{escape(_short(name, wide // 8))}</text>')
    return drawn


def _mark(x: float, y: float, shape: int, told: str, *, filled: bool, colour: int | None = None) -> str:
    ink = COLOURS[(shape if colour is None else colour) % len(COLOURS)]
    look = f'fill="{ink if filled else "white"}" stroke="{ink}" stroke-width="1.5"'
    title = f"<title>{escape(told)}</title>"
    if shape % 3 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{MARK}" {look}>{title}</circle>'
    if shape % 3 == 1:
        size = 2 * MARK - 1
        return f'<rect x="{x - size / 2:.1f}" y="{y - size / 2:.1f}" width="{size}" height="{size}" {look}>{title}</rect>'
    return f'<path d="M{x:.1f} {y - MARK - 1:.1f}l{MARK + 1} {2 * MARK}h-{2 * MARK + 2}z" {look}>{title}</path>'


def _short(text: str, longest: int = 28) -> str:
    return text if len(text) <= longest else f"{text[: max(1, longest - 1)]}…"


def _svg(title: str, height: float, drawn: Sequence[str], width: int = WIDTH) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" role="img" '
        f'aria-label="{escape(title)}" font-size="12" fill="{INK}" font-family="system-ui,sans-serif">{"".join(drawn)}</svg>'
    )
