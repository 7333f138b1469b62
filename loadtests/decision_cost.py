"""What a decision costs by the size of the catalog: `python -m loadtests.decision_cost --home HOME [--out docs/performance.md]`.

HOME needs a bundle that serves. The catalogs are made up: so many actions with the attributes that the bundle reads, so many
distinct rules, three of them on each action; nobody is dropped by all of them.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from features.homes import home_contract
from service.bundles.assembling import Choice, assemble
from service.bundles.loading import load_bundle
from service.catalog.entities import Scalar
from service.catalog.validate import load_catalog
from service.decision.again import encode_record
from service.decision.decide import decide
from service.decision.engine import Engine
from service.decision.entities import CustomerState, DecisionRequest, PlacementRequest
from service.registry import Registry

ACTIONS = (100, 1000, 10_000)
RULES = (10, 100)
RULES_AN_ACTION = 3
CATEGORIES = ("fashion", "home", "tech", "food", "travel")
SECONDS = 1.5  # of measuring, for each figure
HEADINGS = (
    "actions", "distinct rules", "check and compile, ms", "one decision, ms", "in a batch of 64, ms each", "without a model, ms",
    "record, kB",
)  # fmt: skip
FALLBACK = {"action": "none", "kind": "content"}
BEGIN, END = "<!-- decision cost: begin -->", "<!-- decision cost: end -->"


class Cost(NamedTuple):
    """Medians, in milliseconds: validating and compiling; one decision alone and in a batch of 64; without the model."""

    actions: int
    rules: int
    compile_ms: float
    alone_ms: float
    batched_ms: float
    rules_ms: float
    record_bytes: int


def large_catalog(actions: int, rules: int) -> dict[str, Any]:
    """A catalog of made-up actions with attributes, and distinct rules over two features."""
    named = {
        f"rule_{n}": f"customer.age >= {18 + n / 10:g}" if n % 2 else f"customer.tenure_days >= {n / 10:g}" for n in range(rules)
    }
    return {
        "catalog": 1,
        "attributes": {"category": "category", "discount": "number", "price": "number", "margin": "number", "cost": "number"},
        "rules": named,
        "issues": [{"id": "all"}],
        "groups": [{"id": f"group_{n}", "issue": "all"} for n in range(10)],
        "actions": [_action(number, list(named)) for number in range(actions)],
        "placements": [{"id": "hero", "channel": "web", "slots": 3, "explore": {"epsilon": 0.1}, "fallback": FALLBACK}],
    }


def _action(number: int, rules: Sequence[str]) -> dict[str, Any]:
    attributes = {
        "category": CATEGORIES[number % len(CATEGORIES)], "discount": (number % 10) / 20, "price": 10 + number % 200,
        "margin": 3 + number % 50, "cost": 1,
    }  # fmt: skip
    own = [rules[(number * RULES_AN_ACTION + n) % len(rules)] for n in range(RULES_AN_ACTION)]
    return {
        "id": f"action_{number}", "group": f"group_{number % 10}", "kind": "offer", "value": 1 + number % 7,
        "attributes": attributes, "eligibility": own,
        "treatments": [{"id": "card", "placements": ["hero"], "content": {"title": f"Offer {number}"}}],
    }  # fmt: skip


def costs(home: Path) -> Iterator[Cost]:
    """One line for each size, smallest first."""
    contract, registry = home_contract(home), Registry(home / "registry")
    champion = registry.current().champion
    if champion is None:
        raise SystemExit(f"error: Expected a bundle that serves, found none - at `{registry.root}`")
    bundle = load_bundle(registry.bundle_folder(champion), contract)
    for actions in ACTIONS:
        for rules in RULES:
            document = large_catalog(actions, rules)
            started = time.perf_counter()
            catalog = load_catalog(document, contract)
            engine = assemble(catalog, contract, Choice(1, champion), {champion: bundle}.get)
            compiled = time.perf_counter() - started
            flat = assemble(catalog, contract, Choice(1, None), lambda _: None)
            yield Cost(
                actions, rules, compiled * 1e3, _median(engine, 1), _median(engine, 64) / 64, _median(flat, 1),
                len(encode_record(decide(engine, list(_requests(1)))[0])),
            )  # fmt: skip


def _median(engine: Engine, batch: int) -> float:
    """Milliseconds for a batch."""
    requests = list(_requests(batch))
    decide(engine, requests)
    times: list[float] = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until or len(times) < 3:  # noqa: PLR2004  # fewer say nothing
        started = time.perf_counter()
        decide(engine, requests)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def _requests(count: int) -> Iterator[DecisionRequest]:
    for number in range(count):
        customer = CustomerState({"age": 26.0 + number % 40, "tenure_days": 30.0 * number, "spend_12m": 120.0, "visits_30d": 4.0})
        context: dict[str, Scalar] = {"channel": "web", "device": "mobile", "hour": 12.0, "weekday": 2.0}
        yield DecisionRequest(f"d{number}", f"c{number}", 1.79e9, customer, context, (PlacementRequest("hero", 3),))


def markdown(found: Sequence[Cost]) -> str:
    """The table of docs/performance.md."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---:" * len(HEADINGS) + "|"]
    for c in found:
        figures = (f"{c.compile_ms:,.0f}", *(f"{ms:.2f}" for ms in (c.alone_ms, c.batched_ms, c.rules_ms)))
        lines.append(f"| {c.actions:,} | {c.rules} | {' | '.join(figures)} | {c.record_bytes / 1e3:.1f} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Print the table; with `--out`, put it into the page."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.decision_cost", description="What a decision costs by size.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="a page with the two marks between which the table stands")
    options = parser.parse_args(argv)
    table = markdown(list(costs(options.home)))
    print(table)
    if options.out is not None:
        text = options.out.read_text()
        before, _, rest = text.partition(BEGIN)
        _, found, after = rest.partition(END)
        if not found:
            raise SystemExit(f"error: Expected the marks `{BEGIN}` and `{END}`, found none - at `{options.out}`")
        options.out.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
