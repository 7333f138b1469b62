"""Row 1: what a stranger meets who clones the project and types the two commands."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.processes import Finished, clean_environment, run, run_or_not
from tests.acceptance.row import Context, Measured, Row

DEMO_LIMIT = 90.0  # seconds
TEST_LIMIT = 360.0  # seconds
PATIENCE = 3.0  # times the limit: a slow run is measured, not cut off

Run = Callable[[list[str], Path, dict[str, str], float], Finished]


def measure(context: Context) -> Measured:
    clone = context.scratch / "clone"
    environment = clean_environment(XDG_CACHE_HOME=str(context.scratch / "empty-cache"))
    run_or_not(["git", "clone", "--quiet", str(context.root), str(clone)], context.scratch, environment, limit=120)
    context.tell("installing into the fresh clone (not part of the measurement) ...")
    installed = run_or_not(["make", "install"], clone, environment, limit=1200)
    context.tell(f"installed in {installed.seconds:.0f} s; running the demo, then the tests ...")
    demo = run(["make", "demo", "ARGS=--once"], clone, environment, DEMO_LIMIT * PATIENCE)
    tests = run(["make", "test"], clone, environment, TEST_LIMIT * PATIENCE)
    return judged(demo, tests, f"(install {installed.seconds:.0f} s, {os.cpu_count()} cores)")


def judged(demo: Finished, tests: Finished, remark: str) -> Measured:
    """Both must end well and in time; where one does not, its last words are quoted."""
    holds = demo.code == 0 and demo.seconds <= DEMO_LIMIT and tests.code == 0 and tests.seconds <= TEST_LIMIT
    figure = f"demo exit {demo.code} in {demo.seconds:.0f} s; test exit {tests.code} in {tests.seconds:.0f} s {remark}"
    last_words = [f"{name}: ... {done.tail}" for name, done in (("demo", demo), ("test", tests)) if done.code != 0]
    return Measured(" ".join([figure, *last_words]), holds)


ROW = Row(
    1,
    "fresh clone, empty cache: `make demo ARGS=--once`, then `make test`",
    f"exit 0 within {DEMO_LIMIT:.0f} s after installation; exit 0 within {TEST_LIMIT:.0f} s",
    measure,
)
