"""`make bench`: ours beside the peers and the floor, and what it costs by load, size and stage; writes docs/performance.md.

Every comparison is of one run: servers take turns on the first core, load and Redis have the others. Eight minutes.
"""

import argparse
import contextlib
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from loadtests import decision_cost, stages
from loadtests.compare import CONNECTIONS, ROUNDS, Figures, alone, ratio, requests, throughput, together
from loadtests.generator import closed, open_loop
from loadtests.pages import put
from loadtests.servers import OURS, PEERS, ROOT, Place, pin_generator, place
from loadtests.world import publish

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- comparison: begin -->", "<!-- comparison: end -->"
SHARES = (0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the capacity
ACTIONS = (10, 100, 1000)
SECONDS = 4.0
TOLD = {
    OURS: "nextbest: rules, contact history, exploration, experiments, log",
    "feast-lightgbm": "FastAPI + Feast SDK + LightGBM",
    "feast-onnx": "FastAPI + Feast SDK + ONNX Runtime, row by row",
    "served": "`feast serve` + LightGBM",
    "floor": "floor: bare ASGI, one Redis read, one scoring, one write",
}  # fmt: skip


class Curve(NamedTuple):
    """Points of a plot: `x` against milliseconds, or against decisions a second."""

    x: list[float]
    y: dict[str, list[float]]


def compared(made: Place) -> tuple[str, float]:
    """The table of ours and the others, and our capacity."""
    with together(made, (OURS, *PEERS)) as servers:
        most, latency = throughput(servers), alone(servers)
    lines = ["| | decisions/s | ours is | alone, p50 ms | ours takes |", "|---|---:|---:|---:|---:|"]
    lines += [_line(name, most, latency) for name in (OURS, *PEERS)]
    told = (
        f"Medians of {ROUNDS} rounds in turn, {CONNECTIONS} connections (and one), one core: {platform.machine()}, Python "
        f"{platform.python_version()}."
    )
    return "\n".join([*lines, "", told]), statistics.median(most[OURS])


def _line(name: str, most: Figures, latency: Figures) -> str:
    rate, p50 = statistics.median(most[name]), statistics.median(latency[name]) * 1e3
    beside = ("", "") if name == OURS else (f"{ratio(most, OURS, name):.2f} x", f"{ratio(latency, OURS, name):.2f} x")
    return f"| {TOLD[name]} | {rate:,.0f} | {beside[0]} | {p50:.2f} | {beside[1]} |"


def by_load(made: Place, capacity: float) -> Curve:
    """Latency at shares of the capacity, arrivals open."""
    found: dict[str, list[float]] = {"p50": [], "p99": []}
    with made.running(OURS) as server:
        closed(server.port, requests(), CONNECTIONS, seconds=1.0)
        for share in SHARES:
            load = open_loop(server.port, requests(), share * capacity, seconds=SECONDS)
            found["p50"].append(load.percentile(0.5) * 1e3)
            found["p99"].append(load.percentile(0.99) * 1e3)
    return Curve([100 * share for share in SHARES], found)


def by_actions(made: Place) -> Curve:
    """Decisions a second for catalogs of more and more actions."""
    rates: list[float] = []
    for actions in ACTIONS:
        publish(made.home, actions)
        with made.running(OURS) as server:
            rates.append(closed(server.port, requests(), CONNECTIONS, seconds=SECONDS, warm_up=1.0).per_second)
    publish(made.home)
    return Curve([float(n) for n in ACTIONS], {"decisions a second": rates})


def lines(curve: Curve, x: str, y: str, *, logarithmic: bool = False) -> Figure:
    """A plot of lines with their points."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for name, values in curve.y.items():
        axes.plot(curve.x, values, marker="o", label=name)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def bars(found: stages.Stages) -> Figure:
    """Microseconds by stage, the largest on top."""
    ordered = sorted(found.by_stage.items(), key=lambda one: one[1])
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.barh([name for name, _ in ordered], [us for _, us in ordered])
    axes.bar_label(drawn, fmt="%.0f", padding=2)
    axes.set_xlabel("microseconds a decision")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def save(figure: Figure, name: str) -> None:
    """Into docs/, the same bytes for the same figures."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nextbest"}):
        FigureCanvasSVG(figure)
        metadata = {"Date": None, "Creator": "nextbest"}
        figure.savefig(ROOT / "docs" / f"performance-{name}.svg", format="svg", metadata=metadata)


def main(argv: Sequence[str]) -> int:
    """Measure, draw, write."""
    parts: dict[str, Callable[[Place], None]] = {"compare": _compare, "actions": _actions, "stages": _stages, "sizes": _sizes}
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description="Writes docs/performance.md.")
    parser.add_argument("part", nargs="*", help=f"some of {', '.join(parts)}; all where none is named")
    wanted = parser.parse_args(argv).part or list(parts)
    if unknown := set(wanted) - parts.keys():
        parser.error(f"Expected {', '.join(parts)}, got {', '.join(sorted(unknown))}")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nextbest-bench-"))
        made = stack.enter_context(place(Path(folder)))
        stack.enter_context(pin_generator())
        for name in wanted:
            print(f"{name} ...", file=sys.stderr, flush=True)
            parts[name](made)
    return 0


def _compare(made: Place) -> None:
    table, capacity = compared(made)
    print(table)
    put(PAGE, table, (BEGIN, END))
    save(lines(by_load(made, capacity), "share of the capacity, %", "latency, ms"), "load")


def _actions(made: Place) -> None:
    save(lines(by_actions(made), "actions", "decisions a second", logarithmic=True), "actions")


def _stages(made: Place) -> None:
    found = stages.stages(made)
    print(table := stages.markdown(found))
    put(PAGE, table, (stages.BEGIN, stages.END))
    save(bars(found), "stages")


def _sizes(made: Place) -> None:
    print(table := decision_cost.markdown(list(decision_cost.costs(made.home))))
    put(PAGE, table, (decision_cost.BEGIN, decision_cost.END))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
