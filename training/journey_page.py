"""A journey report as a file: a page of its own with picture and figures, or the picture alone."""

import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG

from service.errors import NotReady
from training.journey_picture import journey_figure
from training.journey_tables import flow_label, friction, headline, lasting, of
from training.journeys import JourneyReport

PICTURES = (".html", ".svg", ".png")
DOTS = 130  # an inch
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;color:#22262b;max-width:76rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #d5d9de}"
    "th:first-child,td:first-child{text-align:left}figure{margin:1rem 0}svg{max-width:100%;height:auto}"
)


def write_report(report: JourneyReport, path: Path) -> Path:
    """Write it; the ending of the name says as what. Raises NotReady where there is nothing to draw."""
    if not report.stages:
        raise NotReady("Expected customers whose events the journey reads, found none in this time")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        figure = journey_figure(report)
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=DOTS, metadata={"Software": None})
    elif path.suffix == ".svg":
        path.write_text(_svg(report), encoding="utf-8")
    else:
        path.write_text(_page(report), encoding="utf-8")
    return path


def _svg(report: JourneyReport) -> str:
    """The same report gives the same text."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nextbest"}):
        figure, written = journey_figure(report), io.StringIO()
        FigureCanvasSVG(figure)
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": "nextbest", "Title": headline(report)})
    return written.getvalue()


def _page(report: JourneyReport) -> str:
    """One file that needs nothing else; what the picture shows is also there as tables, for those who do not see it."""
    drawing = _svg(report)
    drawing = drawing[drawing.index("<svg") :]
    stages = [
        (
            one.stage, f"{one.customers:,}", f"{one.visits:,}", lasting(one.median_s), of(one.moved_on, one.visits),
            of(one.timed_out, one.visits), of(one.here, one.visits),
        )
        for one in report.stages
    ]  # fmt: skip
    flows = [
        (flow.origin, flow.target, "time-out" if flow.timed_out else "event", flow_label(flow), f"{flow.customers:,}")
        for flow in report.flows
    ]
    listed = "".join(f"<li>{escape(line)}</li>" for line in friction(report))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Customer journey</title><style>{STYLE}</style>'
        f"<h1>Customer journey</h1><p>{escape(headline(report))}</p><figure>{drawing}"
        "<figcaption>Bands are as wide as their share of all flows, and narrow towards where they lead.</figcaption></figure>"
        f"<h2>Friction</h2><ul>{listed}</ul>"
        f"<h2>Stages</h2>{_table(('stage', 'customers', 'visits', 'median time', 'moved on', 'dropped off', 'here now'), stages)}"
        f"<h2>Flows</h2>{_table(('from', 'to', 'by', 'visits', 'customers'), flows)}</html>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
