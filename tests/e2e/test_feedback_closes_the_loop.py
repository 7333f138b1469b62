"""What docs/feedback.md declares, word by word, on a running service."""

import re
from pathlib import Path

import httpx
import pytest

from features.contract import parse_contract
from features.homes import write_home_contract
from features.redis_server import resolve_redis
from service.cli import main
from training.demo.running import running_server

PAGE = Path(__file__).resolve().parents[2] / "docs" / "feedback.md"
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
RULE = "no_selling_to_the_unhappy"


@pytest.fixture
def home(tmp_path):
    """A home with the features and the catalog of the page."""
    features, catalog, *_ = BLOCKS
    write_home_contract(tmp_path / "home", parse_contract(features))
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
