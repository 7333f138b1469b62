"""What `predictions.yaml` may say, and what it may not."""

import pytest

from features.contract import ContractError, contract_document, parse_contract
from features.event_types import parse_event_types
from features.predictions import Label, Prediction, check_predictions, parse_predictions

TWO = """
predictions:
  churn_risk: {label: {none_of: purchased, within: 30d}, among: {any_of: [purchased, viewed], within: 180d}}
  worth: {label: {sum: purchased.amount, within: 30d, where: {category: fashion}}}
"""
TYPES = parse_event_types("events: {purchased: {properties: {amount: number, category: text}}, viewed: {}}")
FEATURE = "features: [{name: churn_risk, type: number, origin: activity, max_age: 7d, prediction: churn_risk}]"


def test_a_document_declares_labels_and_of_whom_they_are():
    """Rates and values, in seconds."""
    found = parse_predictions(TWO)
    assert found["churn_risk"] == Prediction(
        "churn_risk", Label("none_of", 2_592_000.0, ("purchased",)), Label("any_of", 15_552_000.0, ("purchased", "viewed"))
    )
    assert found["worth"].label == Label("sum", 2_592_000.0, ("purchased",), "amount", where={"category": "fashion"})
    assert [one.label.is_value for one in found.values()] == [False, True]
    check_predictions(found, TYPES, parse_contract(FEATURE))


def test_a_feature_that_a_prediction_feeds_lives_in_a_view_of_its_own():
    """Its moment is that of the scoring; the document reads back the same."""
    contract = parse_contract(FEATURE)
    assert contract.features[0].view == "predictions"
    assert parse_contract(contract_document(contract)) == contract


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: {label: {within: 30d}}", "Expected one of none_of.*, got none - at `predictions.yaml: a.label`"),
        ("a: {label: {any_of: x, count: x, within: 30d}}", "got any_of, count"),
        ("a: {label: {any_of: x, within: 30 min}}", "Expected an hour or more, got `30 min`"),
        ("a: {label: {sum: purchased, within: 30d}}", "such as `purchased.amount`, got `purchased`"),
        ("a: {label: {any_of: x, within: 30d}, among: {none_of: x, within: 9d}}", "`any_of`, got `none_of` - at .*among`"),
        ("a: {label: {objective: click, within: 30d, where: {a: b}}}", "Expected no `where` for an objective"),
        ("a-b: {label: {any_of: x, within: 30d}}", "Expected a name of letters"),
        ("a: {label: {any_of: x, within: 30d, colour: red}}", "unknown field `colour`"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_what_was_expected(text, problem):
    """Expected, found, where."""
    with pytest.raises(ContractError, match=problem):
        parse_predictions(f"predictions: {{{text}}}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("churn_risk: {label: {any_of: sold, within: 30d}}", "Expected a declared event type .*got `sold` - at predictions.yaml"),
        ("churn_risk: {label: {sum: purchased.category, within: 30d}}", "got `category`, a text"),
        ("churn_risk: {label: {any_of: viewed, within: 30d, where: {category: x}}}", "declared property of `viewed`"),
        ("churn_risk: {label: {any_of: viewed, within: 30d}, among: {any_of: sold, within: 30d}}", "got `sold`"),
        ("other: {label: {any_of: viewed, within: 30d}}", r"predictions.yaml \(`other`\), got `churn_risk` - at features.yaml"),
    ],
)  # fmt: skip
def test_labels_events_and_features_must_fit_together(text, problem):
    """A label of events that nobody declares would be the same for everybody."""
    with pytest.raises(ContractError, match=problem):
        check_predictions(parse_predictions(f"predictions: {{{text}}}"), TYPES, parse_contract(FEATURE))
