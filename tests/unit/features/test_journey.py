"""The journey's document: what it declares, what it refuses, and which features tell of it."""

from pathlib import Path

import pytest

from features.contract import ContractError, FromJourney, Move, Stage, contract_document, parse_contract
from features.event_types import PACKAGED, check_fed, check_journey, home_event_types, parse_event_types
from features.homes import home_contract, home_journey, journey_path, write_home_contract
from features.journey import journey_document, parse_journey

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "journey.yaml"
JOURNEY = parse_journey("""
start: new
stages:
  new: {on: {viewed: browsing}}
  browsing: {on: [{type: viewed, where: {category: cart}, to: cart}, {type: viewed, to: browsing}], after: {30min: new}}
  cart: {after: {1d: browsing}}
""")
FEATURES = """
features:
  - {name: age, type: number, origin: profile, max_age: 400d}
  - {name: journey_stage, type: category, origin: activity, journey: stage}
  - {name: journey_days_in_stage, type: number, origin: activity, journey: days_in_stage, default: 0}
  - {name: journey_previous_stage, type: category, origin: activity, journey: previous_stage, categories: [new, cart]}
"""
TYPES = parse_event_types("events: {viewed: {properties: {category: text, price: number, new: truth}}}")


def test_a_document_declares_stages_moves_and_time_outs():
    """Types and where they lead, or a list where properties matter; a bare `on` is a word."""
    assert JOURNEY.names == ("new", "browsing", "cart")
    assert JOURNEY.stages[0] == Stage("new", (Move("viewed", "browsing"),))
    assert JOURNEY.stages[1].moves == (Move("viewed", "cart", {"category": "cart"}), Move("viewed", "browsing"))
    assert (JOURNEY.stages[2].after, JOURNEY.stages[2].then) == (86_400.0, "browsing")


def test_the_document_of_a_journey_declares_the_same_journey():
    """Inverses; the example too, and it asks for nothing that the packaged events do not have."""
    assert parse_journey(journey_document(JOURNEY)) == JOURNEY
    example = parse_journey(EXAMPLE.read_text())
    assert parse_journey(journey_document(example)) == example
    check_journey(parse_event_types(PACKAGED.read_text()), example)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("stages: {a: {}}", "missing required field `start`"),
        ("{start: b, stages: {a: {}}}", "Expected one of the stages (a), got `b` - at `journey.yaml: start`"),
        ("{start: a, stages: {}}", "Expected 1 to 64 stages, got 0"),
        ("{start: a, stages: {a: {on: {x: b}}}}", "Expected one of the stages (a), got `b` - at `journey.yaml: stages.a.on.x`"),
        ("{start: a, stages: {a: {after: {1h: b}}}}", "got `b` - at `journey.yaml: stages.a.after`"),
        ("{start: a, stages: {a: {after: {soon: a}}}}", "Expected a duration such as `30 min`, `24h` or `7d`, got `soon`"),
        ("{start: a, stages: {a: {after: {0s: a}}}}", "at least 1 s, got `0s`"),
        ("{start: a, stages: {a: {on: {x: b}, after: {1h: b, 2h: a}}, b: {}}}", "at most one time-out, got 1h, 2h"),
        ("{start: a, stages: {a: {after: {1h: a}}}}", "Expected time-outs that end somewhere, got a -> a"),
        ("{start: a, stages: {a: {after: {1h: b}}, b: {after: {1h: a}}}}", "a -> b -> a"),
        ("{start: a, stages: {a: {}, b: {on: {x: a}}}}", "Expected stages that something leads to, got `b`"),
        ("{start: a b, stages: {a b: {}}}", "letters, digits and `_`, got `a b`"),
        (
            "{start: a, stages: {a: {on: [{type: x, to: a}, {type: x, to: a, where: {y: 1}}]}}}",
            "got one after another that takes its events - at `journey.yaml: stages.a.on.x`",
        ),
        (
            f"{{start: a, stages: {{a: {{on: [{', '.join(f'{{type: x, to: a, where: {{y: {n}}}}}' for n in range(5))}]}}}}}}",
            "Expected at most 4 different `where` of `x`, got 5",
        ),
        (
            f"{{start: a, stages: {{a: {{on: {{{', '.join(f't{n}: a' for n in range(33))}}}}}}}}}",
            "Expected at most 32 different moves, got 33",
        ),
        ("{start: a, stages: {a: {to: b}}}", "unknown field `to`"),
        ("{start: a, stages: [a]}", "Expected `object`, got `array` - at `$.stages`"),
        (": :", "journey.yaml"),
    ],
)  # fmt: skip
def test_a_journey_that_makes_no_sense_is_refused(text, problem):
    """Expected, found, where."""
    with pytest.raises(ContractError) as refused:
        parse_journey(text)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("move", "problem"),
    [
        ("{type: bought, to: a}", "Expected a declared event type (viewed), got `bought` - at journey.yaml: stages.a.on.bought"),
        ("{type: viewed, to: a, where: {colour: red}}", "Expected a declared property of `viewed`, got `colour`"),
        ("{type: viewed, to: a, where: {price: cheap}}", "Expected a number, got `cheap`"),
        ("{type: viewed, to: a, where: {category: 1}}", "Expected a text, got `1.0`"),
        ("{type: viewed, to: a, where: {channel: web, new: 1}}", None),
    ],
)
def test_a_move_needs_an_event_that_is_declared(move, problem):
    """Of a declared type, with properties that it has and values that they can have; every event has a channel."""
    contract = parse_contract("features: []", journey=parse_journey(f"{{start: a, stages: {{a: {{on: [{move}]}}}}}}"))
    if problem is None:
        check_fed(TYPES, contract)
        return
    with pytest.raises(ContractError) as refused:
        check_fed(TYPES, contract)
    assert problem in str(refused.value)


def test_features_tell_of_the_journey_of_their_home(tmp_path):
    """They are live, know all stages unless told which, and survive being written down together with the journey."""
    contract = parse_contract(FEATURES, journey=JOURNEY)
    assert [f.name for f in contract.live] == ["journey_stage", "journey_days_in_stage", "journey_previous_stage"]
    assert [f.name for f in contract.batch.features] == ["age"]
    assert {f.view for f in contract.live} == {"live"}
    assert contract.features[1].categories == ("new", "browsing", "cart")
    assert contract.features[1].journey == FromJourney("stage", JOURNEY.fingerprint)
    assert parse_contract(contract_document(contract), journey=JOURNEY) == contract
    assert home_journey(tmp_path) is None
    write_home_contract(tmp_path, contract)
    assert home_contract(tmp_path) == contract
    with pytest.raises(ContractError, match="got `viewed`"):
        home_event_types(tmp_path, contract)


def test_another_journey_is_another_input_where_a_feature_reads_it(tmp_path):
    """A model that learned from one journey does not serve with the next; a journey that no feature reads changes nothing."""
    write_home_contract(tmp_path, parse_contract(FEATURES, journey=JOURNEY))
    before, path = home_contract(tmp_path), journey_path(tmp_path)
    path.write_text(path.read_text().replace("30min", "40min"))
    after = home_contract(tmp_path)
    assert before.fingerprint != after.fingerprint
    plain = "features: [{name: age, type: number, origin: profile, max_age: 400d}]"
    assert parse_contract(plain, journey=JOURNEY).fingerprint == parse_contract(plain).fingerprint


@pytest.mark.parametrize(
    ("feature", "problem"),
    [
        ("type: number, origin: activity, journey: stage", "Expected a category for `stage`, got a number"),
        ("type: category, origin: activity, journey: days_in_stage", "Expected a number for `days_in_stage`, got a category"),
        ("type: number, origin: activity, journey: mood", "Invalid enum value 'mood'"),
        ("type: category, origin: context, journey: stage", "Expected an origin among profile, activity"),
        ("type: category, origin: activity, journey: stage, max_age: 1d", "Expected no `max_age` beside `journey`"),
        (
            "type: category, origin: activity, journey: stage, events: {aggregate: recent, property: x}",
            "Expected no `events` beside `journey`",
        ),
        ("type: category, origin: activity, journey: stage, categories: [gone]", "(new, browsing, cart), got `gone`"),
        ("type: category, origin: activity, journey: stage, default: gone", "Expected one of the categories, got `gone`"),
    ],
)  # fmt: skip
def test_a_feature_that_the_journey_cannot_tell_is_refused(feature, problem):
    """Expected, found, where."""
    with pytest.raises(ContractError) as refused:
        parse_contract(f"features: [{{name: x, {feature}}}]", journey=JOURNEY)
    assert problem in str(refused.value)


def test_a_feature_of_a_journey_needs_one():
    """The document to write is named."""
    with pytest.raises(ContractError, match=r"Expected a journey\.yaml beside the features, found none"):
        parse_contract("features: [{name: x, type: category, origin: activity, journey: stage}]")
