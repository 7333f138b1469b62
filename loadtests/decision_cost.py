"""What a decision costs by the size of the catalog: the shop's with so many actions, rules and slots, in this process."""

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.homes import home_contract
from loadtests.world import PLACEMENT, catalog_document, contract, customers
from service.bundles.assembling import Choice, assemble
from service.bundles.loading import load_bundle
from service.catalog.entities import Scalar
from service.catalog.validate import load_catalog
from service.decision.again import encode_record
from service.decision.decide import decide
from service.decision.engine import Engine
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.registry import Registry

ACTIONS = (10, 100, 1000, 10_000)
RULES = (10, 100)
SLOTS = (1, 5)
SECONDS = 0.8  # of measuring, for each figure
COMPILED = 3  # times, of which the median counts: one alone has been 16 times what its neighbours cost, on a machine that stalled
HEADINGS = (
    "actions", "distinct rules", "slots", "check and compile, ms", "one decision, ms", "in a batch of 64, ms each",
    "without a model, ms", "record, kB",
)  # fmt: skip
BEGIN, END = "<!-- decision cost: begin -->", "<!-- decision cost: end -->"


class Size(NamedTuple):
    """Of a catalog and what is asked of it."""

    actions: int
    rules: int
    slots: int


class Cost(NamedTuple):
    """Medians, in milliseconds: validating and compiling; one decision alone and in a batch of 64; without the model."""

    size: Size
    compile_ms: float
    alone_ms: float
    batched_ms: float
    rules_ms: float
    record_bytes: int


class Growth(NamedTuple):
    """How many times as much the most expensive step to ten times as many costs; for slots, from one to five."""

    actions: float
    rules: float
    slots: float


def sizes() -> list[Size]:
    """All of them, smallest first."""
    return [Size(*size) for size in itertools.product(ACTIONS, RULES, SLOTS)]


def costs(home: Path) -> Iterator[Cost]:
    """One line for each size, smallest first."""
    declared, registry = home_contract(home), Registry(home / "registry")
    champion = registry.current().champion
    if champion is None:
        raise SystemExit(f"error: Expected a bundle that serves, found none - at `{registry.root}`")
    bundle = load_bundle(registry.bundle_folder(champion), declared)
    for size in sizes():
        document = catalog_document(*size)
        times: list[float] = []
        while len(times) < COMPILED:
            started = time.perf_counter()
            catalog = load_catalog(document, declared)
            engine = assemble(catalog, declared, Choice(1, champion), {champion: bundle}.get)
            times.append(time.perf_counter() - started)
        compiled = statistics.median(times)
        flat = assemble(catalog, declared, Choice(1, None), lambda _: None)
        one, some = requests(size.slots, 1), requests(size.slots, 64)
        record = encode_record(decide(engine, one)[0])
        yield Cost(
            size, compiled * 1e3, _median(engine, one), _median(engine, some) / len(some), _median(flat, one), len(record)
        )  # fmt: skip


def growth(found: Sequence[Cost]) -> Growth:
    """Of a decision, alone or in a batch, and of compiling a catalog: whichever grows most."""
    by_size = {cost.size: cost for cost in found}

    def worst(field: int) -> float:
        return max(
            later / before
            for size, cost in by_size.items()
            if (larger := by_size.get(_next(size, field))) is not None
            for before, later in zip(_figures(cost), _figures(larger), strict=True)
        )

    return Growth(worst(0), worst(1), worst(2))


def _figures(cost: Cost) -> tuple[float, ...]:
    return cost.compile_ms, cost.alone_ms, cost.batched_ms


def _next(size: Size, field: int) -> Size:
    """The size one step further on; one that nobody has where there is none."""
    steps = (ACTIONS, RULES, SLOTS)[field]
    place = steps.index(size[field]) + 1
    further = steps[place] if place < len(steps) else 0
    return Size(*(further if number == field else own for number, own in enumerate(size)))


def _median(engine: Engine, asked: Sequence[DecisionRequest]) -> float:
    """Milliseconds for all of them together."""
    decide(engine, asked)
    times: list[float] = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until or len(times) < 3:  # noqa: PLR2004  # fewer say nothing
        started = time.perf_counter()
        decide(engine, asked)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def requests(slots: int, count: int) -> list[DecisionRequest]:
    """Of the shop's first customers."""
    known = customers(count)
    context: dict[str, Scalar] = {"channel": "web", "device": "mobile", "hour": 12.0, "weekday": 2.0}
    features = contract().customer
    made = []
    for row in range(count):
        values = {f.name: _plain(known[f.key][row]) for f in features}
        state = CustomerState({name: value for name, value in values.items() if value is not None}, contacts=b"")
        made.append(DecisionRequest(f"d{row}", f"c{row}", 1.79e9, state, context, (PlacementRequest(PLACEMENT, slots),)))
    return made


def _plain(value: np.generic) -> Scalar | None:
    """A number or a word of Python's; None for what is missing."""
    plain: Scalar = value.item()
    return plain if plain == plain else None  # noqa: PLR0124  # NaN is the number that differs from itself


def markdown_start(size: Size) -> str:
    """How the line of a size begins in the table."""
    return f"| {size.actions:,} | {size.rules} | {size.slots} |"


def markdown(found: Sequence[Cost]) -> str:
    """The table of docs/performance.md."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---:" * len(HEADINGS) + "|"]
    for c in found:
        figures = (f"{c.compile_ms:,.0f}", *(f"{ms:.2f}" for ms in (c.alone_ms, c.batched_ms, c.rules_ms)))
        lines.append(f"{markdown_start(c.size)} {' | '.join(figures)} | {c.record_bytes / 1e3:.1f} |")
    return "\n".join(lines)
