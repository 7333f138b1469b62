"""What docs/feedback.md and docs/alerts.md declare, word by word, on a running service."""

import json
import re
from pathlib import Path

import httpx
import pytest
import redis

from features.contract import parse_contract
from features.homes import write_home_contract
from features.redis_server import resolve_redis
from service.cli import main
from service.stores.alert_stream import STREAM
from training.demo.running import running_server

DOCS = Path(__file__).resolve().parents[2] / "docs"
YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
RULE = "no_selling_to_the_unhappy"


@pytest.fixture
def home(tmp_path):
    """A home with the features, the catalog and the alerts of the pages."""
    features, catalog = YAML.findall((DOCS / "feedback.md").read_text())
    alerts, by_sweep = YAML.findall((DOCS / "alerts.md").read_text())
    write_home_contract(tmp_path / "home", parse_contract(features))
    (tmp_path / "home" / "alerts.yaml").write_text(alerts + by_sweep.removeprefix("alerts:\n"))
    (tmp_path / "catalog.yaml").write_text(catalog)
    assert main(["--home", str(tmp_path / "home"), "catalog", "publish", str(tmp_path / "catalog.yaml")]) == 0
    return tmp_path / "home"


class Customer:
    def __init__(self, web: httpx.Client) -> None:
        self._web = web
        self._count = 0

    def tells(self, kind: str, **properties) -> None:
        self._count += 1
        event = {"event_id": f"e-{self._count}", "customer_id": "c42", "type": kind, "channel": "web", "properties": properties}
        assert self._web.post("/events", json={"events": [event]}).raise_for_status().json()["accepted"] == 1

    def is_shown(self) -> tuple[str, list[str]]:
        """The action, and the actions that the rule dropped."""
        asked = {"customer_id": "c42", "placement": "hero", "context": {"channel": "web"}, "explain": "full"}
        [answer] = self._web.post("/recommend", json=asked).raise_for_status().json()["placements"]
        dropped = answer["explanation"]["dropped"].items()  # by the rule's name, and what was missing for it
        return answer["items"][0]["action_id"], [action for rule, names in dropped if rule.split()[0] == RULE for action in names]


def test_a_detractor_with_an_open_complaint_is_served_and_not_sold_to(home):
    """Neither alone keeps offers away; both do, by the name of the rule; a closed complaint brings them back."""
    with (
        resolve_redis(None, home) as url,
        running_server(home, url) as server,
        httpx.Client(base_url=server.url, timeout=5.0) as web,
    ):
        customer = Customer(web)
        assert customer.is_shown() == ("gold_card", [])
        customer.tells("survey_answered", survey="nps", score=3, text="Very slow, I am disappointed")
        assert customer.is_shown() == ("gold_card", [])
        customer.tells("complaint_opened", topic="delivery")
        assert customer.is_shown() == ("call_back", ["gold_card"])
        customer.tells("survey_answered", survey="csat", score=5)
        assert customer.is_shown() == ("call_back", ["gold_card"])
        customer.tells("complaint_closed", topic="delivery")
        assert customer.is_shown() == ("gold_card", [])


def test_who_has_to_act_finds_the_alert_in_the_stream_and_in_the_queue(home, capsys):
    """Once in a week for a customer, whatever comes; acknowledged, closed, and told how long it took."""
    with (
        resolve_redis(None, home) as url,
        running_server(home, url) as server,
        httpx.Client(base_url=server.url, timeout=5.0) as web,
    ):
        customer = Customer(web)
        customer.tells("survey_answered", survey="nps", score=3)
        customer.tells("complaint_opened", topic="delivery")
        customer.tells("survey_answered", survey="csat", score=1)
        for score in (2, 1):
            customer.tells("survey_answered", survey="nps", score=score, text="The worst delivery ever.")
        customer.tells("chat_message", text="I am so angry, this is terrible")
        with redis.Redis.from_url(url, decode_responses=True) as client:
            sent = [fields for _, fields in client.xrange(STREAM)]
        counted = web.get("/metrics").text
    assert [(fields["name"], fields["customer_id"]) for fields in sent] == [("unhappy_detractor", "c42"), ("angry_chat", "c42")]
    assert json.loads(sent[0]["because"])["event.score"] == 2.0
    assert 'nextbest_alerts_total{result="held"} 1.0' in counted

    def alerts(*arguments: str) -> str:
        assert main(["--home", str(home), "alerts", *arguments]) == 0
        return capsys.readouterr().out

    capsys.readouterr()
    queue = json.loads(alerts("--route", "service_desk", "--json"))
    assert [(one["alert"]["alert_id"], one["state"]) for one in queue] == [(sent[0]["alert_id"], "open")]
    alerts("acknowledge", sent[0]["alert_id"], "--by", "ann")
    alerts("close", sent[0]["alert_id"], "--by", "ann", "--note", "called")
    assert "unhappy_detractor" not in alerts()
    [_, desk] = json.loads(alerts("report", "--json"))
    assert (desk["route"], desk["closed"], desk["to_close"]["median"] >= desk["to_acknowledge"]["median"]) == (
        "service_desk",
        1,
        True,
    )
