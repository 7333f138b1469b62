"""The journey from an event over HTTP to another answer, and back from what is on disk: with a real Redis and a clock in hand."""

import contextlib
from pathlib import Path

import pytest
import redis
from litestar.testing import AsyncTestClient

from features.contract import parse_contract
from features.event_types import home_event_types
from features.homes import write_home_contract
from features.journey import parse_journey
from features.layout import CustomerLayout
from service.app import Desks, create_app
from service.bundles.archive import EngineArchive
from service.bundles.engines import EngineSource
from service.catalog.validate import parse_catalog
from service.consents import ConsentIntake
from service.decision.records import EventRecord
from service.events import EventIntake
from service.explaining import Explainer
from service.identities import IdentityIntake
from service.metrics import Metrics
from service.pipeline import Parts
from service.registry import Registry
from service.settings import Settings
from service.stores.completeness import nothing_written
from service.stores.consents import RedisConsents
from service.stores.contact_history import RedisContactHistory
from service.stores.customer_reader import RedisCustomerReader
from service.stores.decisions import find_decision
from service.stores.identities import RedisIdentities
from service.stores.live_features import RedisLiveFeatures
from service.stores.redis_link import RedisLink
from service.stores.segment_log import SegmentLog
from training.event_commands import live_differences
from training.event_history import write_events
from training.rebuild import rebuild

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples"
CONTRACT = parse_contract(
    """
features:
  - {name: journey_stage, type: category, origin: activity, journey: stage}
  - {name: journey_days_in_stage, type: number, origin: activity, journey: days_in_stage}
  - {name: journey_previous_stage, type: category, origin: activity, journey: previous_stage}
""",
    journey=parse_journey((EXAMPLE / "journey.yaml").read_text()),
)
CATALOG = """
catalog: 1
issues: [{id: all}]
groups: [{id: all, issue: all}]
actions:
  - {id: cart_reminder, group: all, kind: content, value: 9, priority: 9,
     applicability: {cart_was_left: "journey.stage == 'abandoned' and journey.previous_stage == 'cart'"},
     treatments: [{id: reminder, placements: [hero]}]}
  - {id: come_back, group: all, kind: content, value: 5, priority: 5,
     applicability: {quiet_for_long: "journey.stage == 'quiet' and journey.days_in_stage >= 2"},
     treatments: [{id: back, placements: [hero]}]}
  - {id: thanks, group: all, kind: content, value: 5, priority: 5, applicability: {just_bought: "journey.stage == 'bought'"},
     treatments: [{id: thanks, placements: [hero]}]}
placements: [{id: hero, channel: web, fallback: {action: welcome, kind: content}}]
"""
NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC
MINUTE, DAY = 60.0, 86_400.0


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    write_home_contract(folder, CONTRACT)
    document, catalog = parse_catalog(CATALOG, CONTRACT)
    registry = Registry(folder / "registry")
    registry.publish_catalog(document, fingerprint=catalog.fingerprint, author="me", note="", at="2026-01-01T00:00:00Z")
    return folder


class Shop:
    """A running service, and its clock."""

    web: AsyncTestClient
    now = NOON
    _events = 0

    async def happens(self, kind: str, who: str = "c42") -> None:
        self._events += 1
        event = {"event_id": f"e{self._events}", "customer_id": who, "type": kind, "channel": "web"}
        answer = await self.web.post("/events", json={"events": [event]})
        assert answer.json()["accepted"] == 1

    async def shown(self, who: str = "c42") -> tuple[str, list[str]]:
        answer = (await self.web.post("/recommend", json={"customer_id": who, "placement": "hero"})).json()
        return answer["placements"][0]["items"][0]["action_id"], answer["degraded"]


@pytest.fixture
async def shop(home, redis_url):
    link, metrics = RedisLink(redis_url, timeout_ms=5000), Metrics()
    log, registry = SegmentLog(home / "log"), Registry(home / "registry")
    async with contextlib.AsyncExitStack() as stack:
        engines = EngineSource(registry, CONTRACT, lambda _engine, _problem: None)
        made = Shop()
        parts = Parts(
            reader=RedisCustomerReader(link, CONTRACT, lambda: nothing_written(home)), history=RedisContactHistory(link),
            log=log, engine=lambda: engines.engine, metrics=metrics, clock=lambda: made.now,
        )  # fmt: skip
        intake = EventIntake(log, RedisLiveFeatures(link, CONTRACT), home_event_types(home, CONTRACT), metrics, lambda: made.now)
        explainer = Explainer(lambda name: find_decision(home / "log" / "decisions", name), EngineArchive(registry, CONTRACT))
        linking = IdentityIntake(log, RedisIdentities(link, CONTRACT, lambda: True), lambda: made.now)
        consenting = ConsentIntake(log, RedisConsents(link), tuple, lambda: made.now)
        app = create_app(Settings(watch_interval_s=0.05), parts, engines, Desks(explainer, intake, linking, consenting))
        made.web = await stack.enter_async_context(AsyncTestClient(app))
        yield made


async def test_an_event_changes_the_answer_and_so_does_a_time_out_that_passes(shop):
    """A cart: nothing yet. Half an hour later, without an event, the reminder; after the purchase thanks, and no reminder."""
    assert (await shop.shown())[0] == "welcome"
    await shop.happens("cart_added")
    assert (await shop.shown())[0] == "welcome"
    shop.now += 29 * MINUTE
    assert (await shop.shown())[0] == "welcome"
    shop.now += 2 * MINUTE
    assert (await shop.shown())[0] == "cart_reminder"
    await shop.happens("purchased")
    assert (await shop.shown())[0] == "thanks"
    shop.now += 31 * DAY
    assert (await shop.shown())[0] == "welcome"
    shop.now += DAY
    assert (await shop.shown())[0] == "come_back"


async def test_the_journey_of_an_alias_is_the_customers(shop):
    """A cart of an anonymous visitor who bought elsewhere under a name: no reminder, by either id."""
    await shop.happens("cart_added", "a-1")
    shop.now += MINUTE
    await shop.happens("purchased", "c42")
    shop.now += 40 * MINUTE
    assert (await shop.shown("a-1"))[0] == "cart_reminder"
    linked = await shop.web.post("/identities", json={"links": [{"alias": "a-1", "customer_id": "c42"}]})
    assert linked.json()["linked"] == 1
    assert (await shop.shown("a-1"))[0] == "thanks"
    assert (await shop.shown("c42"))[0] == "thanks"


async def test_after_redis_was_emptied_the_stage_is_missing_and_named(shop, redis_url):
    """No rule takes nobody for a new customer."""
    await shop.happens("purchased")
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    shown, degraded = await shop.shown()
    assert shown == "welcome"
    assert any("journey_stage" in reason for reason in degraded)


def test_a_rebuild_brings_the_stage_back_and_it_is_what_the_events_say(home, redis_url):
    """Events that only the journey reads; in Feast's layout as of the last one, equal to DuckDB's."""
    kinds = ["product_viewed", "cart_added", "purchased", "searched"]
    records = [
        EventRecord(f"e{n}", f"c{n % 7}", kinds[n * n // 7 % 4], "web", NOON + n * 400, NOON + n * 400) for n in range(300)
    ]
    write_events(home, "told", records)
    report = rebuild(home, redis_url)
    assert (report.events, report.customers_of_events) == (300, 7)
    assert live_differences(home, redis_url, 10) == ([], 7)
    layout = CustomerLayout(CONTRACT)
    with redis.Redis.from_url(redis_url) as client:
        values = layout.decode(client.hmget(layout.key("c1"), layout.fields), NOON).values
        assert values["journey_stage"] in CONTRACT.journey.names
        client.delete(layout.key("c1"))
    assert live_differences(home, redis_url, 10)[0] == [
        "c1: the event of 2026-01-02T20:46:40Z is not known in Redis", "c1: `journey_stage` is None in Redis, 'new' offline"
    ]  # fmt: skip
