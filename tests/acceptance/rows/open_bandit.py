"""Row 1: a real log of Thompson sampling says what a uniform policy earns; the log of that policy says whether it is true."""

import csv
import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.acceptance.data import data_folder
from tests.acceptance.row import Context, Measured, Row
from training.off_policy import Rows, estimate

Values = npt.NDArray[np.float64]

ITEMS = 34
EFFECTIVE, NEAR = 656.0, 0.05  # rows, as the data's description has it; a share
SPOILED = 1e-6  # in place of one logged probability
PRIOR = 100.0  # rows of the overall rate that each item's rate begins with: 46 clicks are few for 34 items
FOLDS = 2


def measure(context: Context) -> Measured:
    folder = data_folder(context.root, "open_bandit") / "open_bandit"
    items, clicks, logged = read_log(folder / "men_bts.csv.gz")
    truth = float(read_log(folder / "men_random.csv.gz")[1].mean())
    found = estimate(uniform_rows(items, clicks, logged), np.arange(len(clicks)))
    spoiled = logged.copy()
    spoiled[0] = SPOILED
    doubted = estimate(uniform_rows(items, clicks, spoiled), np.arange(len(clicks)))
    inside = {name: found.intervals[name].low <= truth <= found.intervals[name].high for name in ("snips", "dr")}
    told = ", ".join(f"{name} {one.value:.5f} [{one.low:.5f}, {one.high:.5f}]" for name, one in found.intervals.items())
    figure = (
        f"truth {truth:.5f}; {told}; effective sample size {found.effective:.1f} of {len(clicks):,}: {found.verdict}; "
        f"one probability {SPOILED:g}: {doubted.verdict} ({'; '.join(doubted.doubts)})"
    )
    near = abs(found.effective / EFFECTIVE - 1.0) <= NEAR
    holds = all(inside.values()) and near and (found.verdict, doubted.verdict) == ("tell", "refuse")
    return Measured(figure, holds)


def read_log(path: Path) -> tuple[npt.NDArray[np.intp], Values, Values]:
    """Which item was shown, whether it was clicked, and how likely it was to be shown: (rows,) each."""
    with gzip.open(path, "rt", newline="") as lines:
        rows = [(int(r["item_id"]), float(r["click"]), float(r["propensity_score"])) for r in csv.DictReader(lines)]
    items, clicks, logged = zip(*rows, strict=True)
    return np.array(items, np.intp), np.array(clicks), np.array(logged)


def uniform_rows(items: npt.NDArray[np.intp], clicks: Values, logged: Values) -> Rows:
    """The log as a policy sees it that shows every item with the same probability.

    The reward model is each item's rate in the other half of the log, so that no row is predicted by its own click.
    """
    predicted, expected = np.empty(len(items)), np.empty(len(items))
    folds = np.arange(len(items)) % FOLDS
    for fold in range(FOLDS):
        other, own = folds != fold, folds == fold
        shown = np.bincount(items[other], minlength=ITEMS)
        rates = (np.bincount(items[other], clicks[other], ITEMS) + PRIOR * clicks[other].mean()) / (shown + PRIOR)
        predicted[own], expected[own] = rates[items[own]], rates.mean()
    return Rows(1.0 / ITEMS / logged, clicks, predicted, expected)


ROW = Row(
    1,
    "Open Bandit, men's campaign: the uniform policy from the log of Thompson sampling",
    f"the truth inside the intervals of SNIPS and DR; effective sample size within {NEAR:.0%} of {EFFECTIVE:.0f}; with one "
    f"probability {SPOILED:g} the verdict is `refuse`",
    measure,
)
