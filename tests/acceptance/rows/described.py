"""Row 12: the service, called as its own OpenAPI document describes it, and as it does not."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor

from service.keys import SCOPES, make_key
from tests.acceptance.processes import Finished, clean_environment, run
from tests.acceptance.row import Context, Measured, NotRun, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.rows.live_world import live_home

FEWEST = 10_000
EXAMPLES = 1300  # of each operation, at most: some have few ways to be called
CALLERS = 2  # processes that call, each with a seed of its own: making up a case is nine tenths of the work
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance", "unsupported_method",
)  # fmt: skip
LIMIT_S = 600.0


def measure(context: Context) -> Measured:
    cases, figure, holds = tried(context, EXAMPLES)
    return Measured(figure, holds and cases >= FEWEST)


def tried(context: Context, examples: int) -> tuple[int, str, bool]:
    """How many cases were tried, what was found in words, and whether nothing was. `examples`: of each operation, at most."""
    home = context.scratch / "described"
    live_home(home)
    _, secret = make_key(home, "tester", SCOPES, 0.0)
    with serving(home, context) as (_, url, _ready):

        def called(seed: int) -> Finished:
            command = [
                sys.executable, "-m", "schemathesis.cli", "run", f"{url}/schema/openapi.json", "--seed", str(seed),
                "--max-examples", str(examples // CALLERS), "--phases", "examples,coverage,fuzzing", "--mode", "all",
                "--checks", ",".join(CHECKS), "--header", f"Authorization: Bearer {secret}", "--suppress-health-check", "all",
                "--warnings", "off", "--continue-on-failure", "--no-color",
            ]  # fmt: skip
            return run(command, home / str(seed), clean_environment(), LIMIT_S)

        seeds = [CALLERS * context.seed + number for number in range(CALLERS)]
        for seed in seeds:
            (home / str(seed)).mkdir()
        with ThreadPoolExecutor(CALLERS) as callers:
            done = list(callers.map(called, seeds))
    cases, operations = sum(_cases(one) for one in done), re.search(r"Tested: (\d+)", done[0].output)
    found = re.findall(r"❌ (ST\d+ [^\n]*?: \d+)", "\n".join(one.output for one in done))
    figure = f"{cases:,} cases of {operations[1] if operations else '?'} operations: {'; '.join(found) or 'nothing against it'}"
    return cases, figure, all(one.code == 0 for one in done)


def _cases(done: Finished) -> int:
    """How many one process tried. Raises NotRun where it does not say."""
    counted = re.search(r"([\d,]+) generated", done.output)
    if counted is None:
        raise NotRun(f"Schemathesis did not say how many cases it tried: {done.tail}")
    return int(counted[1].replace(",", ""))


ROW = Row(
    12,
    "Schemathesis over the OpenAPI document",
    f"at least {FEWEST:,} cases; no 5xx but 503 with Retry-After, no answer against the schema",
    measure,
)
