"""Declared events: what contradicts them, and which features they can feed."""

import math

import pytest

from features.contract import ContractError, parse_contract
from features.event_types import check_fed, home_event_types, parse_event_types
from features.homes import PACKAGED as FEATURES
from features.homes import features_folder
from features.sentiment import Sentiment

TYPES = parse_event_types("""
events:
  viewed: {properties: {category: text, price: number, new: truth}}
  opened: {channels: [email]}
""")


def contract(events: str, kind: str = "number"):
    return parse_contract(f"features: [{{name: x, type: {kind}, origin: activity, events: {events}}}]")


CATEGORY = "category, categories: [home, garden]"


@pytest.mark.parametrize(
    ("kind", "channel", "properties", "problem"),
    [
        ("viewed", "web", {"category": "home", "price": 3.0, "new": True}, None),
        ("viewed", "web", {}, None),
        ("viewed", "web", {"price": "3"}, "Expected a number, got `3` - at `$.properties.price`"),
        ("viewed", "web", {"price": True}, "Expected a number, got `True`"),
        ("viewed", "web", {"new": 1.0}, "Expected a truth, got `1.0`"),
        (
            "viewed",
            "web",
            {"colour": "red"},
            "Expected a declared property (`category`, `price`, `new`) of `viewed`, got `colour`",
        ),
        ("viewed", "web", {"price": math.nan}, "Expected a finite number"),
        ("opened", "web", {}, "Expected a channel among email for `opened`, got `web`"),
        ("opened", "email", {"x": 1.0}, "(none)"),
        ("unknown", "anywhere", {"x": 1.0}, None),
        ("unknown", "anywhere", {"x": "y" * 4097}, "at most 4096 characters"),
        ("unknown", "anywhere", {f"p{n}": 1.0 for n in range(65)}, "at most 64 properties"),
    ],
)
def test_what_contradicts_a_declaration_is_told(kind, channel, properties, problem):
    """None where nothing does; a type nobody declared is held to the limits only."""
    found = TYPES.problem(kind, channel, properties)
    assert (found is None) == (problem is None)
    assert problem is None or problem in found


@pytest.mark.parametrize(
    "events",
    [
        "{aggregate: count, type: viewed, window: 1d}",
        "{aggregate: count, window: 1d}",
        "{aggregate: sum, type: viewed, property: price, window: 1d}",
        "{aggregate: distinct, property: channel, window: 1d}",
        "{aggregate: distinct, property: category, window: 1d}",
        "{aggregate: distinct, property: price, window: 1d}",
        "{aggregate: recent, property: price}",
        "{aggregate: recent, type: viewed, property: new}",
        "{aggregate: count, window: 1d, where: {new: 1, category: home, channel: web}}",
        "{aggregate: since_last, type: [viewed, opened], where: {channel: email}}",
    ],
)
def test_a_feature_may_be_fed_by_what_is_declared(events):
    """A property that only some types have is read from those."""
    check_fed(TYPES, contract(events))


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ("{aggregate: count, type: bought, window: 1d}", "Expected a declared event type (viewed, opened), got `bought`"),
        (
            "{aggregate: sum, type: viewed, property: weight, window: 1d}",
            "Expected a declared property of `viewed`, got `weight`",
        ),
        ("{aggregate: sum, type: viewed, property: category, window: 1d}", "Expected a number to sum up, got `category`, a text"),
        ("{aggregate: sum, property: channel, window: 1d}", "Expected a number to sum up, got `channel`"),
        ("{aggregate: recent, property: category}", "Expected a number or a truth for a number, got `category`, a text"),
        ("{aggregate: recent, type: viewed, property: channel}", "Expected a number or a truth for a number, got `channel`"),
        (
            "{aggregate: recent, property: weight}",
            "Expected a property that some event has, got `weight` - at features.yaml: `x`",
        ),
        ("{aggregate: count, window: 1d, where: {colour: red}}", "Expected a property that some event has, got `colour`"),
        (
            "{aggregate: count, type: [viewed, opened], window: 1d, where: {category: home}}",
            "Expected a declared property of `opened`, got `category`",
        ),
        (
            "{aggregate: count, type: viewed, window: 1d, where: {price: '3.0'}}",
            "Expected a number, got `3.0` - at features.yaml: `x`.where.price",
        ),
        ("{aggregate: count, window: 1d, where: {category: 1}}", "Expected a text, got `1.0`"),
        ("{aggregate: count, window: 1d, where: {new: 'true'}}", "Expected a number, got `true`"),
    ],
)
def test_a_feature_that_nothing_can_feed_is_refused_at_start(events, problem):
    """Named, with what there is."""
    with pytest.raises(ContractError) as refused:
        check_fed(TYPES, contract(events))
    assert problem in str(refused.value)


@pytest.mark.parametrize("name", ["price", "new"])
def test_a_category_is_what_a_text_says(name):
    """Numbers and truths are no categories, online or offline; texts are."""
    with pytest.raises(ContractError, match=f"Expected a text for a category, got `{name}`, a "):
        check_fed(TYPES, contract(f"{{aggregate: recent, property: {name}}}", CATEGORY))
    check_fed(TYPES, contract("{aggregate: recent, property: category}", CATEGORY))


def test_a_home_has_its_own_types_or_those_of_the_package(tmp_path):
    """The packaged ones fit the packaged features."""
    assert "purchased" in home_event_types(tmp_path, parse_contract(FEATURES.read_text()))
    features_folder(tmp_path).mkdir(parents=True)
    (features_folder(tmp_path) / "events.yaml").write_text("events: {waved: {}}")
    assert set(home_event_types(tmp_path, parse_contract("features: []")).types) == {"waved"}


@pytest.mark.parametrize(
    "text", ["events: [a]", "events: {a: {properties: {b: colour}}}", "nothing: 1", "events: {a: {x: 1}}", ": :"]
)
def test_a_document_that_is_none_is_refused(text):
    """With what was expected."""
    with pytest.raises(ContractError, match=r"events\.yaml"):
        parse_event_types(text)


SURVEYS = """
events:
  answered: {properties: {text: text, score: number}, sentiment: {text: sentiment}}
  bought: {properties: {amount: number}}
"""


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (
            "{properties: {score: number}, sentiment: {score: mood}}",
            "Expected a declared text of `answered` to score, got `score`",
        ),
        ("{sentiment: {text: mood}}", "Expected a declared text of `answered` to score, got `text` - at events.yaml"),
        ("{properties: {a: text, b: number}, sentiment: {a: b}}", "Expected a name of its own for the sentiment of `a`, got `b`"),
        ("{properties: {a: text}, sentiment: {a: channel}}", "Expected a name of its own"),
        ("{properties: {a: text, b: text}, sentiment: {a: mood, b: mood}}", "Expected a name of its own"),
    ],
)
def test_what_is_scored_is_a_text_and_gives_a_number_of_its_own(declared, problem):
    """A declaration that contradicts itself is refused, with the place."""
    with pytest.raises(ContractError) as error:
        parse_event_types(f"events: {{answered: {declared}}}")
    assert problem in str(error.value)


def test_a_score_is_added_where_there_is_a_text_and_cannot_be_sent():
    """Worked out here, so that nobody disagrees about it; an event without the text has none."""
    types, sentiment = parse_event_types(SURVEYS), Sentiment()
    scored = types.with_sentiment("answered", {"text": "Great!", "score": 9.0}, sentiment)
    assert scored == {"text": "Great!", "score": 9.0, "sentiment": sentiment.score("Great!")}
    assert types.with_sentiment("answered", {"score": 9.0}, sentiment) == {"score": 9.0}
    assert types.with_sentiment("bought", {"amount": 1.0}, sentiment) == {"amount": 1.0}
    found = types.problem("answered", "web", {"text": "Great!", "sentiment": 1.0}) or ""
    assert found.startswith("Expected `sentiment` to be left out of `answered`: it is worked out from `text`, got `1.0`")
    assert found.endswith(" - at `$.properties.sentiment`")


def test_a_feature_may_read_a_score_as_a_number():
    """It can be summed up, like any number that is sent; of a type that scores nothing there is none."""
    types = parse_event_types(SURVEYS)
    check_fed(types, contract("{aggregate: sum, type: answered, property: sentiment, window: 1d}"))
    with pytest.raises(ContractError, match="Expected a declared property of `bought`, got `sentiment`"):
        check_fed(types, contract("{aggregate: sum, type: bought, property: sentiment, window: 1d}"))
