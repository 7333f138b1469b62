"""What published catalogs plan of experiments: comparisons hold among decisions that were shared out alike.

Where the weights of two arms change, or a holdout begins, one side has more of another season than the other: pooled, the
difference between seasons looks like one between arms (Simpson 1951; of experiments that are ramped up: Crook, Frasca, Kohavi and
Longbotham 2009).
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from service.decision.experiments import HOLDOUT, NOT_PERSONALISED
from service.errors import RegistryError
from service.registry import Registry

Plan = bytes
_encoder = msgspec.json.Encoder(order="sorted")


class Plans:
    """Plans by catalog and experiment; equal ones share customers out alike."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._documents: dict[int, Mapping[str, Any] | None] = {}
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

    def _document(self, revision: int) -> Mapping[str, Any] | None:
        if revision not in self._documents:
            try:
                self._documents[revision] = self._registry.catalog(revision).document
            except RegistryError:
                self._documents[revision] = None
        return self._documents[revision]


def _planned(document: Mapping[str, Any], experiment: str) -> object:
    if experiment in (HOLDOUT, NOT_PERSONALISED):
        return document.get(experiment)
    found = [one for one in document.get("experiments") or () if one.get("id") == experiment]
    return [{key: value for key, value in one.items() if key != "share"} for one in found]
