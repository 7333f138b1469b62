"""A version that cannot be loaded changes nothing, whatever is wrong with it, and the watch goes on."""

import asyncio
import contextlib
import itertools
from pathlib import Path

import msgspec
import pytest

from features.contract import Contract
from service.asks import Ask, Turn
from service.bundles.engines import AGAIN_S, RARELY_S, EngineSource, watch
from service.catalog.validate import parse_catalog
from service.decision.again import decide_again, encode_record
from service.decision.entities import CustomerState, PlacementRequest
from service.decision.experiments import Assigned
from service.decision.records import DecisionRecord
from service.ports import Reading
from service.registry import Pointer, Registry, write_atomically
from tests.unit.service.api.conftest import until
from tests.unit.service.bundles.conftest import INPUTS
from tests.unit.service.bundles.test_guarded_scorers import CATALOG
from tests.unit.service.bundles.test_loading import fits_rows_of

AT = "2026-01-01T00:00:00Z"
CONTRACT = Contract(INPUTS[:2])


class Moody(Registry):
    """Raises what it is told to raise."""

    error: Exception | None = None
    asked: list[str]  # for whose folder

    def current(self) -> Pointer:
        if self.error is not None:
            raise self.error
        return super().current()

    def bundle_folder(self, bundle_id: str) -> Path:
        self.asked.append(bundle_id)
        return super().bundle_folder(bundle_id)


class World:
    """A registry whose bundle `good` serves, and a bundle `bad` that nobody has looked at."""

    def __init__(self, folder, bundles) -> None:
        self.registry, self.told, self.now = Moody(folder / "registry"), list[str | None](), 0.0
        self.registry.asked = []
        self.publish()
        for name in ("good", "bad"):
            self.registry.add_bundle(bundles.write(name, model=fits_rows_of(5) if name == "bad" else None), name)
        self.promote("good")
        self.engines = EngineSource(self.registry, CONTRACT, lambda _engine, problem: self.told.append(problem), lambda: self.now)
        self.engines.refresh()

    def publish(self, text: str = CATALOG) -> None:
        document, catalog = parse_catalog(text, CONTRACT)
        self.registry.publish_catalog(document, fingerprint=catalog.fingerprint, author="me", note="", at=AT)

    def promote(self, name: str) -> None:
        self.registry.promote(name, at=AT, why="test")

    def spoil_the_pointer(self) -> None:
        self.registry.pointer_path.write_bytes(b'{"champion": "\xff"}')

    def put_a_folder_in_place_of_the_pointer(self) -> None:
        self.registry.pointer_path.unlink()
        self.registry.pointer_path.mkdir()

    def spoil_the_catalog(self) -> None:
        self.publish()
        (self.registry.root / "catalogs" / "2.json").write_bytes(b'{"note": "\xff"}')

    def spoil_the_manifest(self) -> None:
        (self.registry.bundle_folder("bad") / "manifest.json").write_bytes(b'{"bundle_id": "\xff"}')
        self.promote("bad")

    def put_a_folder_in_place_of_the_model(self) -> None:
        model = self.registry.bundle_folder("bad") / "model.onnx"
        model.unlink()
        model.mkdir()
        self.promote("bad")

    def choose_a_model_that_cannot_be_run(self) -> None:
        self.promote("bad")

    def raise_what_nobody_thought_of(self) -> None:
        self.promote("bad")
        self.registry.error = ZeroDivisionError("nobody thought of it")

    def choose_the_right_version_again(self) -> None:
        self.registry.error = None
        if self.registry.pointer_path.is_dir():
            self.registry.pointer_path.rmdir()
        write_atomically(self.registry.pointer_path, msgspec.json.encode(Pointer(catalog=1, champion="good")))


@pytest.fixture
def world(tmp_path, bundles) -> World:
    return World(tmp_path, bundles)


WAYS = [
    World.spoil_the_pointer,
    World.put_a_folder_in_place_of_the_pointer,
    World.spoil_the_catalog,
    World.spoil_the_manifest,
    World.put_a_folder_in_place_of_the_model,
    World.choose_a_model_that_cannot_be_run,
    World.raise_what_nobody_thought_of,
]


@pytest.mark.parametrize("spoil", WAYS)
async def test_the_watch_outlives_what_cannot_be_loaded_and_follows_what_can(world, spoil):
    """It tells what is wrong, once; the engine serves on; the next version that is right takes over."""
    spoil(world)
    served = world.engines.engine
    watcher = asyncio.create_task(watch(world.engines, 0.01))
    try:
        await until(lambda: world.engines.problem is not None)
        await asyncio.sleep(0.05)  # five more looks
        assert not watcher.done()
        assert world.told == [None, world.engines.problem]
        assert world.engines.engine.versions == served.versions
        world.choose_the_right_version_again()
        await until(lambda: world.engines.problem is None)
        assert world.engines.engine.versions.bundle == "good"
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher


@pytest.mark.parametrize("spoil", WAYS)
def test_a_start_with_what_cannot_be_loaded_is_no_crash(world, spoil):
    """The service comes up and says why it decides without a model, or not at all."""
    spoil(world)
    fresh = EngineSource(world.registry, CONTRACT, lambda _engine, _problem: None)
    fresh.refresh()
    assert fresh.problem is not None
    assert fresh.standing()["problem"] == fresh.problem


def looks_after(world: World, seconds: float) -> None:
    """One more look, so much later."""
    world.now += seconds
    world.engines.refresh()


@pytest.mark.parametrize("is_shadow", [False, True])
def test_files_that_come_after_the_pointer_that_names_them_are_found(world, bundles, is_shadow):
    """As a copy of a registry may bring them: told once, and right a moment after they are there."""
    away = world.registry.root / "away"
    folder = world.registry.add_bundle(bundles.write("late"), "late")
    if is_shadow:
        world.registry.shadow("late", at=AT, why="test")
    else:
        world.promote("late")
    folder.rename(away)
    looks_after(world, 0)
    looks_after(world, AGAIN_S)
    assert world.told == [None, world.engines.problem]
    assert (world.engines.engine.versions.bundle, list(world.engines.shadows())) == ("good", [])
    away.rename(folder)
    looks_after(world, AGAIN_S)
    assert world.engines.problem is not None, "the second try waits twice as long"
    looks_after(world, AGAIN_S)
    assert world.engines.problem is None
    assert (world.engines.engine.versions.bundle, list(world.engines.shadows())) == (
        ("good", ["late"]) if is_shadow else ("late", [])
    )


def test_what_never_loads_is_tried_more_and_more_rarely(world):
    """And what serves is not made again for it."""
    world.promote("bad")
    served, tries = world.engines.engine, []
    for _ in range(4 * round(RARELY_S)):
        world.registry.asked.clear()
        looks_after(world, 1)
        assert world.registry.asked in ([], ["bad"])
        tries += [world.now] * len(world.registry.asked)
    waits = [later - sooner for sooner, later in itertools.pairwise(tries)]
    assert waits[:3] == [AGAIN_S, 2 * AGAIN_S, 4 * AGAIN_S]
    assert waits[-1] == RARELY_S
    assert world.engines.engine is served


def asks_for(objective: str, text: str = CATALOG) -> str:
    return text.replace("channel: web", f"channel: web, objectives: {{primary: 1, {objective}: 2}}")


def test_an_objective_that_no_bundle_predicts_is_a_problem_until_one_does(world, bundles):
    """It adds nothing to any utility; the engine serves all the same."""
    world.publish(asks_for("conversoin"))
    world.engines.refresh()
    assert world.engines.engine.versions.catalog == 2
    assert world.engines.problem == (
        "Expected an objective that a bundle predicts (`click`, `primary`), got `conversoin` - at placement `hero`"
    )
    world.publish(asks_for("conversion"))
    world.engines.refresh()
    assert "got `conversion`" in world.engines.problem
    world.registry.add_bundle(bundles.write("beside", objective="conversion"), "beside")
    world.registry.promote_beside("beside", "conversion", at=AT, why="test")
    world.engines.refresh()
    assert world.engines.problem is None


def test_an_objective_of_an_arm_that_no_bundle_predicts_is_a_problem(world):
    """The catalog's own are predicted, those of the arm are not."""
    overrides = "{placements: {hero: {objectives: {clicks: 1}}}}"
    world.publish(CATALOG + f"experiments: [{{id: e, share: 0.5, arms: [{{id: a}}, {{id: b, overrides: {overrides}}}]}}]\n")
    world.engines.refresh()
    assert "(did you mean `click`?), got `clicks` - at placement `hero`" in world.engines.problem


def test_where_no_bundle_serves_no_objective_is_missed(tmp_path):
    """That there is none is told in every answer."""
    document, catalog = parse_catalog(asks_for("conversion"), CONTRACT)
    registry = Registry(tmp_path)
    registry.publish_catalog(document, fingerprint=catalog.fingerprint, author="me", note="", at=AT)
    engines = EngineSource(registry, CONTRACT, lambda _engine, _problem: None)
    engines.refresh()
    assert engines.engine.versions.bundle is None
    assert engines.problem is None


def test_an_arm_without_its_bundle_is_decided_by_the_champion_and_says_so(world, bundles):
    """Until the bundle is there: then the arm decides, and nothing is degraded."""
    world.publish(CATALOG + "experiments: [{id: e, share: 1, arms: [{id: only, bundle: late}]}]\nnot_personalised: {share: 0}\n")
    world.engines.refresh()
    ask = Ask("d", "c", {"device": "mobile"}, (PlacementRequest("hero", 1),))

    def decided() -> DecisionRecord:
        return Turn(world.engines.engine, 0.0).make([ask], Reading([CustomerState({"age": 30.0})]))[0].record

    assert decided().experiment == Assigned("e", "only")
    assert (decided().versions.bundle, decided().degraded) == ("good", ("arm_failed:late",))
    assert "bundle `late`" in world.engines.problem
    assert encode_record(decide_again(world.engines.engine, decided())) == encode_record(decided())
    world.registry.add_bundle(bundles.write("late"), "late")
    looks_after(world, AGAIN_S)
    assert (decided().versions.bundle, decided().degraded) == ("late", ())
