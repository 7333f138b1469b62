"""Row 2: a real randomised log, whose truth is on file: the arm means."""

import csv
import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

from tests.acceptance.processes import clean_environment, nextbest, run_or_not
from tests.acceptance.row import Context, Measured, NotRun, Row

MAPPING = Path("training/demo/hillstrom.toml")
OBJECTIVE = "visit"


def measure(context: Context) -> Measured:
    table = table_path(context.root)
    return judged(evaluation(context, table), arm_means(table))


def table_path(root: Path) -> Path:
    """The log, as the project's users keep it beside the checkout. Raises NotRun where it is absent."""
    data = Path(os.environ.get("NEXTBEST_DATA") or root.parent / "shared" / "data")
    table = data / "hillstrom" / "emails.csv.gz"
    if not table.is_file():
        raise NotRun("the Hillstrom log is not here: set NEXTBEST_DATA to a folder that holds hillstrom/emails.csv.gz")
    return table


def evaluation(context: Context, table: Path) -> dict[str, Any]:
    """What `nextbest evaluate --json` prints after an import and a training."""
    home = context.scratch / "hillstrom"
    steps = (
        ("import", str(table), "--mapping", str(context.root / MAPPING)),
        ("catalog", "publish", str(home / "catalog.yaml")),
        ("train", "--objective", OBJECTIVE, "--seed", str(context.seed)),
    )
    for step in steps:
        run_or_not(nextbest("--home", str(home), *step), context.root, clean_environment(), limit=300)
    command = nextbest("--home", str(home), "evaluate", "--objective", OBJECTIVE, "--json")
    done = run_or_not(command, context.root, clean_environment(), limit=300)
    (context.scratch / "hillstrom.json").write_text(done.output)
    found: dict[str, Any] = json.loads(done.output[done.output.index("{") :])
    return found


def arm_means(table: Path) -> dict[str, tuple[float, int]]:
    """Mean of the objective and number of customers per arm, straight from the file."""
    sums: dict[str, list[int]] = {}
    with gzip.open(table, "rt", newline="") as rows:
        for row in csv.DictReader(rows):
            sums.setdefault(row["segment"], []).append(int(row[OBJECTIVE]))
    return {arm: (sum(visits) / len(visits), len(visits)) for arm, visits in sums.items()}


def judged(found: dict[str, Any], means: dict[str, tuple[float, int]]) -> Measured:
    """The three promises: arms as they are, a gain over the log, no victory that is none."""
    rows, policies = found["rows"], found["policies"]
    everyone = sum(count for _, count in means.values())
    distances = []
    for arm, (mean, count) in means.items():
        standard_error = math.sqrt(mean * (1 - mean) / (count * rows / everyone))
        distances.append(abs(policies[f"always:{arm}"]["value"] - mean) / standard_error)
    gain, over_static = found["gain_over_logged"], found["gain_over_best_static"]
    honest = not found["beats_best_static"] or over_static["ci"][0] > 0
    figure = (
        f"always: at most {max(distances):.2f} standard errors off; gain over logged {gain['value']:+.4f} "
        f"[{gain['ci'][0]:+.4f}, {gain['ci'][1]:+.4f}]; over {found['best_static']} {over_static['value']:+.4f} "
        f"[{over_static['ci'][0]:+.4f}, {over_static['ci'][1]:+.4f}], beats it: {found['beats_best_static']}; {rows} rows"
    )
    return Measured(figure, len(means) > 0 and max(distances) <= 2 and gain["ci"][0] > 0 and honest)  # the bar


ROW = Row(
    2,
    "Hillstrom, `visit`: values against the arm means, the bundle against the log",
    "always: within 2 standard errors; gain over logged > 0 (95 %); no claim over the best static without proof",
    measure,
)
