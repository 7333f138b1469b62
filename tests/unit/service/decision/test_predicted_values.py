"""A bundle may predict what an action brings: then no value is put on a success a second time, and the record says so."""

import msgspec
import pytest

from service.catalog.entities import PRIMARY
from service.decision.again import decide_again, encode_record
from service.decision.decide import decide
from service.decision.engine import Engine, build_engine, without_models
from service.decision.explain import explain
from service.decision.records import DecisionRecord, Versions
from service.decision.scoring import FlatScorer
from service.decision.situations import without_chance

BROUGHT = {"gold": 12.3, "silver": 4.0}
VERSIONS = Versions(1, "spender", "f", predicts="value")


def engine_of(tiny, objectives=None, *, scorers=None, values=frozenset({PRIMARY}), factors=None) -> Engine:
    """Gold and silver, with a value and a lever each."""
    given = {"factors": factors} if factors is not None else {}
    placement = tiny.placement(objectives=objectives or {PRIMARY: 1.0}, **given)
    actions = [tiny.action("gold", value=100.0, lever=2.0), tiny.action("silver", value=1000.0)]
    catalog = tiny.catalog(actions, [placement])
    predicted = {PRIMARY: FlatScorer([*BROUGHT.values()]), **(scorers or {})}
    return build_engine(catalog, tiny.contract, predicted, VERSIONS, last_rates={**BROUGHT, "": 1.0}, values=values)


def utilities(engine: Engine, request) -> dict[str, float]:
    placement = decide(engine, [request])[0].placements[0]
    return dict(zip(placement.candidates, placement.utilities, strict=True))


def test_a_predicted_value_is_not_multiplied_by_the_actions_value(tiny):
    """Its lever counts as ever: 12.3 x 2, and 4 for silver, whose value of 1,000 would win."""
    assert utilities(engine_of(tiny), tiny.request()) == pytest.approx({"gold": 24.6, "silver": 4.0})
    rates = engine_of(tiny, values=frozenset())
    assert utilities(rates, tiny.request()) == pytest.approx({"gold": 2460.0, "silver": 4000.0})


def test_where_the_prediction_is_switched_off_the_value_counts(tiny):
    """`factors: [value]` asks for what the catalog says, `[rate]` for what the bundle says."""
    assert utilities(engine_of(tiny, factors=("value",)), tiny.request()) == {"gold": 100.0, "silver": 1000.0}
    assert utilities(engine_of(tiny, factors=("rate",)), tiny.request()) == BROUGHT


def test_rates_and_values_are_added_up_in_money(tiny):
    """Of a sum of objectives the rates are worth the actions' values, the predicted values what they say."""
    engine = engine_of(
        tiny,
        {PRIMARY: 1.0, "value:spend": 2.0},
        scorers={"value:spend": FlatScorer([5.0, 6.0])},
        values=frozenset({"value:spend"}),
    )
    expected = {"gold": (12.3 * 100.0 + 2.0 * 5.0) * 2.0, "silver": 4.0 * 1000.0 + 2.0 * 6.0}
    assert utilities(engine, tiny.request()) == pytest.approx(expected)


def test_without_models_mean_values_stand_in_as_values(tiny):
    """What stands in for a bundle that failed is of the same kind, and the record still says of which."""
    engine = without_models(engine_of(tiny))
    assert utilities(engine, tiny.request()) == pytest.approx({"gold": 24.6, "silver": 4.0})
    assert decide(engine, [tiny.request()])[0].versions.predicts == "value"
    assert utilities(without_chance(engine_of(tiny)), tiny.request()) == pytest.approx({"gold": 24.6, "silver": 4.0})


def test_the_record_says_what_was_predicted_and_is_made_again_bit_for_bit(tiny):
    """A record of rates has no word more than before."""
    engine = engine_of(tiny)
    [record] = decide(engine, [tiny.request()])
    assert record.placements[0].items[0].predicted_rate == 12.3
    written = encode_record(record)
    assert b'"predicts":"value"' in written
    assert encode_record(decide_again(engine, msgspec.json.decode(written, type=DecisionRecord))) == written
    assert b"predicts" not in encode_record(decide(tiny.engine([tiny.action("gold")]), [tiny.request()])[0])


def test_an_explanation_tells_an_expected_value_and_no_value_of_a_success(tiny):
    """The utility is still the product of what is told."""
    engine = engine_of(tiny)
    [record] = decide(engine, [tiny.request()])
    factors = explain(engine, record).placements[0].actions[0].factors
    assert factors is not None
    assert (factors.predicts, factors.rate, factors.value) == ("value", 12.3, 1.0)
    assert factors.utility == pytest.approx(factors.rate * factors.context * factors.value * factors.lever)
