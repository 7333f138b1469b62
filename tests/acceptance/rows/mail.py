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
from training.off_policy import Interval, doubly_robust, mean_interval
from training.uplift import Trial, best, dr_learner, policy_rows, qini, reward_models, t_learner

Values = npt.NDArray[np.float64]

ACTIONS = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
NOTHING, MENS = 0, 1
COST, MARGIN = 0.10, 0.4  # of an e-mail, and of each unit that is spent, in the units of `spend`: assumed, as a shop would
NUMBERS = ("recency", "history", "mens", "womens", "newbie")
TEXTS = ("zip_code", "channel", "history_segment")
CERTAIN = 0.5  # of the policy's gain: the half of the rows that it was learned from says nothing


class _Half(NamedTuple):
    """What a policy is worth on rows that it was not learned from, per customer."""

    value: Interval
    over_nothing: Interval
    over_mens: Interval


def measure(context: Context) -> Measured:
    rows = read_rows(data_folder(context.root, "hillstrom") / "hillstrom" / "emails.csv.gz")
    told, claims = [], []
    for objective in ("visit", "spend"):
        trial = rows.trial(objective)
        learned, unseen = halves(trial, context.seed)
        uplift = dr_learner(learned, NOTHING, context.seed)
        chosen = best(uplift.gains(unseen.inputs), np.zeros(len(ACTIONS)))
        found = judged(unseen, chosen, context.seed)
        plain = [interval(unseen, np.full(len(chosen), action), context.seed) for action in range(len(ACTIONS))]
        twice = t_learner(learned, NOTHING, context.seed).gains(unseen.inputs)
        everyone = ", ".join(f"{name} to everyone {_words(one)}" for name, one in zip(ACTIONS, plain, strict=True))
        sorts = [qini(unseen, gains[:, MENS], MENS, NOTHING) for gains in (uplift.gains(unseen.inputs), twice)]
        told.append(
            f"{objective}: {everyone}; by uplift {_words(found.value)}, over nothing {_words(found.over_nothing)}, over "
            f"Mens {_words(found.over_mens)}; Qini of Mens: DR {sorts[0]:+.5f}, T {sorts[1]:+.5f}"
        )
        claims.append(found.over_mens.low > 0.0)
    profit, everyone = profits(rows, context.seed)
    told.append(
        f"profit at {COST:.2f} an e-mail and {MARGIN:.0%} of spend: {_words(profit.value)} a customer, over nothing "
        f"{_words(profit.over_nothing)}, over Mens to everyone {_words(profit.over_mens)} (Mens to everyone {_words(everyone)})"
    )
    claims.append(profit.over_mens.low > 0.0)
    finite = all(np.isfinite([profit.value.low, profit.value.high]))
    return Measured(
        f"{len(rows.action):,} customers; {'; '.join(told)}; claims over Mens: {sum(claims)}", finite and not any(claims)
    )


def profits(rows: "Mails", seed: int) -> tuple[_Half, Interval]:
    """The policy that writes where it pays, and writing to everyone."""
    trial = rows.trial("spend")
    costs = np.array([0.0, COST, COST])
    earned = trial._replace(reward=MARGIN * trial.reward - costs[trial.action])
    learned, unseen = halves(earned, seed)
    chosen = best(dr_learner(learned, NOTHING, seed).gains(unseen.inputs), np.zeros(len(ACTIONS)))
    return judged(unseen, chosen, seed), interval(unseen, np.full(len(chosen), MENS), seed)


def halves(trial: Trial, seed: int) -> tuple[Trial, Trial]:
    """To learn from, and to judge by."""
    learned = np.random.default_rng(seed).random(len(trial.reward)) < CERTAIN
    return trial.take(learned), trial.take(~learned)


def contributions(unseen: Trial, chosen: npt.NDArray[np.intp], seed: int) -> Values:
    """Doubly robust, the reward model from the other half of the unseen rows."""
    expected = np.zeros((len(unseen.reward), len(ACTIONS)))
    folds = np.arange(len(unseen.reward)) % 2
    for fold in range(2):
        expected[folds == fold] = reward_models(unseen.take(folds != fold), seed)(unseen.inputs[folds == fold])
    return doubly_robust(policy_rows(unseen, chosen, expected))


def interval(unseen: Trial, chosen: npt.NDArray[np.intp], seed: int) -> Interval:
    return mean_interval(contributions(unseen, chosen, seed), np.arange(len(chosen)))


def judged(unseen: Trial, chosen: npt.NDArray[np.intp], seed: int) -> _Half:
    """A policy's value, and its gains over two plain ones on the same rows."""
    own, every = contributions(unseen, chosen, seed), np.arange(len(chosen))
    over = [contributions(unseen, np.full(len(chosen), action), seed) for action in (NOTHING, MENS)]
    return _Half(mean_interval(own, every), *(mean_interval(own - other, every) for other in over))


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
