"""What published catalogs plan of experiments: comparisons hold among decisions that were shared out alike.

Where the weights of two arms change, or a holdout begins, one side has more of another season than the other: pooled, the
difference between seasons looks like one between arms (Simpson 1951; of experiments that are ramped up: Crook, Frasca, Kohavi and
Longbotham 2009).
"""

from typing import Any

import msgspec

from features.contract import Contract
from service.catalog.entities import Catalog
from service.catalog.experimenting import NOT_PERSONALISED_SHARE
from service.catalog.validate import load_catalog
from service.decision.experiments import HOLDOUT, NOT_PERSONALISED
from service.errors import CatalogInvalid, RegistryError
from service.registry import Registry

DIGITS = 12  # of a share: 1 of 3 is 2 of 6

Plan = bytes
_encoder = msgspec.json.Encoder(order="sorted")


class Plans:
    """Plans by catalog and experiment; equal ones share customers out alike."""

    def __init__(self, registry: Registry, contract: Contract) -> None:
        self._registry, self._contract = registry, contract
        self._documents: dict[int, dict[str, Any] | None] = {}
        self._plans: dict[tuple[int, str], Plan] = {}

    def of(self, revision: int, experiment: str) -> Plan:
        """That of an experiment, or of what the service logs as one. Its share of all customers does not matter: arms share that.

        Of a catalog that nobody has any more it is like no other's.
        """
        key = (revision, experiment)
        if key not in self._plans:
            document = self._document(revision)
            self._plans[key] = b"%d" % revision if document is None else _encoder.encode([_planned(document, experiment)])
        return self._plans[key]

    def catalog(self, revision: int) -> Catalog | None:
        """A published catalog; None where nobody has it any more, or it is of a contract that has changed since."""
        document = self._document(revision)
        try:
            return None if document is None else load_catalog(document, self._contract)
        except CatalogInvalid:
            return None

    def _document(self, revision: int) -> dict[str, Any] | None:
        if revision not in self._documents:
            try:
                self._documents[revision] = self._registry.catalog(revision).document
            except RegistryError:
                self._documents[revision] = None
        return self._documents[revision]


def _planned(document: dict[str, Any], experiment: str) -> object:
    """What of a document decides who gets which arm, and what that is: however it is spelt out, by the words of a catalog."""
    if experiment in (HOLDOUT, NOT_PERSONALISED):
        section = document.get(experiment) or {"share": NOT_PERSONALISED_SHARE if experiment == NOT_PERSONALISED else 0.0}
        return float(section["share"]), section.get("salt", experiment)
    found = next((one for one in document.get("experiments") or () if one.get("id") == experiment), None)
    if found is None:
        return None
    weights = [float(arm.get("weight", 1.0)) for arm in found["arms"]]
    arms = [{key: value for key, value in arm.items() if key != "weight"} for arm in found["arms"]]
    return found.get("salt", experiment), [round(weight / (sum(weights) or 1.0), DIGITS) for weight in weights], arms
