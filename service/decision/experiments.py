"""Who is in which experiment: sticky, by hash, without a list of customers."""

from collections.abc import Sequence
from itertools import accumulate

import msgspec

from service.catalog.entities import Experiment, Holdout
from service.decision.arbitration import fraction

HOLDOUT = "holdout"  # id of the experiment, and of its arm, that the universal holdout is logged as
LINE = "experiments line"  # salt of the line of hashes that the experiments share out


class Assigned(msgspec.Struct, frozen=True):
    """The experiment and the arm that a customer is in."""

    id: str
    arm: str


class Assignment:
    """Sends customers to the holdout, to arms of experiments, or to nothing of the kind."""

    def __init__(self, experiments: Sequence[Experiment], holdout: Holdout | None) -> None:
        self._experiments = experiments
        self._ends = {e.id: list(accumulate(arm.share for arm in e.arms)) for e in experiments}
        self._holdout = holdout

    def of(self, customer_id: str) -> Assigned | None:
        """The same answer for the same customer, always, and independently for every salt."""
        if self._holdout is not None and fraction(f"{self._holdout.salt}\x1f{customer_id}") < self._holdout.share:
            return Assigned(HOLDOUT, HOLDOUT)
        if not self._experiments:
            return None
        place = fraction(f"{LINE}\x1f{customer_id}")
        for experiment in self._experiments:
            if experiment.start <= place < experiment.start + experiment.share:
                return Assigned(experiment.id, self._arm(experiment, customer_id))
        return None

    def _arm(self, experiment: Experiment, customer_id: str) -> str:
        place = fraction(f"{experiment.salt}\x1f{customer_id}")
        ends = self._ends[experiment.id]
        return next((arm.id for arm, end in zip(experiment.arms, ends, strict=True) if place < end), experiment.arms[-1].id)
