"""A model that fails costs nobody an answer, and is given up where it goes on failing."""

import gc
import weakref

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from features.contract import Contract
from service.asks import NO_MODEL, Ask, Turn
from service.bundles.assembling import last_known_rates
from service.bundles.engines import EngineSource
from service.bundles.guarded import MOST_BAD, SLOW_WEIGHS, GuardedScorer, ModelWatch
from service.bundles.loading import read_manifest
from service.catalog.validate import parse_catalog
from service.decision.engine import build_engine, without_models
from service.decision.entities import CustomerState, PlacementRequest
from service.decision.records import Versions
from service.errors import ModelFailed
from service.ports import Reading
from service.registry import Registry
from tests.unit.service.bundles.conftest import INPUTS, sum_model

NOW = 1_790_000_000.0
CATALOG = """
catalog: 1
issues: [{id: sales}]
groups: [{id: cards, issue: sales}]
attributes: {price: number}
actions:
  - {id: gold, group: cards, kind: offer, value: 1, priority: 1, attributes: {price: 1},
     treatments: [{id: t, placements: [hero]}]}
  - {id: silver, group: cards, kind: offer, value: 1, priority: 2, attributes: {price: 2},
     treatments: [{id: t, placements: [hero]}]}
placements: [{id: hero, channel: web, fallback: {action: welcome, kind: content}, explore: {floor: {share: 0.1, below: 5}}}]
"""


class Model:
    """Gives what it is told to give, and takes as long as it is told to."""

    inputs = ()

    def __init__(self, rates, seconds: float = 0.0) -> None:
        self.rates, self.seconds, self.now = rates, seconds, 0.0

    def clock(self) -> float:
        return self.now

    def score(self, requests):
        self.now += self.seconds
        if isinstance(self.rates, Exception):
            raise self.rates
        return np.broadcast_to(np.asarray(self.rates, np.float64), (len(requests), np.size(self.rates)))


def guarded(model: Model) -> tuple[GuardedScorer, list[str]]:
    given_up: list[str] = []
    return GuardedScorer(model, 2, ModelWatch(given_up.append), model.clock), given_up


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.1, np.nan], "Expected finite rates, got nan"),
        ([0.1, np.inf], "Expected finite rates, got inf"),
        ([0.1, 0.2, 0.3], r"Expected rates of shape \(1, 2\), got \(1, 3\)"),
        (RuntimeError("out of bounds"), "Expected rates from the model, got: out of bounds"),
    ],
)
def test_what_is_no_rate_is_not_believed_and_too_much_of_it_ends_the_model(rates, expected):
    """Once, with the reason and how many there were."""
    scorer, given_up = guarded(Model(rates))
    for _ in range(2 * MOST_BAD):
        with pytest.raises(ModelFailed, match=expected):
            scorer.score(np.zeros((1, 0), np.float32))
    assert len(given_up) == 1
    assert given_up[0].startswith(f"{MOST_BAD} bad calls: Expected")


def test_a_slow_model_is_believed_and_given_up_sooner():
    """Everybody waits for it."""
    scorer, given_up = guarded(Model([0.1, 0.2], seconds=1.0))
    for _ in range(MOST_BAD // SLOW_WEIGHS):
        assert given_up == []
        assert scorer.score(np.zeros((1, 0), np.float32)).tolist() == [[0.1, 0.2]]
    assert "2 bad calls: Expected rates within 0.05 s, got them after 1.00 s" in given_up[0]


def test_a_few_bad_calls_among_many_good_ones_are_forgiven():
    """Seven in a hundred."""
    model = Model([0.1, 0.2])
    scorer, given_up = guarded(model)
    for call in range(300):
        model.rates = [0.1, np.nan if call % 15 == 0 else 0.2]
        try:
            scorer.score(np.zeros((1, 0), np.float32))
        except ModelFailed:
            assert call % 15 == 0
    assert given_up == []


@pytest.fixture(scope="module")
def catalog():
    return parse_catalog(CATALOG, Contract(()))[1]


def test_the_answer_does_without_a_model_that_fails_and_says_so(catalog):
    """By the last known rates, then by priority, and the record names the bundle they are from: so it can be made again."""
    scorer, _ = guarded(Model([np.nan, 0.2]))
    engine = build_engine(catalog, Contract(()), scorer, Versions(1, "b", "f"), {"gold": 10, "silver": 10})
    ask = Ask("d1", "c1", {}, (PlacementRequest("hero", 1),))
    [made] = Turn(engine, NOW).make([ask], Reading([CustomerState({})]))
    assert made.record.degraded == (NO_MODEL,)
    assert made.record.versions == Versions(1, None, "f", rates="b")
    plain = build_engine(catalog, Contract(()), without_models(engine).scorers, Versions(1, None, "f", rates="b"))
    [again] = Turn(plain, NOW).make([ask], Reading([CustomerState({})]))
    assert made.record == again.record
    assert made.record.placements[0].candidates == ("silver", "gold")
    knowing = build_engine(catalog, Contract(()), scorer, Versions(1, "b", "f"), last_rates={"gold": 0.3, "": 0.1})
    [made] = Turn(knowing, NOW).make([ask], Reading([CustomerState({})]))
    assert dict(zip(made.record.placements[0].candidates, made.record.placements[0].predicted_rates, strict=True)) == {
        "gold": 0.3, "silver": 0.1,
    }  # fmt: skip


def test_the_last_known_rate_of_an_action_with_few_rows_is_near_the_overall_rate(bundles):
    """(n r + k R) / (n + k), k = 100: half its own with a hundred rows, the overall rate with none."""
    manifest = msgspec.structs.replace(
        read_manifest(bundles.write()), base_rate=0.1, action_rates={"many": 0.3, "some": 0.3, "none": 0.3},
        action_rows={"many": 99_900, "some": 100},
    )  # fmt: skip
    found = last_known_rates(manifest)
    assert found == {"": 0.1, "many": pytest.approx(0.2998), "some": pytest.approx(0.2), "none": pytest.approx(0.1)}


def nan_above_a_million() -> bytes:
    """The tiny model, but for customers who are older than a million years."""
    model = sum_model(len(INPUTS))
    sigmoid = model.graph.node[1]
    sigmoid.output[0] = "plain"
    limit, nan = (helper.make_tensor(name, TensorProto.FLOAT, [], [v]) for name, v in (("limit", 1e6), ("nan", float("nan"))))
    model.graph.initializer.extend([limit, nan])
    model.graph.node.append(helper.make_node("Greater", ["margin", "limit"], ["far"]))
    model.graph.node.append(helper.make_node("Where", ["far", "nan", "plain"], ["rate"]))
    return model.SerializeToString()


def test_a_real_model_is_given_up_until_another_version_is_chosen(bundles, tmp_path):
    """The catalog goes on serving without it; the source says why; a new version starts anew."""
    contract, told = Contract(INPUTS[:2]), list[str | None]()
    registry = Registry(tmp_path / "registry")
    document, catalog = parse_catalog(CATALOG, contract)
    registry.publish_catalog(document, fingerprint=catalog.fingerprint, author="me", note="", at="2026-01-01T00:00:00Z")
    for name in ("bad", "good"):
        registry.add_bundle(bundles.write(name, model=nan_above_a_million() if name == "bad" else None), name)
    registry.promote("bad", at="2026-01-01T00:00:00Z", why="test")
    engines = EngineSource(registry, contract, lambda _engine, problem: told.append(problem))
    engines.refresh()
    ask = Ask("d1", "c1", {"device": "mobile"}, (PlacementRequest("hero", 1),))

    def decided(age: float):
        return Turn(engines.engine, NOW).make([ask], Reading([CustomerState({"age": age})]))[0].record

    assert told == [None]
    assert decided(30.0).versions.bundle == "bad"
    for _ in range(MOST_BAD):
        assert decided(2e6).degraded == (NO_MODEL,)
    assert decided(30.0).versions.bundle is None
    assert engines.problem == f"the models were given up after {MOST_BAD} bad calls: Expected finite rates, got nan"
    assert told == [None, engines.problem]
    registry.promote("good", at="2026-01-01T00:00:00Z", why="test")
    engines.refresh()
    assert (decided(2e6).versions.bundle, engines.problem) == ("good", None)


def test_an_engine_that_was_replaced_is_gone_without_garbage_collection(bundles, tmp_path):
    """Engines are frozen: one that only a collection could free would stay for good, and memory would grow with each swap."""
    contract = Contract(INPUTS[:2])
    registry = Registry(tmp_path / "registry")
    document, catalog = parse_catalog(CATALOG, contract)
    registry.publish_catalog(document, fingerprint=catalog.fingerprint, author="me", note="", at="2026-01-01T00:00:00Z")
    for name in ("first", "second"):
        registry.add_bundle(bundles.write(name), name)
    registry.promote("first", at="2026-01-01T00:00:00Z", why="test")
    engines = EngineSource(registry, contract, lambda _engine, _problem: None)
    engines.refresh()
    old = [weakref.ref(engines.engine.levers), *map(weakref.ref, engines.engine.scorers.values())]
    gc.disable()
    try:
        registry.promote("second", at="2026-01-01T00:00:00Z", why="test")
        engines.refresh()
        assert [one() for one in old] == [None] * len(old)
    finally:
        gc.enable()
