"""The engine that serves, and the watch over the registry that replaces it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from features.contract import Contract
from service.bundles.loading import Bundle, load_bundle
from service.catalog.entities import Catalog
from service.catalog.validate import load_catalog
from service.decision.engine import Engine, build_engine, by_priority
from service.decision.records import Versions
from service.decision.scoring import FlatScorer, Scorer
from service.errors import NextbestError, NotReady
from service.registry import Pointer, Registry

Listener = Callable[[Engine | None, str | None], None]  # (the engine that took over, why the newest version did not)


class EngineSource:
    """Holds the engine that serves. A version that cannot be loaded changes nothing: the one before it goes on serving."""

    def __init__(self, registry: Registry, contract: Contract, listener: Listener) -> None:
        self._registry = registry
        self._contract = contract
        self._listener = listener
        self._engine: Engine | None = None
        self._bundle: Bundle | None = None
        self._seen: tuple[int, int] | None = None
        self.problem: str | None = None

    @property
    def engine(self) -> Engine:
        """The engine to decide with. Raises NotReady until a catalog was published and loaded."""
        if self._engine is None:
            raise NotReady(self.problem or "Expected a published catalog, found none: run `nextbest catalog publish FILE`")
        return self._engine

    def refresh(self) -> None:
        """Look whether the pointer moved, and follow it. Blocks while it loads: call it from a thread."""
        stamp = _stamp(self._registry.pointer_path)
        if stamp == self._seen:
            return
        self._seen = stamp
        self.problem = None
        try:
            self._follow(self._registry.current())
        except NextbestError as error:  # whatever is wrong with the new version, the old one is still right
            self._fail(str(error))

    def _follow(self, pointer: Pointer) -> None:
        if pointer.catalog is None:
            return
        self._load_bundle(pointer.champion)
        catalog = load_catalog(self._registry.catalog(pointer.catalog).document, self._contract)
        bundle = self._bundle.manifest.bundle_id if self._bundle else None
        versions = Versions(pointer.catalog, bundle, self._contract.fingerprint)
        if self._engine is None or self._engine.versions != versions:
            self._engine = build_engine(catalog, self._contract, self._scorer(catalog), versions)
            self._listener(self._engine, None)

    def _load_bundle(self, champion: str | None) -> None:
        if champion is None:
            self._bundle = None
        elif self._bundle is None or self._bundle.manifest.bundle_id != champion:
            try:
                self._bundle = load_bundle(self._registry.bundle_folder(champion), self._contract)
            except NextbestError as error:
                self._fail(f"bundle `{champion}`: {error}")

    def _scorer(self, catalog: Catalog) -> Scorer:
        actions = by_priority(catalog)
        return self._bundle.scorer(actions) if self._bundle else FlatScorer([0.0] * len(actions))

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self._listener(None, problem)


async def watch(source: EngineSource, interval: float) -> None:
    """Refresh every `interval` seconds until cancelled. Loading happens in a thread: answers go on meanwhile."""
    while True:
        await asyncio.sleep(interval)
        await asyncio.to_thread(source.refresh)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
