"""Row 1: one customer on seven channels, first nobody and then somebody; each answer fits what just happened."""

import datetime as dt
from pathlib import Path
from typing import Any

import httpx

from features.contract import parse_contract
from features.homes import write_home_contract
from features.journey import parse_journey
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.whole import command

FEATURES = """
features:
  - {name: last_category, type: category, origin: activity, categories: [fashion, home],
     events: {aggregate: recent, type: product_viewed, property: category}}
  - {name: chats_24h, type: number, origin: attitude, events: {aggregate: count, type: chat_message, window: 24h}}
  - {name: journey_stage, type: category, origin: activity, journey: stage}
  - {name: days_since_order, type: number, origin: value, events: {aggregate: since_last, type: purchased}}
  - {name: days_since_complaint, type: number, origin: attitude, events: {aggregate: since_last, type: complaint_opened}}
  - {name: days_since_closed, type: number, origin: attitude, events: {aggregate: since_last, type: complaint_closed}}
  - {name: channel, type: category, origin: context, categories: [web, chat, advertisement, email, app, store, call]}
"""
JOURNEY = """
start: looking
stages:
  looking: {on: {cart_added: cart, purchased: bought}}
  cart: {on: {cart_added: cart, purchased: bought}, after: {30min: abandoned}}
  abandoned: {on: {cart_added: cart, purchased: bought}, after: {1d: looking}}
  bought: {on: {product_viewed: looking, cart_added: cart}}
"""
SHOWN = "treatments: [{id: t, placements: [hero, chat, landing, mail, app, kiosk, call]}]"
CATALOG = f"""
catalog: 1
segments:
  complaining: "customer.days_since_complaint >= 0 and not (customer.days_since_closed <= customer.days_since_complaint)"
  has_cart: "journey.stage == 'cart' or journey.stage == 'abandoned'"
issues:
  - {{id: sell, eligibility: {{no_open_complaint: "not segment.complaining"}}}}
  - {{id: care}}
groups: [{{id: offers, issue: sell}}, {{id: help, issue: care}}]
actions:
  - {{id: cart_reminder, group: offers, kind: offer, value: 5, priority: 5, eligibility: {{cart_waits: segment.has_cart}},
     {SHOWN}}}
  - {{id: delivery_help, group: help, kind: service, value: 9, priority: 9,
     eligibility: {{just_chatted: "customer.chats_24h >= 1 and context.channel == 'chat'"}},
     {SHOWN}}}
  - {{id: recovery, group: help, kind: service, value: 9, priority: 8, eligibility: {{complained: segment.complaining}},
     {SHOWN}}}
  - {{id: thanks, group: help, kind: service, value: 9, priority: 6,
     eligibility: {{just_bought: "customer.days_since_order < 0.01"}}, {SHOWN}}}
  - {{id: fashion_offer, group: offers, kind: offer, value: 2, priority: 2,
     eligibility: {{likes_fashion: "customer.last_category == 'fashion'"}}, {SHOWN}}}
placements:
  - {{id: hero, channel: web, fallback: {{action: welcome, kind: content}}}}
  - {{id: chat, channel: chat, fallback: {{action: welcome, kind: content}}}}
  - {{id: landing, channel: advertisement, fallback: {{action: welcome, kind: content}}}}
  - {{id: mail, channel: email, fallback: {{action: newsletter, kind: content}}}}
  - {{id: app, channel: app, fallback: {{action: welcome, kind: content}}}}
  - {{id: kiosk, channel: store, fallback: {{action: welcome, kind: content}}}}
  - {{id: call, channel: call, fallback: {{action: welcome, kind: content}}}}
not_personalised: {{share: 0}} # the story is of somebody who is known: one name in a hundred would be answered as a stranger
contact:
  caps: [{{name: twice_a_day, at_most: 2, per: action, window: 1d, count: decisions, where: {{kinds: offer}}}}]
"""


def story_home(folder: Path) -> Path:
    """A home with the catalog and the features of the story."""
    write_home_contract(folder, parse_contract(FEATURES, journey=parse_journey(JOURNEY)))
    (folder / "catalog.yaml").write_text(CATALOG)
    command(folder, "catalog", "publish", str(folder / "catalog.yaml"))
    return folder


class Story:
    """Tells the service what happens, asks what to show, and notes what does not fit."""

    def __init__(self, web: httpx.Client, name: str) -> None:
        self._web = web
        self.anonymous, self.known = f"anon-{name}", f"customer-{name}"
        self.problems: list[str] = []
        self.channels: dict[str, None] = {}
        self.steps = self.questions = 0

    def happens(self, who: str, kind: str, channel: str, place: str, **properties: Any) -> str:
        """An event, and in the same round trip the answer at a placement: the action that is shown."""
        self.channels[channel] = None
        self.steps += 1
        event = {
            "event_id": f"{self.known}-{self.steps}",
            "customer_id": who,
            "type": kind,
            "channel": channel,
            "properties": properties,
        }
        asked = {"customer_id": who, "placement": place, "context": {"channel": channel}}
        answer = self._web.post("/events", json={"events": [event], "decide": asked}).raise_for_status().json()
        return self._shown(answer["decision"])

    def asks(self, who: str, channel: str, place: str) -> str:
        self.channels[channel] = None
        self.questions += 1
        asked = {"customer_id": who, "placement": place, "context": {"channel": channel}}
        return self._shown(self._web.post("/recommend", json=asked).raise_for_status().json())

    @staticmethod
    def _shown(answer: dict[str, Any]) -> str:
        action: str = answer["placements"][0]["items"][0]["action_id"]
        return action

    def link(self) -> None:
        links = [{"alias": self.anonymous, "customer_id": self.known}]
        answer = self._web.post("/identities", json={"links": links}).raise_for_status().json()
        self.expect("the two ids become one", answer["linked"], 1)

    def expect(self, what: str, found: object, *wanted: object) -> None:
        if found not in wanted:
            self.problems.append(f"{what}: expected {' or '.join(map(str, wanted))}, got {found}")

    def tell(self) -> None:
        """From the first look to the follow-up."""
        who = self.anonymous
        self.expect(
            "research on the site", self.happens(who, "product_viewed", "web", "hero", category="fashion"), "fashion_offer"
        )
        self.expect("service after the chat", self.happens(who, "chat_message", "chat", "chat", text="when?"), "delivery_help")
        self.expect("a cart on the web", self.happens(who, "cart_added", "web", "hero", category="fashion"), "cart_reminder")
        found = self.happens(who, "advertisement_clicked", "advertisement", "landing", campaign="autumn")
        self.expect("back by an advertisement", found, "cart_reminder")
        self.link()
        found = self.asks(self.known, "email", "mail")
        self.expect("a third reminder, now by mail to a known customer", found, "fashion_offer", "newsletter")
        found = self.happens(self.known, "purchased", "store", "kiosk", amount=59.0)
        self.expect("a confirmation after the purchase", found, "thanks")
        self.expect("no cart reminder after the purchase", self.asks(self.anonymous, "app", "app"), "thanks")
        found = self.happens(self.known, "complaint_opened", "call", "call", topic="late")
        self.expect("service while the complaint is open", found, "recovery")
        found = self.asks(self.anonymous, "web", "hero")
        self.expect("no selling while the complaint is open, by whichever id", found, "recovery", "thanks")
        found = self.happens(self.known, "complaint_closed", "call", "call", topic="late")
        self.expect("a follow-up once it is closed", found, "thanks", "fashion_offer")


def measure(context: Context) -> Measured:
    home = story_home(context.scratch / "story")
    with serving(home, context) as (_, url, _ready), httpx.Client(base_url=url, timeout=5.0) as web:
        story = Story(web, dt.datetime.now(dt.UTC).strftime("%H%M%S"))
        story.tell()
    told = "; ".join(story.problems) or "every answer fits"
    where = f"{len(story.channels)} channels ({', '.join(story.channels)})"
    figure = f"{story.steps} events and {story.questions} questions on {where}, one merge: {told}"
    return Measured(figure, not story.problems and len(story.channels) >= 6)  # as the story says


ROW = Row(
    1,
    "the story: at least seven touchpoints on six channels, an anonymous visitor who becomes known",
    "every answer fits what just happened",
    measure,
)
