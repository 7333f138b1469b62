"""Which budgets held when, as the service counts: a decision by those of its catalog and arm, an impression by all there are.

A budget that is new has nothing of what was decided before, and one of an arm nothing of other customers'.
"""

import datetime as dt
from bisect import bisect_right

from features.contract import Contract
from service.catalog.entities import Catalog
from service.catalog.policies import Counted, counted_as
from service.decision.engine import arm_catalogs
from service.decision.experiments import Assigned
from service.decision.records import DecisionRecord
from service.registry import Registry
from training.planned import Plans


class InForce:
    """Counters by catalog. Of a catalog that nobody has any more all may have held: None."""

    def __init__(self, registry: Registry, contract: Contract) -> None:
        self._plans = Plans(registry, contract)
        published = sorted((dt.datetime.fromisoformat(registry.catalog(n).at).timestamp(), n) for n in registry.revisions())
        self._since, self._revisions = [at for at, _ in published], [n for _, n in published]
        self._known: dict[int, dict[Assigned | None, frozenset[Counted]] | None] = {}

    def for_decision(self, record: DecisionRecord) -> frozenset[Counted] | None:
        """Those that the customer's arm keeps to; the catalog's own where the arm has none of its own."""
        found = self._of(record.versions.catalog)
        return None if found is None else found.get(record.experiment, found[None])

    def for_impression(self, received_at: float) -> frozenset[Counted] | None:
        """Those of the catalog that served then, and of its arms. `received_at`: seconds since 1970 UTC."""
        place = bisect_right(self._since, received_at)
        found = self._of(self._revisions[max(place - 1, 0)]) if self._revisions else None
        return None if found is None else frozenset[Counted]().union(*found.values())

    def _of(self, revision: int) -> dict[Assigned | None, frozenset[Counted]] | None:
        if revision not in self._known:
            catalog = self._plans.catalog(revision)
            self._known[revision] = None if catalog is None else _by_arm(catalog)
        return self._known[revision]


def _by_arm(catalog: Catalog) -> dict[Assigned | None, frozenset[Counted]]:
    """None stands for the catalog itself."""
    found: dict[Assigned | None, frozenset[Counted]] = {None: frozenset(map(counted_as, catalog.contact.budgets))}
    for arm, (own, _) in arm_catalogs(catalog).items():
        found[arm] = frozenset(map(counted_as, own.contact.budgets))
    return found
