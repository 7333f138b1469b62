"""Row 7: a real campaign whose customers changed on the way, and real experiments whose arms were not assigned as planned."""

import csv
import gzip
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from tests.acceptance.data import data_folder
from tests.acceptance.row import Context, Measured, Row
from training.drift import DriftReport, drift
from training.experiments import MISMATCH, mismatch

LEFT_OUT = ("row", "duration", "y")  # an index; known after the call only; what came of it
BROKEN = range(201325, 201341)  # weeks whose splits are known to be broken
FLAGGED, FALSELY = 0.55, 0.04


def measure(context: Context) -> Measured:
    folder = data_folder(context.root, "bank", "upworthy")
    moved, still = bank(folder / "bank" / "contacts.csv.gz", context.seed)
    broken, earlier = upworthy(folder / "upworthy" / "arms.csv.gz")
    told = ", ".join(f"{one.column} {one.index:.2f}" for one in moved.shifted)
    figure = (
        f"bank, late rows against early ones: {told}; "
        f"AUC {moved.auc:.3f}; rows at random: {len(still.reasons)} alarms, AUC {still.auc:.3f}; "
        f"upworthy: {broken:.1%} of the tests of weeks {BROKEN[0]} to {BROKEN[-1]} flagged, {earlier:.1%} of the earlier ones"
    )
    return Measured(figure, bool(told) and not still.reasons and broken >= FLAGGED and earlier <= FALSELY)


def bank(path: Path, seed: int) -> tuple[DriftReport, DriftReport]:
    """The later half of the calls against the earlier one; and one half at random against the other, where nothing moves."""
    with pa.input_stream(str(path), compression="gzip") as stream:
        table = pyarrow.csv.read_csv(stream)
    rows = table.select([name for name in table.column_names if name not in LEFT_OUT])
    half = rows.num_rows // 2
    mixed = rows.take(pa.array(np.random.default_rng(seed).permutation(rows.num_rows)))
    return drift(rows.slice(0, half), rows.slice(half), seed), drift(mixed.slice(0, half), mixed.slice(half), seed)


def upworthy(path: Path) -> tuple[float, float]:
    """What share of tests the check of the arms' sizes flags: of the broken weeks, and of those before."""
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    weeks: dict[str, int] = {}
    with gzip.open(path, "rt", newline="", encoding="utf-8") as lines:
        for arm in csv.DictReader(lines):
            sizes[arm["clickability_test_id"]].append(int(arm["impressions"]))
            weeks[arm["clickability_test_id"]] = int(arm["test_week"])
    broken = [test for test, week in weeks.items() if week in BROKEN]
    earlier = [test for test, week in weeks.items() if week < BROKEN[0]]
    return _flagged(sizes, broken), _flagged(sizes, earlier)


def _flagged(sizes: Mapping[str, list[int]], tests: list[str]) -> float:
    """Every arm was to get the same share."""
    several = [sizes[test] for test in tests if len(sizes[test]) > 1]
    return float(np.mean([mismatch(arms, [1.0 / len(arms)] * len(arms)) < MISMATCH for arms in several]))


ROW = Row(
    7,
    "drift between early and late calls of a bank, none between halves at random; mismatched arms of Upworthy's tests",
    f"drift raised, by column; at p < {MISMATCH:g} at least {FLAGGED:.0%} of the tests in weeks {BROKEN[0]} to {BROKEN[-1]} are "
    f"flagged, at most {FALSELY:.0%} of the earlier ones",
    measure,
)
