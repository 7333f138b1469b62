"""What policies are worth per slate, where a placement shows several actions in order: `off_policy_slates` in an evaluation.

A policy's probability of a served action is known given the earlier slots as they were logged, and so is the log's: the weights
are those of a cascade, where a slot's reward may depend on the slots before it. Those of `independent` would ask how likely the
log was to show an action in a slot whatever the others showed, which no log says.
"""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from training.examples import Examples
from training.off_policy import Clusters, Interval, Mask, doubts, effective_sample_size
from training.off_policy_slates import SLATE_ESTIMATORS, Layout, Seen, SlateRows, SlateValue, cascade, lay_out, slate_value
from training.policies import ALWAYS, PolicyRows

Values = npt.NDArray[np.float64]
Bounds = tuple[float, float]

LOGGED, MEAN, DOUBLY_ROBUST = "logged", "mean", "dr"
DIGITS = 6


class Within(msgspec.Struct, frozen=True):
    """A value with its 95 % interval."""

    value: float
    ci: Bounds


class SlatePolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """A policy's mean reward per slate, the sum of its slots, with its 95 % interval.

    `slots`: of each slot where it was shown; None where it never was. `ess` and `max_weight`: of each slot, for weights multiply
    from the first one on; of slates that the policy has decided so far. `estimators`: per slate, by each of them.
    `doubts`: why the log cannot carry the value, in words.
    """

    value: float
    ci: Bounds
    estimator: str
    slots: tuple[Within | None, ...]
    ess: tuple[float, ...] | None = None
    max_weight: tuple[float, ...] | None = None
    estimators: dict[str, Within] | None = None
    doubts: tuple[str, ...] = ()


class PlacementSlates(msgspec.Struct, frozen=True):
    """A placement whose answers show several actions. `shown`: of so many slates each slot was."""

    placement: str
    slates: int
    shown: tuple[int, ...]
    policies: dict[str, SlatePolicy]


def slate_values(unseen: Examples, found: PolicyRows, clusters: Clusters) -> tuple[PlacementSlates, ...]:
    """By placement, where the log holds slates of more than one slot: nothing where it holds none. `clusters`: (rows,).

    Policies that always show the same action are left out: a slate shows none twice. Slots that nobody saw are no rows; where an
    earlier slot was not seen, the weight of a later one is unknown, and it is left out too.
    """
    return tuple(_placements(unseen, found, clusters))


def _placements(unseen: Examples, found: PolicyRows, clusters: Clusters) -> Iterator[PlacementSlates]:
    for placement in np.unique(unseen.placement[unseen.slot > 1]).tolist():
        here = np.flatnonzero(unseen.placement == placement)
        names = unseen.decision_id.take(pa.array(here)).dictionary_encode()
        longest = int(np.bincount(names.indices.to_numpy()).max())  # no slot beyond it has all earlier ones beside it
        here = here[unseen.slot[here] <= longest]
        ids = unseen.decision_id.take(pa.array(here)).to_pylist()
        layout = lay_out([(name,) for name in ids], unseen.slot[here])
        if longest > 1 and np.logical_and.accumulate(layout.shown, axis=1)[:, 1:].any():
            yield _placement(placement, layout, _Rows(found, here), _of_slates(layout, clusters[here]))


def _of_slates(layout: Layout, clusters: Clusters) -> Clusters:
    """Of rows -> of slates: the rows of a slate are one customer's."""
    groups = np.zeros(layout.shape[0], np.intp)
    groups[layout.slate] = clusters
    return groups


class _Rows:
    """The rows of one placement as policies see them."""

    def __init__(self, found: PolicyRows, here: npt.NDArray[np.intp]) -> None:
        self.policies: Sequence[str] = [policy for policy in found.policies if not policy.startswith(ALWAYS)]
        self._found, self._here = found, here

    def slates(self, policy: str, layout: Layout) -> tuple[SlateRows, Mask]:
        """Laid out, with the weights of a cascade; and what the policy has decided from the first slot on: (slates, slots)."""
        rows = self._found.rows(policy).take(self._here)
        reward, predicted, expected = map(layout.spread, (rows.reward, rows.predicted, rows.expected))
        seen = Seen(reward, predicted, expected, layout.shown)
        decided = np.ones(len(self._here)) if rows.decided is None else rows.decided.astype(np.float64)
        return cascade(layout.spread(rows.weight), seen), np.logical_or.accumulate(layout.spread(decided) == 1.0, axis=1)


def _placement(placement: str, layout: Layout, rows: _Rows, groups: Clusters) -> PlacementSlates:
    laid = {policy: rows.slates(policy, layout) for policy in rows.policies}
    first, _ = next(iter(laid.values()))
    logged = slate_value(np.where(first.seen.shown, first.seen.reward, np.nan), groups)
    policies = {LOGGED: SlatePolicy(*_rounded(logged.slate), MEAN, _slots(logged))}
    policies |= {policy: _policy(one, own, groups) for policy, (one, own) in laid.items()}
    return PlacementSlates(placement, int(first.seen.shown.any(axis=1).sum()), logged.shown, policies)


def _policy(rows: SlateRows, decided: Mask, groups: Clusters) -> SlatePolicy:
    by_name = {name: slate_value(estimator(rows), groups) for name, estimator in SLATE_ESTIMATORS.items()}
    own = by_name[DOUBLY_ROBUST]
    shown = rows.seen.shown
    weights = [weight[there] for weight, there in zip(rows.weight.T, (shown & decided).T, strict=True)]
    return SlatePolicy(
        *_rounded(own.slate), DOUBLY_ROBUST, _slots(own),
        ess=tuple(round(effective_sample_size(weight), 1) for weight in weights),
        max_weight=tuple(round(float(weight.max(initial=0.0)), DIGITS) for weight in weights),
        estimators={name: Within(*_rounded(value.slate)) for name, value in by_name.items()},
        doubts=tuple(
            f"slot {slot}: {doubt}"
            for slot, some in enumerate(weights, 1) if shown[:, slot - 1].any()
            for doubt in doubts(some)
        ),
    )  # fmt: skip


def _slots(value: SlateValue) -> tuple[Within | None, ...]:
    return tuple(None if slot is None else Within(*_rounded(slot)) for slot in value.slots)


def _rounded(interval: Interval) -> tuple[float, Bounds]:
    return round(interval.value, DIGITS), (round(interval.low, DIGITS), round(interval.high, DIGITS))
