"""The engine that serves, and the watch over the registry that replaces it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from features.contract import Contract
from service.bundles.assembling import Choice, Guarding, assemble, unpredicted, wanted_bundles
from service.bundles.guarded import GuardedScorer, ModelWatch
from service.bundles.loading import Bundle, load_bundle
from service.catalog.entities import Catalog
from service.catalog.validate import load_catalog
from service.decision.engine import Engine, without_canaries, without_models
from service.decision.experiments import PLAIN_ARM, Canary
from service.decision.scoring import Scorer
from service.errors import NextbestError, NotReady
from service.pacing import paced
from service.registry import Challenger, Pointer, Registry

Listener = Callable[[Engine | None, str | None], None]  # (the engine that took over, why the newest version did not)
AGAIN_S = 2.0  # after which what could not be loaded is tried again: its files may come later than the pointer that names them
RARELY_S = 300.0  # each further try waits twice as long as the one before, at most so long
NEVER = float("inf")


class _Refusals:
    """What could not be loaded since the pointer moved last: each told once, and tried again after ever longer pauses."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._pause, self._again_at = AGAIN_S / 2, NEVER

    def is_due(self, now: float) -> bool:
        """Whether something is to be tried again."""
        return now >= self._again_at

    def begin(self) -> None:
        """A try, the first or a further one, after which the pause is twice as long."""
        self._pause, self._again_at = min(2 * self._pause, RARELY_S), NEVER

    def add(self, problem: str, now: float) -> bool:
        """Whether nobody was told of it yet."""
        self._again_at = now + self._pause
        is_new = problem not in self._told
        self._told.add(problem)
        return is_new

    def are_mended(self) -> bool:
        """There were some, and the last try found none."""
        return bool(self._told) and self._again_at == NEVER


class EngineSource:
    """Holds the engine that serves. A version that cannot be loaded changes nothing: the one before it goes on serving."""

    def __init__(
        self, registry: Registry, contract: Contract, listener: Listener, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock`: seconds since 1970 UTC."""
        self._clock = clock
        self._since = 0.0
        self._registry = registry
        self._contract = contract
        self._listener = listener
        self._engine: Engine | None = None
        self._bundles: dict[str, Bundle] = {}
        self._catalog: tuple[int, Catalog] | None = None
        self._champion: str | None = None
        self._serving: tuple[object, ...] = ()  # with what of it could not be loaded, as in `_shadowing`
        self._failed: set[Challenger] = set()  # until they are taken off
        self._shadows: dict[str, Engine] = {}
        self._shadowing: tuple[object, ...] = ()
        self._seen: tuple[int, int] | None = None
        self._refusals = _Refusals()
        self.problem: str | None = None

    @property
    def engine(self) -> Engine:
        """The engine to decide with. Raises NotReady until a catalog was published and loaded."""
        if self._engine is None:
            raise NotReady(self.problem or "Expected a published catalog, found none: run `nextbest catalog publish FILE`")
        return self._engine

    def shadows(self) -> Mapping[str, Engine]:
        """Engines of bundles that decide nothing, by bundle: to be asked in one thread what they would have decided."""
        return self._shadows

    def standing(self) -> dict[str, object]:
        """What decides, since when (seconds), how old its model is, and why a newer version does not."""
        if self._engine is None:
            return {"problem": self.problem or "no catalog was published"}
        versions, model = self._engine.versions, self._bundles.get(self._engine.versions.bundle or "")
        canaries = {c.bundle: "failed" if c.failed else f"share {c.share:g}" for c in self._engine.assignment.canaries}
        climbing = {"canaries": canaries, "shadows": list(self._shadows)}
        return {
            **{rung: bundles for rung, bundles in climbing.items() if bundles},
            "catalog": versions.catalog,
            "bundle": versions.bundle,
            "contract": versions.contract,
            "serving_for_s": round(self._clock() - self._since),
            "trained_at": model.manifest.created_at if model else None,
            "problem": self.problem,
        }

    def refresh(self) -> None:
        """Look whether the pointer moved, and follow it. Blocks while it loads: call it from a thread.

        What cannot be loaded is told once, and tried again now and then. Where all is, `problem` says what its catalog asks of
        it in vain.
        """
        stamp = _stamp(self._registry.pointer_path)
        if stamp != self._seen:
            self._seen, self._refusals, self.problem = stamp, _Refusals(), None
        elif not self._refusals.is_due(self._clock()):
            return
        self._refusals.begin()
        try:
            self._follow(self._registry.current())
        except NextbestError as error:  # whatever is wrong with the new version, the old one is still right
            self._refuse(str(error))
        except Exception as error:  # noqa: BLE001  # also what nobody thought of: a watch that ended would see no later version
            self._refuse(f"Expected a version that loads, got {type(error).__name__}: {error}")
        if self._refusals.are_mended():
            self.problem = None
        if self.problem is None and self._engine is not None:
            self.problem = unpredicted(self._engine)

    def _follow(self, pointer: Pointer) -> None:
        if pointer.catalog is None:
            return
        others = tuple(sorted(pointer.others.items()))
        catalog = self._read(pointer.catalog)
        self._serving = self._serve(pointer, catalog, (pointer.catalog, pointer.champion, others, pointer.challengers))
        self._shadowing = self._shadow(pointer, catalog, (pointer.catalog, pointer.shadows, others))

    def _read(self, revision: int) -> Catalog:
        """A rollback must not wait for a catalog that is known."""
        if self._catalog is None or self._catalog[0] != revision:
            self._catalog = revision, load_catalog(self._registry.catalog(revision).document, self._contract)
        return self._catalog[1]

    def _serve(self, pointer: Pointer, catalog: Catalog, key: tuple[object, ...]) -> tuple[object, ...]:
        """What decides from now on: `key`, and the bundles without which it has to."""
        if self._serving == (key, frozenset()):
            return self._serving
        self._failed &= set(pointer.challengers)
        wanted = wanted_bundles(catalog, pointer.champion, pointer.others)
        needed = dict.fromkeys((*wanted, *(one.bundle for one in pointer.challengers if one not in self._failed)))
        loaded = {name: self._bundles.get(name) or self._load(name) for name in needed}
        missing = frozenset(name for name, bundle in loaded.items() if bundle is None)
        if self._serving == (key, missing):
            return self._serving
        champion = pointer.champion if pointer.champion is None or loaded[pointer.champion] else self._champion
        if champion is not None and champion not in loaded:
            loaded[champion] = self._bundles.get(champion)
        watch = ModelWatch(self._give_up_models)
        # a canary that nothing else depends on fails alone
        alone = [one for one in pointer.challengers if one.bundle not in wanted]
        watches = {one.bundle: ModelWatch(partial(self._step_back, one)) for one in alone}

        def guard(scorer: Scorer, actions: int, bundle: str) -> Scorer:
            return GuardedScorer(scorer, actions, watches.get(bundle, watch))

        canaries = [Canary(one.bundle, one.share, one in self._failed) for one in pointer.challengers]
        choice = Choice(pointer.catalog or 0, champion, pointer.others, canaries)
        engine = assemble(catalog, self._contract, choice, loaded.get, guard)
        for one in self._failed.intersection(pointer.challengers):  # meanwhile, in the engine that serves
            engine = without_canaries(engine, one.bundle)
        self._bundles = {name: bundle for name, bundle in loaded.items() if bundle is not None}
        self._champion = champion
        if self._engine is None or _differs(self._engine, engine):
            self._engine, self._since = engine, self._clock()
            self._listener(engine, None)
        return key, missing

    def _shadow(self, pointer: Pointer, catalog: Catalog, key: tuple[object, ...]) -> tuple[object, ...]:
        """Engines of their own, since another thread asks them; everybody is nobody special to them."""
        if self._shadowing == (key, frozenset()):
            return self._shadowing
        plain = msgspec.structs.replace(catalog, experiments=(), holdout=None, not_personalised=None)
        wanted = {name: wanted_bundles(plain, name, pointer.others) for name in pointer.shadows}
        bundles = {name: {one: self._load(one) for one in some} for name, some in wanted.items()}
        missing = frozenset((name, one) for name, loaded in bundles.items() for one in loaded if loaded[one] is None)
        if self._shadowing == (key, missing):
            return self._shadowing
        made = {}
        for name, loaded in bundles.items():
            watch = ModelWatch(partial(self._give_up_shadow, name))
            choice = Choice(pointer.catalog or 0, name, pointer.others)
            if loaded[name] is not None:
                made[name] = assemble(plain, self._contract, choice, loaded.get, _guarded_by(watch))
        self._shadows = made
        return key, missing

    def _step_back(self, canary: Challenger, problem: str) -> None:
        """Too many bad calls of a canary: the champion decides for its customers until it is taken off."""
        self._failed.add(canary)
        if self._engine is not None:
            self._engine = without_canaries(self._engine, canary.bundle)
            self._fail(f"canary `{canary.bundle}` was given up after {problem}")

    def _give_up_shadow(self, name: str, problem: str) -> None:
        self._shadows = {other: engine for other, engine in self._shadows.items() if other != name}
        self._fail(f"shadow `{name}` was given up after {problem}")

    def _give_up_models(self, problem: str) -> None:
        """Too many bad calls: until another version is chosen, actions rank by priority."""
        if self._engine is not None:
            self._engine = without_models(self._engine)
            self._fail(f"the models were given up after {problem}")

    def _load(self, name: str) -> Bundle | None:
        """None where it must not serve: what served before goes on."""
        try:
            return load_bundle(self._registry.bundle_folder(name), self._contract)
        except NextbestError as error:
            self._refuse(f"bundle `{name}`: {error}")
            return None

    def _refuse(self, problem: str) -> None:
        """What could not be loaded may be there later."""
        self.problem = problem
        if self._refusals.add(problem, self._clock()):
            self._listener(None, problem)

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self._listener(None, problem)


def _differs(serving: Engine, engine: Engine) -> bool:
    """Whether anybody would notice."""
    climbs = serving.assignment.canaries or engine.assignment.canaries
    return bool(serving.versions != engine.versions or engine.arms.keys() > {PLAIN_ARM} or climbs)


def _guarded_by(watch: ModelWatch) -> Guarding:
    return lambda scorer, actions, _bundle: GuardedScorer(scorer, actions, watch)


async def watch(source: EngineSource, interval: float) -> None:
    """Refresh every `interval` seconds until cancelled. Loading happens in a thread that gives way to answers."""
    while True:
        await asyncio.sleep(interval)
        await asyncio.to_thread(paced, source.refresh)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:  # whoever reads it tells why, once
        return 0, error.errno or 0
    return status.st_ino, status.st_mtime_ns
