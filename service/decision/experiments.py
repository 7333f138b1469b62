"""Who is in which experiment: sticky, by hash, without a list of customers."""

from collections.abc import Sequence
from itertools import accumulate

import msgspec

from service.catalog.entities import Experiment, Holdout
from service.decision.arbitration import fraction

HOLDOUT = "holdout"  # id of the experiment, and of its arm, that the universal holdout is logged as
NOT_PERSONALISED = "not_personalised"  # the same of those who are answered as if nobody knew them, and no model served
LINE = "experiments line"  # salt of the line of hashes that the experiments share out


class Assigned(msgspec.Struct, frozen=True):
    """The experiment and the arm that a customer is in."""

    id: str
    arm: str


PLAIN_ARM = Assigned(NOT_PERSONALISED, NOT_PERSONALISED)


class Assignment:
    """Sends customers to the holdout, to those who are not personalised, to arms of experiments, or to nothing of the kind."""

    def __init__(self, experiments: Sequence[Experiment], holdout: Holdout | None, plain: Holdout | None = None) -> None:
        self._experiments = experiments
        self._ends = {e.id: list(accumulate(arm.share for arm in e.arms)) for e in experiments}
        self._holdout = holdout
        self._plain = plain

    def of(self, customer_id: str) -> Assigned | None:
        """The same answer for the same customer, always, and independently for every salt."""
        if _is_in(self._holdout, customer_id):
            return Assigned(HOLDOUT, HOLDOUT)
        if _is_in(self._plain, customer_id):
            return PLAIN_ARM
        if not self._experiments:
            return None
        place = fraction(f"{LINE}\x1f{customer_id}")
        for experiment in self._experiments:
            if experiment.start <= place < experiment.start + experiment.share:
                return Assigned(experiment.id, self._arm(experiment, customer_id))
        return None

    def is_personalised(self, customer_id: str) -> bool:
        """Whether what is known of a customer may count: of one in a hundred it does not, which shows what it is worth."""
        return _is_in(self._holdout, customer_id) or not _is_in(self._plain, customer_id)

    def _arm(self, experiment: Experiment, customer_id: str) -> str:
        place = fraction(f"{experiment.salt}\x1f{customer_id}")
        ends = self._ends[experiment.id]
        return next((arm.id for arm, end in zip(experiment.arms, ends, strict=True) if place < end), experiment.arms[-1].id)


def _is_in(part: Holdout | None, customer_id: str) -> bool:
    return part is not None and part.share > 0.0 and fraction(f"{part.salt}\x1f{customer_id}") < part.share
