"""Row 12: the service, called as its own OpenAPI document describes it, and as it does not."""

import re
import sys

from service.keys import SCOPES, make_key
from tests.acceptance.processes import clean_environment, run
from tests.acceptance.row import Context, Measured, NotRun, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.rows.live_world import live_home

FEWEST = 10_000
EXAMPLES = 1400  # of each operation, at most: some have few ways to be called
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
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", f"{url}/schema/openapi.json", "--seed", str(context.seed),
            "--max-examples", str(examples), "--phases", "examples,coverage,fuzzing", "--mode", "all", "--workers", "2",
            "--checks", ",".join(CHECKS), "--header", f"Authorization: Bearer {secret}", "--suppress-health-check", "all",
            "--warnings", "off", "--continue-on-failure", "--no-color",
        ]  # fmt: skip
        done = run(command, context.scratch, clean_environment(), LIMIT_S)
    counted = re.search(r"([\d,]+) generated", done.output)
    if counted is None:
        raise NotRun(f"Schemathesis did not say how many cases it tried: {done.tail}")
    cases, operations = int(counted[1].replace(",", "")), re.search(r"Tested: (\d+)", done.output)
    found = re.findall(r"❌ (ST\d+ [^\n]*?: \d+)", done.output)
    figure = f"{cases:,} cases of {operations[1] if operations else '?'} operations: {'; '.join(found) or 'nothing against it'}"
    return cases, figure, done.code == 0


ROW = Row(
    12,
    "Schemathesis over the OpenAPI document",
    f"at least {FEWEST:,} cases; no 5xx but 503 with Retry-After, no answer against the schema",
    measure,
)
