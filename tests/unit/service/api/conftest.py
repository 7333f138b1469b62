"""The HTTP service over in-memory parts and a real registry."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from features.contract import parse_contract
from features.event_types import parse_event_types
from service.alerts import AlertDesk, by_type
from service.app import Desks, create_app
from service.bundles.archive import EngineArchive
from service.bundles.engines import EngineSource
from service.catalog.alerting import parse_alerts
from service.catalog.validate import parse_catalog
from service.consents import ConsentIntake, purposes_of
from service.decision.entities import CustomerState
from service.events import EventIntake
from service.explaining import Explainer
from service.identities import IdentityIntake
from service.keys import KeyRing
from service.metrics import Metrics
from service.pipeline import Parts
from service.registry import Registry
from service.settings import Settings
from service.stores.alert_stream import MemoryAlerts
from service.stores.consents import MemoryConsents
from service.stores.contact_history import MemoryContactHistory
from service.stores.customer_reader import MemoryCustomerReader
from service.stores.identities import MemoryIdentities
from service.stores.live_features import MemoryLiveFeatures
from service.stores.memory_log import MemoryDecisionLog

CONTRACT = parse_contract("""
features:
  - {name: age, type: number, origin: profile, max_age: 1d}
  - {name: open_complaint, type: number, origin: attitude, default: 0, max_age: 1d}
  - {name: device, type: category, origin: context, categories: [mobile, desktop]}
""")
EVENTS = """
events:
  product_viewed: {properties: {category: text, price: number}}
  email_opened: {channels: [email]}
  survey_answered: {properties: {survey: text, score: number, text: text}, sentiment: {text: sentiment}}
"""
ALERTS = """
alerts:
  - name: unhappy_detractor
    on: [survey_answered]
    when: event.survey == 'nps' and event.score <= 6 and customer.open_complaint == 1
    severity: high
    route: service_desk
"""
CATALOG = """
catalog: 1
issues: [{id: sales}]
groups: [{id: cards, issue: sales, eligibility: {no_open_complaint: "not (customer.open_complaint > 0)"}}]
actions:
  - {id: gold_card, group: cards, kind: offer, value: 120, priority: 2, treatments: [
      {id: gold_hero, placements: [home_hero, sidebar], content: {title: Gold}}]}
  - {id: silver_card, group: cards, kind: offer, value: 60, priority: 1, treatments: [
      {id: silver_hero, placements: [home_hero], content: {title: Silver}}]}
placements:
  - {id: home_hero, channel: web, slots: 2, accepts: [offer, content], explore: {epsilon: 0},
     fallback: {action: welcome, kind: content, content: {title: Welcome}}}
  - {id: sidebar, channel: web, slots: 1, accepts: [offer, content], explore: {epsilon: 0},
     fallback: {action: welcome, kind: content, content: {title: Welcome}}}
"""
STATES = {"c42": CustomerState({"age": 40.0}), "cross": CustomerState({"open_complaint": 1.0})}


def publish(registry: Registry, text: str = CATALOG) -> int:
    document, catalog = parse_catalog(text, CONTRACT)
    return registry.publish_catalog(document, fingerprint=catalog.fingerprint, author="me", note="", at="2026-01-01T00:00:00Z")


class Service:
    """A running service whose parts a test can look into."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry(folder / "registry")
        self.log = MemoryDecisionLog()
        self.live = MemoryLiveFeatures(CONTRACT)
        self.identities = MemoryIdentities()
        self.consents = MemoryConsents()
        self.clock = lambda: 1_767_268_800.0  # 2026-01-01 12:00 UTC
        self.alerts = MemoryAlerts(self.clock)

    def client(self, origins: str = "", keys=KeyRing, **changes) -> AsyncTestClient:
        return AsyncTestClient(self.app(origins, keys, **changes))

    def app(self, origins: str = "", keys=KeyRing, **changes) -> Litestar:
        metrics = Metrics()
        engines = EngineSource(self.registry, CONTRACT, lambda _engine, _problem: None)
        history = MemoryContactHistory()
        given = {
            "reader": MemoryCustomerReader(STATES, history, self.consents), "history": history, "log": self.log,
            "metrics": metrics, "clock": self.clock,
        }  # fmt: skip
        parts = Parts(engine=lambda: engines.engine, **(given | changes))
        explainer = Explainer(self.find, EngineArchive(self.registry, CONTRACT))
        types = parse_event_types(EVENTS)
        rules = by_type(parse_alerts(ALERTS, CONTRACT, types))
        alerts = AlertDesk(rules, given["reader"], self.log, self.alerts, metrics, self.clock)
        intake = EventIntake(self.log, self.live, types, metrics, self.clock, alerts=alerts)
        settings = Settings(watch_interval_s=0.01, body_limit=10_000, allow_origins=origins or None)
        linking = IdentityIntake(self.log, self.identities, self.clock)
        consenting = ConsentIntake(self.log, self.consents, lambda: purposes_of(parts.engine()), self.clock)
        return create_app(settings, parts, engines, Desks(explainer, intake, linking, consenting), keys)

    def find(self, decision_id: str):
        return next((r for r in self.log.decisions if r.decision_id == decision_id), None)


@pytest.fixture
def service(tmp_path) -> Service:
    return Service(tmp_path)


@pytest.fixture
async def client(service):
    """A client of a service that has a catalog."""
    publish(service.registry)
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(service.client())


@pytest.fixture
def publish_catalog(service):
    return lambda text=CATALOG: publish(service.registry, text)


async def until(holds) -> None:
    """Five seconds at most."""
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError
