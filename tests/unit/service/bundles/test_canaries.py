"""A canary decides for its own share of the customers; where it fails, the champion does, and the records say so."""

from collections import Counter
from collections.abc import Callable

import pytest

from features.contract import Contract
from service.asks import NO_MODEL, Ask, Turn
from service.bundles.archive import EngineArchive
from service.bundles.engines import EngineSource
from service.bundles.guarded import MOST_BAD
from service.catalog.validate import parse_catalog
from service.decision.again import decide_again, encode_record
from service.decision.entities import CustomerState, PlacementRequest
from service.decision.experiments import CANARY, HOLDOUT, NOT_PERSONALISED, Assigned, Assignment, Canary
from service.ports import Reading
from service.registry import Registry
from tests.unit.service.bundles.conftest import INPUTS
from tests.unit.service.bundles.test_guarded_scorers import CATALOG, NOW, nan_above_a_million

AT = "2026-01-01T00:00:00Z"
CUSTOMERS = [f"c{number}" for number in range(2000)]
EXPERIMENT = "experiments: [{id: e, salt: e, share: 0.2, arms: [{id: a}, {id: b}]}]\nholdout: {share: 0.1}\n"


class World:
    """A registry with three bundles, a catalog with an experiment and a holdout, and a service's view of it."""

    contract = Contract(INPUTS[:2])

    def __init__(self, folder, bundles) -> None:
        self.registry = Registry(folder / "registry")
        document, catalog = parse_catalog(CATALOG + EXPERIMENT, self.contract)
        self.registry.publish_catalog(document, fingerprint=catalog.fingerprint, author="me", note="", at=AT)
        for name in ("champion", "canary", "sick"):
            made = bundles.write(name, model=nan_above_a_million() if name == "sick" else None)
            self.registry.add_bundle(made, name)
        self.registry.promote("champion", at=AT, why="test")
        self.engines = EngineSource(self.registry, self.contract, lambda _engine, _problem: None)
        self.engines.refresh()

    def decide(self, customers=CUSTOMERS, age: float = 30.0):
        asks = [Ask(f"d-{c}", c, {"device": "mobile"}, (PlacementRequest("hero", 1),)) for c in customers]
        reading = Reading([CustomerState({"age": age}) for _ in customers])
        return [made.record for made in Turn(self.engines.engine, NOW).make(asks, reading)]

    def stage(self, bundle: str, share: float) -> None:
        self.registry.challenge(bundle, share, at=AT, why="test")
        self.engines.refresh()


@pytest.fixture
def world(tmp_path, bundles) -> World:
    return World(tmp_path, bundles)


def test_a_canary_takes_a_sticky_share_of_those_who_are_in_nothing_else(world):
    """Its customers stay when the share grows; holdout, experiments and those who are not personalised keep theirs."""
    before = world.decide()
    world.stage("canary", 0.2)
    small = world.decide()
    world.stage("canary", 0.5)
    large = world.decide()
    moved = [new.customer_id for old, new in zip(before, small, strict=True) if old != new]
    taken = [r.customer_id for r in small if r.experiment == Assigned(CANARY, "canary")]
    free = [r.customer_id for r in before if r.experiment is None]
    assert moved == taken
    assert set(taken) <= {r.customer_id for r in large if r.experiment == Assigned(CANARY, "canary")}
    assert set(taken) <= set(free)
    assert len(taken) / len(free) == pytest.approx(0.2, abs=0.03)
    assert Counter(r.experiment.id for r in small if r.experiment) == Counter(
        {**Counter(r.experiment.id for r in before if r.experiment), CANARY: len(taken)}
    )
    assert {HOLDOUT, NOT_PERSONALISED, "e"} <= {r.experiment.id for r in small if r.experiment}


def test_the_record_names_the_canary_and_the_champion_and_is_made_again_bit_for_bit(world):
    """From the registry alone, after the canary is gone."""
    world.stage("canary", 0.3)
    made = world.decide()
    world.registry.step_off("canary", at=AT, why="")
    ours = [r for r in made if r.experiment == Assigned(CANARY, "canary")]
    assert {(r.versions.bundle, r.versions.champion, r.degraded) for r in ours} == {("canary", "champion", ())}
    archive = EngineArchive(world.registry, world.contract)
    assert [encode_record(decide_again(archive.engine_of(r), r)) for r in made] == [encode_record(r) for r in made]


def test_a_canary_beside_no_champion_is_made_again_too(world):
    """Everybody else is ranked by priority."""
    world.registry.rollback(at=AT, why="")
    world.stage("canary", 0.5)
    made = world.decide()
    assert {r.degraded for r in made if r.experiment == Assigned(CANARY, "canary")} == {()}
    assert {r.degraded for r in made if r.experiment is None} == {(NO_MODEL,)}
    archive = EngineArchive(world.registry, world.contract)
    assert [encode_record(decide_again(archive.engine_of(r), r)) for r in made] == [encode_record(r) for r in made]


def test_where_a_canary_fails_the_champion_decides_and_the_record_says_whose_failure_it_was(world):
    """Those of others in the same batch are as if there were no canary, and all can be made again."""
    before = world.decide(age=2e6)
    world.stage("sick", 0.3)
    made = world.decide(age=2e6)
    failed = [r for r in made if r.degraded == ("canary_failed:sick",)]
    assert len(failed) > 300
    assert {(r.experiment, r.versions.bundle) for r in failed} == {(None, "champion")}
    assert [r.placements for r in made] == [r.placements for r in before]
    assert [r for r in made if r not in failed] == [r for r in before if r.customer_id not in {f.customer_id for f in failed}]
    archive = EngineArchive(world.registry, world.contract)
    assert [encode_record(decide_again(archive.engine_of(r), r)) for r in made] == [encode_record(r) for r in made]


def test_a_canary_that_goes_on_failing_is_given_up_and_the_champion_stays(world):
    """At once and without a word from outside; a good day does not bring it back, taking it off does."""
    world.stage("sick", 0.3)
    [customer] = [r.customer_id for r in world.decide() if r.experiment == Assigned(CANARY, "sick")][:1]
    for _ in range(MOST_BAD):
        world.decide([customer], age=2e6)
    [record] = world.decide([customer])
    assert (record.degraded, record.versions.bundle) == (("canary_failed:sick",), "champion")
    assert world.engines.problem == f"canary `sick` was given up after {MOST_BAD} bad calls: Expected finite rates, got nan"
    assert world.engines.standing()["canaries"] == {"sick": "failed"}
    world.registry.shadow("canary", at=AT, why="something else moves")
    world.engines.refresh()
    assert world.decide([customer])[0].degraded == ("canary_failed:sick",)
    world.registry.step_off("sick", at=AT, why="")
    world.engines.refresh()
    assert world.decide([customer])[0].degraded == ()
    assert "canaries" not in world.engines.standing()


class Overheard(Contract, frozen=True):
    """A contract that lets something happen while an engine is made of it."""

    meanwhile: list[Callable[[], None]] = []

    @property
    def fingerprint(self) -> str:
        for act in self.meanwhile:
            act()
        return super().fingerprint


def test_a_canary_that_fails_while_another_catalog_is_loaded_stays_given_up(world):
    """What failed in the engine of before is not asked again in the one that takes over."""
    world.contract = Overheard(INPUTS[:2])
    world.engines = EngineSource(world.registry, world.contract, lambda _engine, _problem: None)
    world.stage("sick", 0.3)
    [customer] = [r.customer_id for r in world.decide() if r.experiment == Assigned(CANARY, "sick")][:1]
    document, catalog = parse_catalog(CATALOG + EXPERIMENT, world.contract)
    world.registry.publish_catalog(document, fingerprint=catalog.fingerprint, author="me", note="again", at=AT)
    world.contract.meanwhile.append(lambda: [world.decide([customer], age=2e6) for _ in range(MOST_BAD)])
    world.engines.refresh()
    world.contract.meanwhile.clear()
    [record] = world.decide([customer])
    assert (record.versions.catalog, record.versions.bundle) == (2, "champion")
    assert record.degraded == ("canary_failed:sick",)
    assert world.engines.standing()["canaries"] == {"sick": "failed"}


def test_a_canary_that_cannot_be_loaded_costs_nobody_an_answer(world):
    """It counts as failed from the start."""
    model = world.registry.bundle_folder("canary") / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    world.stage("canary", 0.5)
    assert {r.degraded for r in world.decide() if r.experiment is None} == {(), ("canary_failed:canary",)}
    assert "checksum" in world.engines.problem


def test_another_canary_takes_other_customers():
    """Whoever was among those of the last one is not always among those of the next."""
    first, second = (Assignment((), None, canaries=(Canary(name, 0.5),)) for name in ("x", "y"))
    both = sum(first.of(c) is not None and second.of(c) is not None for c in CUSTOMERS)
    assert both / len(CUSTOMERS) == pytest.approx(0.25, abs=0.03)


def test_a_champion_that_fails_is_not_the_canarys_failure(world):
    """Then nobody has a model, and the record blames no canary."""
    world.registry.promote("sick", at=AT, why="test")
    world.stage("canary", 0.3)
    made = world.decide(age=2e6)
    assert {NO_MODEL in r.degraded for r in made if r.experiment is None or r.experiment.id == CANARY} == {True}
    assert not [r for r in made if any(reason.startswith("canary_failed") for reason in r.degraded)]
    archive = EngineArchive(world.registry, world.contract)
    assert [encode_record(decide_again(archive.engine_of(r), r)) for r in made] == [encode_record(r) for r in made]
