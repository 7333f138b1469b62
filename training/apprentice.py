"""`nextbest apprentice`: how far the existing system's choices can be foretold from what is known of a request.

Whoever wants to take a system's place shows first that what it decides from is among the inputs, and means what it is thought to.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import lightgbm
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.contract import Contract
from features.homes import home_contract
from features.vectors import Matrix
from service.errors import NotReady
from training.examples import Examples, Objective, load_examples
from training.fit import FEWEST_ROWS, VALIDATION_SHARE, FitSettings, parameters_of
from training.judging import Gain
from training.lake import IMPRESSION, read_tables
from training.off_policy import Clusters, Values, mean_interval
from training.split import TRAIN_SHARE, choose_split, seen
from training.threads import threads_for

Names = npt.NDArray[np.str_]
Progress = Callable[[int, int], None]
Verdict = Literal["learned", "not shown", "worse"]

MOST_TREES = 6000  # a round is a tree for each action


class ApprenticeReport(msgspec.Struct, frozen=True):
    """Shares of the unseen rows, with 95 % intervals that allow for rows of one customer to go together.

    `matches`: where the apprentice names the action that the existing system chose. `usual`: where the most frequent action of
    the learned rows would have been right, `gain` the difference. `repeats`: how often the existing system would choose the same
    again, by the probabilities that its log gives; None without them.
    """

    learned: int
    unseen: int
    actions: int
    matches: Gain
    usual_action: str
    usual: Gain
    gain: Gain
    repeats: float | None
    verdict: Verdict


def apprentice(
    home: Path,
    share: float = TRAIN_SHARE,
    settings: FitSettings | None = None,
    progress: Progress = lambda _done, _of: None,
) -> ApprenticeReport:
    """Learn from the older part of what was imported (`share` of its rows), and be judged on the rest. Raises NotReady."""
    contract = home_contract(home)
    rows = _imported(home, contract)
    mine = seen(choose_split(rows, share), rows)
    learned, unseen = rows.take(mine), rows.take(~mine)
    actions, chosen, counts = np.unique(learned.action_id, return_inverse=True, return_counts=True)
    if len(learned) < FEWEST_ROWS or len(actions) < 2 or not len(unseen):  # noqa: PLR2004  # else there is no choice
        raise NotReady(
            f"Expected at least {FEWEST_ROWS} rows of several actions to learn from and others to prove it, found "
            f"{len(learned)} of {len(actions)} actions and {len(unseen)} others"
        )
    inputs, others = _inputs(rows, contract)[mine], _inputs(rows, contract)[~mine]
    booster = _fit(inputs, chosen, len(actions), settings or FitSettings(), progress)
    chances = booster.predict(others, num_iteration=booster.best_iteration, num_threads=threads_for(len(others)))
    foretold = actions[np.argmax(chances, axis=1)]
    return _report(learned, unseen, foretold, str(actions[np.argmax(counts)]))


def _imported(home: Path, contract: Contract) -> Examples:
    """What another system decided, first slots only. Raises NotReady where nothing was imported."""
    ids = [column for table in read_tables(home, "decisions") for column in table["decision_id"].chunks]
    if not ids:
        raise NotReady("Expected the log of an existing system, found none: run `nextbest import TABLE --mapping FILE`")
    rows = load_examples(home, Objective(IMPRESSION), contract, fill=False)
    theirs = pc.is_in(rows.decision_id, pa.concat_arrays(ids)).to_numpy(zero_copy_only=False)
    first = rows.slot == rows.slot.min()
    return rows.take(theirs & first)


def _inputs(rows: Examples, contract: Contract) -> Matrix:
    """What was known before the choice: float32 (rows, features and the placement)."""
    placement = np.unique(rows.placement, return_inverse=True)[1].astype(np.float32)
    return np.column_stack([rows.matrix(contract.features, {}), placement])


def _fit(
    inputs: Matrix, chosen: npt.NDArray[np.intp], actions: int, settings: FitSettings, progress: Progress
) -> lightgbm.Booster:
    """One softmax over the actions: a rate for each would not add up. The last fifth of the rows says when to stop."""
    cut = int(len(chosen) * (1 - VALIDATION_SHARE))
    parameters = parameters_of(settings, cut) | {"objective": "multiclass", "num_class": actions, "metric": "multi_logloss"}
    quiet = {"feature_pre_filter": False, "verbosity": -1, "num_threads": parameters["num_threads"]}
    train = lightgbm.Dataset(inputs[:cut], chosen[:cut], params=quiet)
    check = lightgbm.Dataset(inputs[cut:], chosen[cut:], reference=train)
    rounds = max(1, min(settings.rounds, MOST_TREES // actions))
    callbacks = [
        lightgbm.early_stopping(settings.patience, verbose=False), lambda told: progress(told.iteration + 1, rounds),
    ]  # fmt: skip
    return lightgbm.train(parameters, train, rounds, valid_sets=[check], callbacks=callbacks)


def _report(learned: Examples, unseen: Examples, foretold: Names, usual: str) -> ApprenticeReport:
    clusters: Clusters = np.unique(unseen.customer_id, return_inverse=True)[1]
    own, plain = ((unseen.action_id == names).astype(np.float64) for names in (foretold, usual))
    gain = _gain(own - plain, clusters)
    verdict: Verdict = "learned" if gain.ci[0] > 0.0 else "worse" if gain.ci[1] < 0.0 else "not shown"
    known = unseen.choice_probability[~np.isnan(unseen.choice_probability)]
    return ApprenticeReport(
        len(learned), len(unseen), len(np.unique(learned.action_id)), _gain(own, clusters), usual, _gain(plain, clusters), gain,
        float(known.mean()) if len(known) else None, verdict,
    )  # fmt: skip


def _gain(contributions: Values, clusters: Clusters) -> Gain:
    found = mean_interval(contributions, clusters)
    return Gain(found.value, (found.low, found.high))
