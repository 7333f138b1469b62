"""Which decisions a holdout is compared on: those of catalogs that planned it alike (`training.planned`)."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.contract import Contract
from service.decision.experiments import HOLDOUT, NOT_PERSONALISED
from service.registry import Registry
from training.experiments import mismatch
from training.planned import Plan, Plans
from training.report_counts import Answers


class Shares(NamedTuple):
    """Of customers, 0 to 1: in the holdout, and not personalised of the others. 0 and 0 where nobody knows."""

    holdout: float = 0.0
    plain: float = 0.0


class Holdouts:
    """Those that the catalogs of a registry plan."""

    def __init__(self, registry: Registry, contract: Contract) -> None:
        self._plans = Plans(registry, contract)

    def compared(self, answers: Answers) -> tuple[Answers, Shares]:
        """Those that were given under the plan of the newest one in the holdout, and its shares; all where there is none."""
        held = np.flatnonzero(answers.arm == HOLDOUT)
        if not len(held):
            return answers, Shares()
        newest = int(answers.catalog[held[np.argmax(answers.at[held])]])
        return answers.take(self._are_alike(answers, newest)), self.shares(newest)

    def nobody(self, answers: Answers, serving: int) -> float:
        """P that of so many nobody is in the holdout of the catalog that serves; nan where it plans none or somebody is."""
        shares = self.shares(serving)
        alike = self._are_alike(answers, serving) if shares.holdout else np.zeros(len(answers.arm), np.bool_)
        if (answers.arm[alike] == HOLDOUT).any():
            return math.nan
        outside = len(set(answers.customer[alike & (answers.arm == "")].tolist()))
        if not outside:
            return math.nan
        return mismatch([0, outside], [shares.holdout, (1.0 - shares.holdout) * (1.0 - shares.plain)])

    def shares(self, revision: int) -> Shares:
        """What a catalog plans."""
        catalog = self._plans.catalog(revision)
        if catalog is None:
            return Shares()
        return Shares(*(one.share if one else 0.0 for one in (catalog.holdout, catalog.not_personalised)))

    def _are_alike(self, answers: Answers, revision: int) -> npt.NDArray[np.bool_]:
        plan = self._plan(revision)
        return np.isin(answers.catalog, [one for one in np.unique(answers.catalog).tolist() if self._plan(one) == plan])

    def _plan(self, revision: int) -> tuple[Plan, Plan]:
        return self._plans.of(revision, HOLDOUT), self._plans.of(revision, NOT_PERSONALISED)
