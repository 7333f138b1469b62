"""A shadow is asked about decisions once they are answered; nobody who asked can tell."""

import asyncio

import msgspec
import pytest

from service.asks import Ask
from service.bundles.guarded import MOST_BAD
from service.decision.again import encode_record
from service.decision.entities import CustomerState, PlacementRequest
from service.decision.records import DecisionRecord, PlacementRecord, ServedItem, ShadowRecord
from service.metrics import Metrics
from service.pipeline import NoShadows, Parts, Pipeline
from service.shadows import MOST_WAITING, ShadowDesk, shadowed
from service.stores.contact_history import MemoryContactHistory
from service.stores.customer_reader import MemoryCustomerReader
from service.stores.memory_log import MemoryDecisionLog
from tests.unit.service.bundles.test_canaries import AT, CUSTOMERS, World
from tests.unit.service.bundles.test_guarded_scorers import NOW


@pytest.fixture
def world(tmp_path, bundles) -> World:
    made = World(tmp_path, bundles)
    made.registry.shadow("canary", at=AT, why="test")
    made.engines.refresh()
    return made


def ask(number: int) -> Ask:
    return Ask(f"d{number}", CUSTOMERS[number], {"device": "mobile"}, (PlacementRequest("hero", 1),), deadline=5.0)


async def served(
    world: World, metrics: Metrics, *, is_shadowed: bool, share: float = 1.0
) -> tuple[list[bytes], MemoryDecisionLog]:
    """Forty answers, and what was written down."""
    log = MemoryDecisionLog()
    states = {c: CustomerState({"age": float(n % 7)}) for n, c in enumerate(CUSTOMERS[:40])}
    desk = ShadowDesk(world.engines.shadows, log, metrics, share, gather_s=0.0) if is_shadowed else NoShadows()
    reader, history = MemoryCustomerReader(states), MemoryContactHistory()
    pipeline = Pipeline(Parts(reader, history, log, lambda: world.engines.engine, metrics, clock=lambda: NOW, shadows=desk))
    answers = [await pipeline.recommend(ask(number)) for number in range(40)]
    await pipeline.close()
    return [encode_record(answer.record) for answer in answers], log


def count(metrics: Metrics, bundle: str, result: str) -> float:
    return metrics.registry.get_sample_value("nextbest_shadows_total", {"bundle": bundle, "result": result}) or 0.0


def test_answers_and_records_are_the_same_bytes_with_a_shadow_and_without(world):
    """It reads what was decided, and writes somewhere else."""
    plain, without = asyncio.run(served(world, Metrics(), is_shadowed=False))
    shaded, beside = asyncio.run(served(world, Metrics(), is_shadowed=True))
    assert plain == shaded
    assert [encode_record(r) for r in without.decisions] == [encode_record(r) for r in beside.decisions]
    assert without.shadows == []
    assert len(beside.shadows) > 20


def test_what_a_shadow_would_have_shown_is_written_under_the_decisions_id_and_counted(world):
    """Only of decisions that the champion made; the same model agrees with itself, rate for rate."""
    metrics = Metrics()
    _, log = asyncio.run(served(world, metrics, is_shadowed=True))
    by_champion = [r for r in log.decisions if r.experiment is None]
    assert [one.decision_id for one in log.shadows] == [r.decision_id for r in by_champion]
    assert len(by_champion) < len(log.decisions)
    for one, record in zip(log.shadows, by_champion, strict=True):
        [shown], [item] = one.placements, record.placements[0].items
        assert (one.bundle, one.at, one.agreed, one.problem) == ("canary", record.at, True, "")
        assert (shown.id, shown.actions, shown.served_rates) == ("hero", (item.action_id,), (item.predicted_rate,))
    assert count(metrics, "canary", "agreed") == len(by_champion)
    assert metrics.registry.get_sample_value("nextbest_shadow_seconds_count", {"bundle": "canary"}) == len(by_champion)


def test_a_sample_of_decisions_is_looked_at(world):
    """By a hash of their id: a quarter, and none."""
    _, some = asyncio.run(served(world, Metrics(), is_shadowed=True, share=0.25))
    _, none = asyncio.run(served(world, Metrics(), is_shadowed=True, share=0.0))
    assert 0 < len(some.shadows) < 20
    assert none.shadows == []


async def offered(world: World, records: list[DecisionRecord], metrics: Metrics, *, is_busy: bool) -> list[ShadowRecord]:
    log = MemoryDecisionLog()
    desk = ShadowDesk(world.engines.shadows, log, metrics, 1.0, gather_s=0.0)
    desk.offer(records, is_busy=is_busy)
    await desk.close()
    return log.shadows


@pytest.mark.parametrize(("is_busy", "looked_at"), [(True, 0), (False, MOST_WAITING)])
def test_under_load_decisions_are_passed_over_and_counted(world, is_busy, looked_at):
    """Where others wait for their answer, all; where more come than there is room for, those beyond."""
    records = [r for r in world.decide() if r.experiment is None]
    metrics = Metrics()
    found = asyncio.run(offered(world, records, metrics, is_busy=is_busy))
    assert len(found) == looked_at
    assert count(metrics, "canary", "skipped") == len(records) - looked_at


def test_a_shadow_that_goes_on_failing_is_given_up_and_nobody_else_notices(world):
    """Its failures are written down with their reason until then."""
    world.registry.shadow("sick", at=AT, why="test")
    world.engines.refresh()
    records, metrics = [r for r in world.decide(age=2e6) if r.experiment is None], Metrics()
    found = asyncio.run(offered(world, records, metrics, is_busy=False))
    failed = [one for one in found if one.problem]
    assert {one.problem for one in failed} == {"Expected finite rates, got nan"}
    assert {one.bundle for one in failed} == {"sick"}
    assert count(metrics, "sick", "failed") == len(failed) == MOST_BAD
    assert list(world.engines.shadows()) == ["canary"]
    assert world.decide()[0].versions.bundle == "champion"
    assert "shadow `sick` was given up" in world.engines.problem


def test_a_decision_of_another_catalog_is_passed_over(world):
    """The shadow would be asked for actions that it does not have."""
    [record] = [r for r in world.decide() if r.experiment is None][:1]
    document = world.registry.catalog(1).document
    world.registry.publish_catalog(document, fingerprint="f", author="me", note="", at=AT)
    world.engines.refresh()
    metrics = Metrics()
    assert asyncio.run(offered(world, [record], metrics, is_busy=False)) == []
    assert count(metrics, "canary", "skipped") == 1


def test_a_shadow_that_would_show_something_else_says_what_and_what_it_thinks_of_what_was_served(world):
    """Both in the order of the slots; the time it took is told."""
    [record] = [r for r in world.decide() if r.experiment is None and r.placements[0].items[0].action_id == "silver"][:1]
    swapped = ServedItem(1, "gold", "t", "offer", 0.5, 0.5, 1.0, explored=False)
    other = msgspec.structs.replace(record, placements=(PlacementRecord("hero", 1, (swapped,), fallback=False),))
    ticks = iter([1.0, 1.25])
    found = shadowed(world.engines.shadows()["canary"], "canary", other, lambda: next(ticks))
    [shown] = found.placements
    assert (found.agreed, found.took_ms, shown.actions) == (False, 250.0, ("silver",))
    rates = dict(zip(record.placements[0].candidates, record.placements[0].predicted_rates, strict=True))
    assert (shown.predicted_rates, shown.served_rates) == ((rates["silver"],), (rates["gold"],))
