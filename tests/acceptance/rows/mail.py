"""Row 3: three ways to treat a customer, at random, and what can honestly be said of them."""

import csv
import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.contract import Feature
from features.vectors import vectorize
from tests.acceptance.data import data_folder
from tests.acceptance.row import Context, Measured, Row
from training.off_policy import Interval, mean_interval
from training.uplift import Trial, best, doubly_robust_scores, dr_learner, qini, reward_models, t_learner

Values = npt.NDArray[np.float64]

ACTIONS = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
NOTHING, MENS = 0, 1
COST, MARGIN = 0.10, 0.4  # of an e-mail, and of each unit that is spent, in the units of `spend`: assumed, as a shop would
NUMBERS = ("recency", "history", "mens", "womens", "newbie")
TEXTS = ("zip_code", "channel", "history_segment")
LEARNED = 0.5  # share of the customers that a policy is learned from; the others judge it


class _Judged(NamedTuple):
    """What a policy is worth a customer, and how much more than doing nothing, and than Mens to everyone."""

    value: Interval
    over_nothing: Interval
    over_mens: Interval


class _Unseen(NamedTuple):
    """Customers that no policy was learned from. `scores`: doubly robust, what each action brings each of them."""

    trial: Trial
    scores: Values

    def of(self, chosen: npt.NDArray[np.intp]) -> Values:
        """A policy's contributions, (rows,)."""
        return self.scores[np.arange(len(chosen)), chosen]

    def everyone(self, action: int) -> Values:
        """Those of one action for all."""
        return self.scores[:, action]

    def judged(self, chosen: npt.NDArray[np.intp]) -> _Judged:
        own = self.of(chosen)
        found = (_interval(own), *(_interval(own - self.everyone(action)) for action in (NOTHING, MENS)))
        return _Judged(*found)


def measure(context: Context) -> Measured:
    rows = read_rows(data_folder(context.root, "hillstrom") / "hillstrom" / "emails.csv.gz")
    told, judged = [], []
    for objective in ("visit", "spend"):
        learned, unseen = halves(rows.trial(objective), context.seed)
        gains = dr_learner(learned, NOTHING, context.seed).gains(unseen.trial.inputs)
        twice = t_learner(learned, NOTHING, context.seed).gains(unseen.trial.inputs)
        found = unseen.judged(best(gains, np.zeros(len(ACTIONS))))
        everyone = ", ".join(f"{name} to everyone {_words(_interval(unseen.everyone(n)))}" for n, name in enumerate(ACTIONS))
        sorts = [qini(unseen.trial, promised[:, MENS], MENS, NOTHING) for promised in (gains, twice)]
        told.append(
            f"{objective}: {everyone}; by uplift {_words(found.value)}, over nothing {_words(found.over_nothing)}, over Mens "
            f"{_words(found.over_mens)}; Qini of Mens: DR {sorts[0]:+.5f}, T {sorts[1]:+.5f}"
        )
        judged.append(found)
    profit, mens = profits(rows, context.seed)
    told.append(
        f"profit at {COST:.2f} an e-mail and {MARGIN:.0%} of spend: {_words(profit.value)} a customer, over nothing "
        f"{_words(profit.over_nothing)}, over Mens to everyone {_words(profit.over_mens)} (Mens to everyone {_words(mens)})"
    )
    judged.append(profit)
    claims = sum(one.over_mens.low > 0.0 for one in judged)
    certain = all(interval.low < interval.value < interval.high for one in judged for interval in one)
    return Measured(f"{len(rows.action):,} customers; {'; '.join(told)}; claims over Mens: {claims}", certain and not claims)


def profits(rows: "Mails", seed: int) -> tuple[_Judged, Interval]:
    """The policy that writes where it pays, and writing to everyone."""
    trial, costs = rows.trial("spend"), np.array([0.0, COST, COST])
    learned, unseen = halves(trial._replace(reward=MARGIN * trial.reward - costs[trial.action]), seed)
    chosen = best(dr_learner(learned, NOTHING, seed).gains(unseen.trial.inputs), np.zeros(len(ACTIONS)))
    return unseen.judged(chosen), _interval(unseen.everyone(MENS))


def halves(trial: Trial, seed: int) -> tuple[Trial, _Unseen]:
    """To learn from, and to judge by: there each half's reward model comes from the other."""
    learned = np.random.default_rng(seed).random(len(trial.reward)) < LEARNED
    unseen = trial.take(~learned)
    expected, folds = np.zeros((len(unseen.reward), len(ACTIONS))), np.arange(len(unseen.reward)) % 2
    for fold in range(2):
        expected[folds == fold] = reward_models(unseen.take(folds != fold), seed)(unseen.inputs[folds == fold])
    return trial.take(learned), _Unseen(unseen, doubly_robust_scores(unseen, expected))


def _interval(contributions: Values) -> Interval:
    return mean_interval(contributions, np.arange(len(contributions)))


class Mails(NamedTuple):
    """The table: inputs as a model meets them, what was sent, what came of it."""

    inputs: npt.NDArray[np.float32]
    action: npt.NDArray[np.intp]
    outcomes: dict[str, Values]

    def trial(self, objective: str) -> Trial:
        chance = np.full((len(self.action), len(ACTIONS)), 1.0 / len(ACTIONS))
        return Trial(self.inputs, self.action, self.outcomes[objective], chance)


def read_rows(path: Path) -> Mails:
    """Every customer of the challenge that is here."""
    with gzip.open(path, "rt", newline="") as lines:
        rows = list(csv.DictReader(lines))
    features, columns = [], {}
    for name in NUMBERS:
        features.append(Feature(name, "number", "profile"))
        columns[f"customer.{name}"] = np.array([float(row[name]) for row in rows])
    for name in TEXTS:
        values = [row[name] for row in rows]
        features.append(Feature(name, "category", "profile", categories=tuple(sorted(set(values)))))
        columns[f"customer.{name}"] = np.array(values, np.str_)
    action = np.array([ACTIONS.index(row["segment"]) for row in rows], np.intp)
    outcomes = {name: np.array([float(row[name]) for row in rows]) for name in ("visit", "conversion", "spend")}
    return Mails(vectorize(features, columns, len(rows)), action, outcomes)


def _words(one: Interval) -> str:
    return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"


ROW = Row(
    3,
    "Hillstrom's e-mails: value and uplift of visit and spend, and profit with `nothing` as an action and a cost per e-mail",
    'intervals for all; no claim over "Mens E-Mail to everyone"',
    measure,
)
