"""`alerts.yaml`: what it says, and every mistake with its line."""

import pytest

from features.contract import parse_contract
from features.event_types import parse_event_types
from service.catalog.alerting import home_alerts, parse_alerts
from service.errors import AlertsInvalid

CONTRACT = parse_contract("""
features:
  - {name: open_complaint, type: number, origin: attitude, default: 0, max_age: 1d}
  - {name: region, type: category, origin: profile, categories: [north, south], max_age: 1d}
  - {name: chats_24h, type: number, origin: attitude, events: {aggregate: count, type: answered, window: 24h}}
  - {name: device, type: category, origin: context, categories: [mobile, desktop]}
""")
TYPES = parse_event_types("""
events:
  answered: {properties: {score: number, text: text, final: truth}, sentiment: {text: sentiment}}
  bought: {properties: {amount: number, text: number}}
""")
GOOD = {
    "name": "unhappy",
    "on": "[answered]",
    "when": "event.score <= 6 and customer.open_complaint == 1",
    "severity": "high",
    "route": "desk",
}


def document(**changes: str | None) -> str:
    fields = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    return "alerts:\n  - " + "\n    ".join(f"{key}: {value}" for key, value in fields.items()) + "\n"


def parsed(**changes: str | None):
    return parse_alerts(document(**changes), CONTRACT, TYPES)


def test_an_alert_says_when_somebody_has_to_know():
    """`on` needs no quotes; what the condition reads is known; without `once_per` it is raised every time."""
    [rule] = parsed()
    assert (rule.name, rule.on, rule.severity, rule.route, rule.once_per) == ("unhappy", ("answered",), "high", "desk", None)
    assert (rule.reads, rule.features, rule.live) == (("event.score", "customer.open_complaint"), ("open_complaint",), False)
    assert rule.holds({"score": 6.0}, {"open_complaint": 1.0})
    assert not rule.holds({"score": 7.0}, {"open_complaint": 1.0})
    assert not rule.holds({"score": 6.0}, {})
    assert not rule.holds({}, {"open_complaint": 1.0})


def test_channel_type_truths_and_scores_can_be_named():
    """All that is declared of the event, and what is worked out from it; defaults stand in for features that are missing."""
    when = "event.channel == 'chat' and event.type == 'answered' and event.final == 1 and event.sentiment < -0.2"
    [rule] = parsed(when=f"{when} and customer.open_complaint == 0 and customer.chats_24h >= 0", once_per="7d")
    values = {"channel": "chat", "type": "answered", "final": 1.0, "sentiment": -0.5}
    assert rule.holds(values, {"chats_24h": 0.0})
    assert not rule.holds({**values, "final": 0.0}, {"chats_24h": 0.0})
    assert (rule.once_per, rule.live) == (7 * 86_400.0, True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"on": "[answred]"}, "line 3: Expected a declared event type (did you mean `answered`?), got `answred` - at"),
        ({"on": "[[answered]]"}, "line 3: Expected a declared event type (did you mean `answered`?), got `['answered']` - at"),
        (
            {"on": "[{answered: 1}]"},
            "line 3: Expected a declared event type (did you mean `answered`?), got `{'answered': 1}` - at",
        ),
        ({"on": "answered"}, "Expected a list, got `answered` - at `alerts[0].on`"),
        ({"on": "[]", "when": "customer.open_complaint == 1"}, "Expected `once_per` for an alert that `nextbest alerts sweep`"),
        ({"on": "[]", "once_per": "1d"}, "Expected a known name"),
        (
            {"when": "event.scor <= 6"},
            "line 4: Expected a known name (did you mean `event.score`?), got `event.scor` - at line 1",
        ),
        ({"when": "customer.nps <= 6"}, "Expected a known name"),
        ({"when": "context.device == 'mobile'"}, "Expected a known name"),
        ({"when": "event.score <="}, "Expected an expression, got something else"),
        ({"when": "event.score == 'high'"}, "Expected a number to compare with a number, got `text` - at line 1, column 16"),
        ({"when": "customer.region == 'east'"}, "Expected a known category of `customer.region`"),
        ({"when": "event.type == 'bought'"}, "Expected a known category of `event.type`"),
        ({"on": "[answered, bought]", "when": "event.text == 1"}, "Expected `event.text` to be of one type in answered, bought"),
        ({"severity": "urgent"}, "Expected one of `low`, `medium`, `high`, `critical`, got `urgent`"),
        ({"route": "Service Desk"}, "Expected a name of a-z, 0-9 and `_`, got `Service Desk` - at `alerts[0].route`"),
        ({"route": None}, "Expected key `route`, got none - at `alerts[0]`"),
        ({"once_per": "weekly"}, "Expected a duration such as"),
        ({"wen": "1"}, "Expected a known key (did you mean `when`?), got `wen`"),
    ],
)
def test_a_mistake_is_told_with_its_line(changes, problem):
    """Where it is, what was expected, what was found."""
    with pytest.raises(AlertsInvalid) as error:
        parsed(**changes)
    assert problem in str(error.value)


def test_every_mistake_is_told_at_once_and_a_name_is_used_once():
    """Nothing is in force until all are mended."""
    second = document(severity="urgent").removeprefix("alerts:\n")
    with pytest.raises(AlertsInvalid) as error:
        parse_alerts(document(on="[nothing]") + second, CONTRACT, TYPES)
    assert len(error.value.problems) == 3
    with pytest.raises(AlertsInvalid, match="Expected YAML"):
        parse_alerts("alerts: [", CONTRACT, TYPES)
    with pytest.raises(AlertsInvalid, match="Expected key `alerts`"):
        parse_alerts("{}", CONTRACT, TYPES)


def test_a_home_without_a_document_has_no_alerts(tmp_path):
    """And one with a document has what it says."""
    assert home_alerts(tmp_path, CONTRACT, TYPES) == ()
    (tmp_path / "alerts.yaml").write_text(document())
    assert [rule.name for rule in home_alerts(tmp_path, CONTRACT, TYPES)] == ["unhappy"]
