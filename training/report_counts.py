"""What a report counts: one pass over decisions and outcomes, as columns. Then pure functions of them."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.decision.experiments import HOLDOUT, NOT_PERSONALISED
from service.decision.records import DecisionRecord, OutcomeRecord
from training.decision_log import each_once, read_decisions
from training.experiments import ArmSums, arm_sums
from training.live_log import read_log

Values = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]
Ints = npt.NDArray[np.intp]
Progress = Callable[[int, int], None]

DAY = 86400.0
MOST_PERIODS = 24
LENGTHS = (DAY / 24, DAY / 4, DAY, 7 * DAY, 28 * DAY, 91 * DAY, 364 * DAY)  # seconds of a period
TOLD_EVERY = 5000


class Served(NamedTuple):
    """First slots of answers that are no fallbacks. (rows,) each; `candidates`: how many actions could have been chosen."""

    at: Values
    placement: Names
    action: Names
    explored: npt.NDArray[np.bool_]
    assigned: npt.NDArray[np.bool_]  # to an arm of an experiment
    candidates: tuple[tuple[str, ...], ...]


class Items(NamedTuple):
    """Served items of a model, to be found by decision, placement and slot."""

    rates: Mapping[tuple[str, str, int], float]


class Answers(NamedTuple):
    """Decisions, (decisions,) each. `worth`: by type of outcome, the sum of its values; `success`: 0 or 1 of the objective."""

    at: Values
    customer: Names
    catalog: Ints  # its revision
    arm: Names  # `holdout`, `not_personalised`, or empty
    fallback: Values  # share of the placements
    degraded: tuple[tuple[str, ...], ...]
    success: Values
    worth: Mapping[str, Values]

    def take(self, is_in: npt.NDArray[np.bool_]) -> "Answers":
        """Some of them."""
        if is_in.all():
            return self
        degraded = tuple(one for one, kept in zip(self.degraded, is_in.tolist(), strict=True) if kept)
        worth = {kind: values[is_in] for kind, values in self.worth.items()}
        return Answers(
            self.at[is_in], self.customer[is_in], self.catalog[is_in], self.arm[is_in], self.fallback[is_in], degraded,
            self.success[is_in], worth,
        )  # fmt: skip


class Counted(NamedTuple):
    served: Served
    items: Items
    answers: Answers


def count(home: Path, objective: str, since: float, bundle: str | None, progress: Progress) -> Counted:
    """Everything that was decided from `since` on. `rates` are those that `bundle` predicted."""
    outcomes = _Outcomes(home, objective)
    first: list[tuple[float, str, str, bool, bool, tuple[str, ...]]] = []
    rates: dict[tuple[str, str, int], float] = {}
    rows: list[tuple[str, float, str, int, str, float, tuple[str, ...]]] = []
    for record in _once(home, since, progress):
        shown = [p for p in record.placements if not p.fallback]
        first += [
            (record.at, p.id, p.items[0].action_id, p.items[0].explored, record.experiment is not None, p.candidates)
            for p in shown if p.items
        ]  # fmt: skip
        if bundle is not None and record.versions.bundle == bundle:
            rates.update({(record.decision_id, p.id, i.rank): i.predicted_rate for p in shown for i in p.items})
        arm = record.experiment.id if record.experiment and record.experiment.id in (HOLDOUT, NOT_PERSONALISED) else ""
        share = 1.0 - len(shown) / len(record.placements) if record.placements else 0.0
        rungs = tuple(dict.fromkeys(reason.partition(":")[0] for reason in record.degraded))
        rows.append((record.decision_id, record.at, record.customer_id, record.versions.catalog, arm, share, rungs))
    at, placement, action, explored, assigned, candidates = zip(*first, strict=True) if first else ((),) * 6
    ids, moments, customers, revisions, arms, shares, degraded = zip(*rows, strict=True) if rows else ((),) * 7
    answers = Answers(
        np.array(moments, np.float64), np.array(customers, np.str_), np.array(revisions, np.intp), np.array(arms, np.str_),
        np.array(shares, np.float64), tuple(degraded), np.array([one in outcomes.successes for one in ids], np.float64),
        {kind: np.array([sums.get(one, 0.0) for one in ids], np.float64) for kind, sums in outcomes.worth.items()},
    )  # fmt: skip
    served = Served(
        np.array(at, np.float64), np.array(placement, np.str_), np.array(action, np.str_), np.array(explored, np.bool_),
        np.array(assigned, np.bool_), tuple(candidates),
    )  # fmt: skip
    return Counted(served, Items(rates), answers)


def _once(home: Path, since: float, progress: Progress) -> Iterator[DecisionRecord]:
    """Every decision once."""
    for done, logged in enumerate(each_once(read_decisions(home, since))):
        yield logged.record
        if done % TOLD_EVERY == 0:
            progress(done, 0)


class _Outcomes:
    """What came of decisions: who succeeded, and what it was worth, every outcome counted once."""

    def __init__(self, home: Path, objective: str) -> None:
        self.successes: set[str] = set()
        self.worth: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        told: set[str] = set()
        for one in read_log(home, "outcomes", OutcomeRecord):
            if one.outcome_id in told:
                continue
            told.add(one.outcome_id)
            if one.type == objective:
                self.successes.add(one.decision_id)
            if one.value:
                self.worth[one.type][one.decision_id] += one.value


class Periods(NamedTuple):
    """A span of time in equal parts: `starts` in seconds since 1970 UTC, each `length` seconds long."""

    starts: Values
    length: float

    def of(self, at: Values) -> Ints:
        """The period of each moment: (rows,)."""
        place = ((at - self.starts[0]) // self.length).astype(np.intp)
        return np.asarray(np.clip(place, 0, len(self.starts) - 1), np.intp)


def periods(start: float, end: float) -> Periods:
    """Hours, quarters of a day, days, weeks or more: the shortest that are 24 at most."""
    for length in LENGTHS:
        begin = start // length * length
        number = int((end - begin) // length) + 1
        if number <= MOST_PERIODS:
            return Periods(np.asarray(begin + length * np.arange(number), np.float64), length)
    length = (end - start) / MOST_PERIODS
    return Periods(np.asarray(start + length * np.arange(MOST_PERIODS), np.float64), length)


def by_arm(answers: Answers, outcome: Values, arm: npt.NDArray[np.bool_]) -> ArmSums:
    """An arm's outcomes per decision, over its customers: `training.experiments.arm_sums`."""
    names, customers = np.unique(answers.customer[arm], return_inverse=True)
    size = len(names)
    return arm_sums(
        np.bincount(customers, minlength=size).astype(np.float64),
        np.asarray(np.bincount(customers, outcome[arm], minlength=size), np.float64),
    )


def effective_actions(counts: Values) -> float:
    """How many actions, all shown alike, would be as varied: exp of Shannon's entropy (Hill 1973, order 1). 0 without any."""
    total = float(counts.sum())
    if not total:
        return 0.0
    shares = counts[counts > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))
