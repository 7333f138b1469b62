"""Who is in which experiment: sticky, by hash, without a list of customers."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import msgspec

from service.catalog.entities import Experiment, Holdout
from service.decision.arbitration import fraction

HOLDOUT = "holdout"  # id of the experiment, and of its arm, that the universal holdout is logged as
NOT_PERSONALISED = "not_personalised"  # the same of those who are answered as if nobody knew them, and no model served
CANARY = "canary"  # id of the experiment that a canary's decisions are logged as; the arm is the bundle
ARM_FAILED = "arm_failed:"  # prefix of an arm's bundle that could not be used: the champion decided
CANARY_FAILED = "canary_failed:"  # prefix of a canary that would have decided, and could not: the champion did
REMEMBERED = 8192  # customers, whose hashes take 4 us
LINE = "experiments line"  # salt of the line of hashes that the experiments share out


class Assigned(msgspec.Struct, frozen=True):
    """The experiment and the arm that a customer is in."""

    id: str
    arm: str


PLAIN_ARM = Assigned(NOT_PERSONALISED, NOT_PERSONALISED)


class Canary(msgspec.Struct, frozen=True):
    """A bundle that decides for a share of the customers, 0 to 1. Where it `failed`, the champion decides for them."""

    bundle: str
    share: float
    failed: bool = False

    @property
    def arm(self) -> Assigned:
        """As its decisions are logged."""
        return Assigned(CANARY, self.bundle)

    def takes(self, customer_id: str) -> bool:
        """By a hash of their id that no other bundle shares."""
        return fraction(f"{CANARY} {self.bundle}\x1f{customer_id}") < self.share


class Assignment:
    """Sends customers to the holdout, to those who are not personalised, to arms of experiments, to canaries, or to nothing."""

    def __init__(
        self, experiments: Sequence[Experiment], holdout: Holdout | None, plain: Holdout | None = None,
        canaries: Sequence[Canary] = (),
    ) -> None:  # fmt: skip
        self.canaries = tuple(canaries)
        self._experiments = experiments
        self._ends = {e.id: list(accumulate(arm.share for arm in e.arms)) for e in experiments}
        self._holdout = holdout
        self._plain = plain
        self._of = lru_cache(REMEMBERED)(self._work_out)

    def of(self, customer_id: str) -> Assigned | None:
        """The same answer for the same customer, always, and independently for every salt."""
        return self._of(customer_id)

    def _work_out(self, customer_id: str) -> Assigned | None:
        if _is_in(self._holdout, customer_id):
            return Assigned(HOLDOUT, HOLDOUT)
        if _is_in(self._plain, customer_id):
            return PLAIN_ARM
        if self._experiments:
            place = fraction(f"{LINE}\x1f{customer_id}")
            for experiment in self._experiments:
                if experiment.start <= place < experiment.start + experiment.share:
                    return Assigned(experiment.id, self._arm(experiment, customer_id))
        canary = next((one for one in self.canaries if one.takes(customer_id)), None)
        return None if canary is None or canary.failed else canary.arm

    def failed_canary(self, customer_id: str) -> str | None:
        """The bundle that would have decided for the customer, had it not failed."""
        if not any(one.failed for one in self.canaries) or self.of(customer_id) is not None:
            return None
        return next((one.bundle for one in self.canaries if one.takes(customer_id)), None)

    def with_canaries(self, canaries: Sequence[Canary]) -> "Assignment":
        """The same for everybody but those who are in no experiment."""
        return Assignment(self._experiments, self._holdout, self._plain, canaries)

    def is_personalised(self, customer_id: str) -> bool:
        """Whether what is known of a customer may count: of one in a hundred it does not, which shows what it is worth."""
        return self.of(customer_id) is not PLAIN_ARM

    def _arm(self, experiment: Experiment, customer_id: str) -> str:
        place = fraction(f"{experiment.salt}\x1f{customer_id}")
        ends = self._ends[experiment.id]
        return next((arm.id for arm, end in zip(experiment.arms, ends, strict=True) if place < end), experiment.arms[-1].id)


def _is_in(part: Holdout | None, customer_id: str) -> bool:
    return part is not None and part.share > 0.0 and fraction(f"{part.salt}\x1f{customer_id}") < part.share
