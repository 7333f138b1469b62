"""What the rows on events share: a home whose features are fed by events, and events that look like a shop's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from features.contract import Contract, parse_contract
from features.homes import write_home_contract
from features.journey import parse_journey
from tests.acceptance.whole import EXAMPLES, command

CATEGORIES = ("fashion", "home", "tech", "food", "travel")
CHANNELS = ("web", "app", "email", "store", "chat")
RECENT = "aggregate: recent, type: product_viewed, property: category"
CATEGORY = f"type: category, origin: activity, categories: [{', '.join(CATEGORIES)}]"
FEATURES = f"""
features:
  - {{name: views_30min, type: number, origin: activity, events: {{aggregate: count, type: product_viewed, window: 30 min}}}}
  - {{name: views_24h, type: number, origin: activity, events: {{aggregate: count, type: product_viewed, window: 24h}}}}
  - {{name: views_7d, type: number, origin: activity, events: {{aggregate: count, type: product_viewed, window: 7d}}}}
  - {{name: carts_30d, type: number, origin: activity, events: {{aggregate: count, type: cart_added, window: 30d}}}}
  - {{name: spend_30d, type: number, origin: value, events: {{aggregate: sum, type: purchased, property: amount, window: 30d}}}}
  - {{name: worth, type: number, origin: value, events: {{aggregate: sum, type: purchased, property: amount, half_life: 30d}}}}
  - {{name: warmth, type: number, origin: activity, events: {{aggregate: count, half_life: 1d}}}}
  - {{name: days_since_order, type: number, origin: value, events: {{aggregate: since_last, type: purchased}}}}
  - {{name: channels_7d, type: number, origin: activity, events: {{aggregate: distinct, property: channel, window: 7d}}}}
  - {{name: categories_30d, type: number, origin: activity, events: {{aggregate: distinct, property: category, window: 30d}}}}
  - {{name: last_category, {CATEGORY}, events: {{{RECENT}}}}}
  - {{name: category_before, {CATEGORY}, events: {{{RECENT}, position: 2}}}}
"""
JOURNEY = """\
  - {name: journey_stage, type: category, origin: activity, journey: stage}
  - {name: journey_days_in_stage, type: number, origin: activity, journey: days_in_stage}
  - {name: journey_previous_stage, type: category, origin: activity, journey: previous_stage}
"""
CATALOG = """catalog: 1
not_personalised: {share: 0}
consent: {marketing: {needed_for: {kinds: [offer]}}}
issues: [{id: all}]
groups: [{id: all, issue: all}]
actions:
  - {id: thanks, group: all, kind: content, value: 1, eligibility: {just_looked: "customer.views_30min >= 1"},
     treatments: [{id: thanks, placements: [hero]}]}
placements: [{id: hero, channel: web, fallback: {action: welcome, kind: content}}]
"""


def live_home(folder: Path, *, with_journey: bool = True) -> Contract:
    """A home with these features and a catalog whose one action needs a view within the last half hour."""
    features = FEATURES + JOURNEY if with_journey else FEATURES
    contract = parse_contract(features, journey=parse_journey((EXAMPLES / "journey.yaml").read_text()) if with_journey else None)
    write_home_contract(folder, contract)
    (folder / "catalog.yaml").write_text(CATALOG)
    command(folder, "catalog", "publish", str(folder / "catalog.yaml"))
    return contract


def shop_events(count: int, customers: int, start: float, days: float, seed: int) -> Iterator[dict[str, Any]]:
    """Events as `/events` takes them but for the moment, which is in seconds; in order of time."""
    chance = np.random.default_rng(seed)
    moments = np.sort(chance.uniform(start, start + days * 86_400.0, count))
    kinds = chance.choice(["product_viewed", "cart_added", "purchased", "page_viewed"], count, p=[0.5, 0.15, 0.1, 0.25])
    for n, (at, kind) in enumerate(zip(moments.tolist(), kinds.tolist(), strict=True)):
        category = str(CATEGORIES[chance.integers(len(CATEGORIES))])
        properties: dict[str, Any] = {"category": category}
        if kind == "purchased":
            properties["amount"] = round(float(chance.gamma(2.0, 20.0)), 2)
        yield {
            "event_id": f"e{seed}-{n}", "customer_id": f"c{chance.integers(customers)}", "type": kind,
            "channel": str(CHANNELS[chance.integers(len(CHANNELS))]), "at": round(at, 6), "properties": properties,
        }  # fmt: skip
