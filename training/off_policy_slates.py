"""What a policy would have earned slot by slot, where an answer shows several actions in order. Pure functions of arrays.

How far a slot's reward depends on the others is what is assumed: `cascade`, on the slots before it; `independent`, on none. The
estimators are those of `off_policy`, with the weights of that assumption. Arrays are float64, (slates, slots); a slate is one
placement of one decision. A slot that was not shown is kept apart: it is no row, neither success nor failure.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.off_policy import Clusters, Interval, Rows, Values, mean_interval, self_normalized

Mask = npt.NDArray[np.bool_]


class Seen(NamedTuple):
    """Logged slates: what each slot earned, and what a reward model expects.

    `predicted`: of the served action; `expected`: its mean over the policy's choices, given the earlier slots as they were logged
    for `cascade`, of the slot alone for `independent`. `shown`: bool. What was not shown may hold NaN.
    """

    reward: Values
    predicted: Values
    expected: Values
    shown: Mask


class SlateRows(NamedTuple):
    """Slates as one policy sees them, under an assumption. `before` weighs what the reward model expects of a slot."""

    weight: Values
    before: Values
    seen: Seen


class Layout(NamedTuple):
    """Where rows of a log lie among slates: row i is `slate[i]`, `slot[i]` (from 0)."""

    slate: npt.NDArray[np.intp]
    slot: npt.NDArray[np.intp]
    shape: tuple[int, int]

    def spread(self, values: Values) -> Values:
        """(rows,) -> (slates, slots), NaN where no row is."""
        table = np.full(self.shape, np.nan)
        table[self.slate, self.slot] = values
        return table

    @property
    def shown(self) -> Mask:
        """Slots of which there is a row: the log of examples holds those that were shown (`load_examples`)."""
        return ~np.isnan(self.spread(np.zeros(len(self.slate))))


def lay_out(slates: Sequence[tuple[str, ...]], slot: npt.NDArray[np.int64]) -> Layout:
    """Rows by the slate they belong to (decision and placement) and their slot, counted from 1.

    Slates are in the order of their first row. Raises ValueError where two rows claim one slot, or a slot is below 1.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(slates))}
    place = np.array([numbers[name] for name in slates], np.intp)
    if len(slot) and slot.min() < 1:
        raise ValueError(f"Expected slots counted from 1, got {slot.min()}")
    if len(set(zip(place.tolist(), slot.tolist(), strict=True))) < len(slot):
        raise ValueError("Expected one row for each slot of a slate, found two")
    return Layout(place, slot.astype(np.intp) - 1, (len(numbers), int(slot.max(initial=0))))


def cascade(ratios: Values, seen: Seen) -> SlateRows:
    """A slot's reward depends on the slots before it and on itself: weights multiply from the first slot on.

    The reward-interaction estimator of McInerney et al. 2020. `ratios`: the policy's probability of each served action
    given the earlier slots, divided by the logged one; known for slots that were not shown too. Where one is not (NaN), later
    slots have no weight: they count as not shown.
    """
    weight = np.asarray(np.cumprod(ratios, axis=1), np.float64)
    before = np.concatenate([np.ones((len(ratios), 1)), weight[:, :-1]], axis=1)
    return SlateRows(weight, before, seen._replace(shown=seen.shown & ~np.isnan(weight)))


def independent(ratios: Values, seen: Seen) -> SlateRows:
    """A slot's reward depends on its own action alone: each slot has its own weight.

    The item-position estimator of Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen 2018. `ratios`: how likely
    the policy shows this action in this slot, whatever the others show, divided by how likely the log did.
    """
    return SlateRows(ratios, np.ones_like(ratios), seen._replace(shown=seen.shown & ~np.isnan(ratios)))


def slate_ips(rows: SlateRows) -> Values:
    """Weighted rewards. Unbiased where the assumption holds, every choice could be logged, and showing depends on no choice."""
    return _where_shown(rows, rows.weight * rows.seen.reward)


def slate_snips(rows: SlateRows) -> Values:
    """Weights divided by their mean over the slot, linearised: Swaminathan and Joachims 2015, eq. 6, slot by slot."""
    found = np.full(rows.weight.shape, np.nan)
    for slot in range(rows.weight.shape[1]):
        here = rows.seen.shown[:, slot]
        if here.any():
            weight, reward = rows.weight[here, slot], rows.seen.reward[here, slot]
            found[here, slot] = self_normalized(Rows(weight, reward, np.zeros_like(reward), np.zeros_like(reward)))
    return found


def slate_dr(rows: SlateRows) -> Values:
    """The reward model, corrected by weighted residuals: Kiyohara et al. 2022, of each slot's own reward.

    Slot k: w(1..k) (r - q) + w(1..k-1) e; with `independent`, w(k) (r - q) + e. Right if the model or the weights are.
    """
    seen = rows.seen
    return _where_shown(rows, rows.before * seen.expected + rows.weight * (seen.reward - seen.predicted))


def _where_shown(rows: SlateRows, contributions: Values) -> Values:
    return np.where(rows.seen.shown, contributions, np.nan)


SLATE_ESTIMATORS: dict[str, Callable[[SlateRows], Values]] = {"ips": slate_ips, "snips": slate_snips, "dr": slate_dr}


class SlateValue(NamedTuple):
    """A policy's value: of each slot where it is shown (None: never), of a shown item, and of a slate, the sum of its slots."""

    slots: tuple[Interval | None, ...]
    item: Interval
    slate: Interval
    shown: tuple[int, ...]


def slate_value(contributions: Values, clusters: Clusters | None = None) -> SlateValue:
    """Means with 95 % intervals from contributions (slates, slots), NaN where not shown.

    Slots of a slate go together: the cluster is the slate, or what `clusters` (slates,), 0 to G - 1, says: a decision of several
    placements, a customer. Slates without any shown slot are left out. Raises ValueError where nothing was shown.
    """
    shown = ~np.isnan(contributions)
    if not shown.any():
        raise ValueError("Expected slots that were shown, found none")
    groups = np.arange(len(contributions)) if clusters is None else clusters
    slots = tuple(
        mean_interval(contributions[here, slot], groups[here]) if here.any() else None for slot, here in enumerate(shown.T)
    )
    slate, some = np.nonzero(shown)[0], shown.any(axis=1)
    item = mean_interval(contributions[shown], groups[slate])
    whole = mean_interval(np.nansum(contributions[some], axis=1), groups[some])
    return SlateValue(slots, item, whole, tuple(shown.sum(axis=0).tolist()))
