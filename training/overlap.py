"""Where a policy and the log overlap, action by action: what an estimate from logged choices can rest on, and what not."""

from collections.abc import Sequence

import msgspec
import numpy as np

from training.off_policy import FEWEST_EFFECTIVE, Values
from training.policies import UNKNOWN, Chunk

MUCH = 0.05  # of a policy's choices: an action with as many should be known
OFF = 0.25  # further from 1, and there were rows that could not show it, or the log did not choose by what it says
DIGITS = 6


class ActionOverlap(msgspec.Struct, frozen=True, omit_defaults=True):
    """One action in the log and in a policy's choices for the same rows.

    `rows` showed it: the share `logged` of all; the policy would show it in the share `policy`. `ess`: effective rows of them by
    the policy's weights (Kish 1965), `max_weight` the largest weight, `least_probability` the smallest by which the log chose it.
    `covered`: the sum of those weights over the rows that the policy would give to it, on average 1 where every such row could
    have shown it in the log, and as likely as was logged. `doubt`: why an estimate of what it brings is no good.
    """

    action: str
    rows: int
    logged: float
    policy: float
    covered: float | None = None
    ess: float = 0.0
    max_weight: float | None = None
    least_probability: float | None = None
    doubt: str | None = None


class OverlapCounts:
    """Counts chunk by chunk, in memory for the actions alone."""

    def __init__(self, actions: Sequence[str]) -> None:
        self._actions = actions
        self._rows = 0
        self._wanted, self._shown, self._weights, self._squares, self._most = np.zeros((5, len(actions)))
        self._least = np.full(len(actions), np.inf)

    def add(self, chunk: Chunk, probabilities: Values, logged: Values) -> None:
        """The policy's choices, (rows, actions), and with which probability the log chose what it served, (rows,)."""
        every = probabilities.sum(axis=1) > 0.0
        self._rows += int(every.sum())
        self._wanted += probabilities.sum(axis=0)
        known = np.flatnonzero(every & (chunk.served != UNKNOWN))
        served, chance = chunk.served[known], logged[known]
        weight = probabilities[known, served] / chance
        size = len(self._actions)
        self._shown += np.bincount(served, minlength=size)
        self._weights += np.bincount(served, weight, minlength=size)
        self._squares += np.bincount(served, weight**2, minlength=size)
        np.maximum.at(self._most, served, weight)
        np.minimum.at(self._least, served, chance)

    def told(self) -> tuple[ActionOverlap, ...]:
        """Actions that either shows, those first that the policy shows most."""
        order = sorted(range(len(self._actions)), key=lambda place: (-self._wanted[place], -self._shown[place]))
        return tuple(self._action(place) for place in order if self._wanted[place] > 0.0 or self._shown[place])

    def _action(self, place: int) -> ActionOverlap:
        shown, wanted, weights = int(self._shown[place]), float(self._wanted[place]), float(self._weights[place])
        squares, policy = float(self._squares[place]), wanted / self._rows
        ess, covered = (weights**2 / squares if squares else 0.0), weights / wanted if wanted else None
        return ActionOverlap(
            self._actions[place], shown, round(shown / self._rows, DIGITS), round(policy, DIGITS),
            covered=None if covered is None else round(covered, DIGITS), ess=round(ess, 1),
            max_weight=round(float(self._most[place]), DIGITS) if shown else None,
            least_probability=round(float(self._least[place]), DIGITS) if shown else None,
            doubt=_doubt(shown, policy, ess, covered),
        )  # fmt: skip


def _doubt(shown: int, policy: float, ess: float, covered: float | None) -> str | None:
    if policy < MUCH or covered is None:
        return None
    if not shown:
        return "the log never shows it"
    if ess < FEWEST_EFFECTIVE:
        return f"effective rows {ess:.0f}, {FEWEST_EFFECTIVE:.0f} are needed"
    if abs(covered - 1.0) > OFF:
        return f"the log covers {covered:.0%} of its rows"
    return None
