"""Row 7: ten thousand actions are published, and serve."""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import httpx

from loadtests.decision_cost import markdown_start, sizes
from loadtests.world import ATTRIBUTES, FALLBACK, PLACEMENT, action
from tests.acceptance.processes import clean_environment, nextbest, run_or_not
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.whole import whole_home, with_customers

ACTIONS, RULES = 10_000, 100
LIMIT_S = 10.0
REQUESTS = 100
PAGE = "docs/performance.md"


def measure(context: Context) -> Measured:
    whole = whole_home(context)
    home = whole.folder
    path = home / "large.yaml"
    path.write_text(json.dumps(large_catalog(ACTIONS, RULES), indent=1))  # JSON is YAML, in its longest form
    started = time.perf_counter()
    run_or_not(nextbest("--home", str(home), "catalog", "publish", str(path)), context.root, clean_environment(), limit=120)
    published = time.perf_counter() - started
    with with_customers(whole), serving(home, context) as (_, url, ready), httpx.Client(base_url=url, timeout=10.0) as web:
        times, offers = [], 0
        for number in range(REQUESTS):
            before = time.perf_counter()
            asked = {"customer_id": f"c{number}", "placement": "hero", "deadline_ms": 5000, "context": {"device": "mobile"}}
            answer = web.post("/recommend", json=asked).raise_for_status().json()
            times.append((time.perf_counter() - before) * 1e3)
            offers += not answer["placements"][0]["fallback"]
    table = _in_the_page(context.root / PAGE)
    figure = (
        f"published in {published:.1f} s; ready after {ready:.1f} s; {offers} of {REQUESTS} requests got offers, p50 "
        f"{statistics.median(times):.0f} ms; {table} of {len(sizes())} sizes in {PAGE}"
    )
    return Measured(figure, published <= LIMIT_S and offers > REQUESTS // 2 and table == len(sizes()))


def large_catalog(actions: int, rules: int) -> dict[str, Any]:
    """A catalog of made-up actions with attributes, and distinct rules over two features."""
    named = {
        f"rule_{n}": f"customer.age >= {18 + n / 10:g}" if n % 2 else f"customer.tenure_days >= {n / 10:g}" for n in range(rules)
    }
    return {
        "catalog": 1,
        "attributes": ATTRIBUTES,
        "rules": named,
        "issues": [{"id": "all"}],
        "groups": [{"id": f"group_{n}", "issue": "all"} for n in range(10)],
        "actions": [action(number, list(named)) for number in range(actions)],
        "placements": [{"id": PLACEMENT, "channel": "web", "slots": 3, "explore": {"epsilon": 0.1}, "fallback": FALLBACK}],
    }


def _in_the_page(page: Path) -> int:
    """How many of the sizes have a line in the table."""
    lines = page.read_text().splitlines() if page.exists() else []
    return sum(any(line.startswith(markdown_start(size)) for line in lines) for size in sizes())


ROW = Row(
    7,
    f"a catalog of {ACTIONS:,} actions and {RULES} rules",
    f"publishes within {LIMIT_S:.0f} s and serves; time by size in {PAGE}",
    measure,
)
