"""Engines of the past: rebuilt from the registry, for decisions that are to be explained or made again."""

from collections import OrderedDict
from threading import Lock

from features.contract import Contract
from service.bundles.assembling import Choice, assemble
from service.bundles.loading import Bundle, load_bundle
from service.catalog.validate import load_catalog
from service.decision.engine import Engine, without_models
from service.decision.experiments import CANARY, Canary
from service.decision.records import DecisionRecord
from service.errors import BundleRefused, RegistryError
from service.registry import Registry

KEPT = 4  # engines, and bundles; an engine of 100 actions takes about 0.1 s to rebuild


class EngineArchive:
    """Gives the engine that made a decision. Blocks while it loads: call it from a thread, or from several."""

    def __init__(self, registry: Registry, contract: Contract) -> None:
        self._registry = registry
        self._contract = contract
        self._engines: OrderedDict[tuple[object, ...], Engine] = OrderedDict()
        self._bundles: OrderedDict[str, Bundle] = OrderedDict()
        self._one_at_a_time = Lock()

    def engine_of(self, record: DecisionRecord) -> Engine:
        """Raises RegistryError where the contract has changed since, or a version is gone, and BundleRefused."""
        versions = record.versions
        if versions.contract != self._contract.fingerprint:
            raise RegistryError(
                f"Expected a decision made with the feature contract {self._contract.fingerprint} of this home, found "
                f"{versions.contract} - at `{record.decision_id}`"
            )
        champion = versions.champion or versions.bundle or versions.rates
        canary = record.experiment.arm if record.experiment is not None and record.experiment.id == CANARY else None
        key = (versions.catalog, champion, tuple(sorted(versions.others.items())), versions.bundle is None, canary)
        with self._one_at_a_time:
            if key not in self._engines:
                # a canary of everybody: whoever is asked for is known to have been among its customers
                canaries = [Canary(canary, 1.0)] if canary is not None else []
                engine = self._build(Choice(versions.catalog, champion, versions.others, canaries))
                self._engines[key] = engine if versions.bundle is not None else without_models(engine)
                if len(self._engines) > KEPT:
                    self._engines.popitem(last=False)
            self._engines.move_to_end(key)
            engine = self._engines[key]
        found = engine.of(record.experiment).versions
        if (found.bundle, found.rates) != (versions.bundle, versions.rates):
            raise RegistryError(
                f"Expected bundle `{versions.bundle or versions.rates}` of decision `{record.decision_id}`, found that it is gone"
            )
        return engine

    def _build(self, choice: Choice) -> Engine:
        catalog = load_catalog(self._registry.catalog(choice.revision).document, self._contract)
        return assemble(catalog, self._contract, choice, self._bundle)

    def _bundle(self, name: str) -> Bundle | None:
        """None where it is gone: the service would have gone on without it, too."""
        if name not in self._bundles:
            try:
                self._bundles[name] = load_bundle(self._registry.bundle_folder(name), self._contract)
            except (BundleRefused, RegistryError):
                return None
            if len(self._bundles) > KEPT:
                self._bundles.popitem(last=False)
        return self._bundles[name]
