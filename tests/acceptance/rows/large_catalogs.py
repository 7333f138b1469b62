"""Row 7: ten thousand actions are published, and serve."""

import json
import statistics
import time
from pathlib import Path

import httpx

from loadtests.decision_cost import large_catalog
from tests.acceptance.processes import clean_environment, nextbest, run_or_not
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.whole import whole_home, with_customers

ACTIONS, RULES = 10_000, 100
LIMIT_S = 10.0
REQUESTS = 100
PAGE = "docs/performance.md"
SIZES = ("100", "1,000", "10,000")


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
        f"{statistics.median(times):.0f} ms; {len(table)} sizes in {PAGE}"
    )
    return Measured(figure, published <= LIMIT_S and offers > REQUESTS // 2 and len(table) == 2 * len(SIZES))


def _in_the_page(page: Path) -> list[str]:
    """The lines of the table, one for each size and number of rules."""
    lines = page.read_text().splitlines() if page.exists() else []
    return [line for line in lines if any(line.startswith(f"| {size} | {rules} |") for size in SIZES for rules in (10, 100))]


ROW = Row(
    7,
    f"a catalog of {ACTIONS:,} actions and {RULES} rules",
    f"publishes within {LIMIT_S:.0f} s and serves; time by size in {PAGE}",
    measure,
)
