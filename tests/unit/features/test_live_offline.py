"""Offline and online say the same of every customer at every moment."""

import numpy as np
import pyarrow as pa
import pytest

from features.contract import parse_contract
from features.live import CHANNEL, Event, LiveFeatures
from features.live_offline import disagreement, event_table, live_values

CATEGORIES = "type: category, origin: activity, categories: [fashion, home]"
CONTRACT = parse_contract(f"""
features:
  - {{name: views_30min, type: number, origin: activity, events: {{aggregate: count, type: viewed, window: 30 min}}}}
  - {{name: spend_7d, type: number, origin: value, events: {{aggregate: sum, type: bought, property: amount, window: 7d}}}}
  - {{name: anything_30d, type: number, origin: activity, events: {{aggregate: count, window: 30d}}}}
  - {{name: worth, type: number, origin: value, events: {{aggregate: sum, type: bought, property: amount, half_life: 30d}}}}
  - {{name: warmth, type: number, origin: activity, events: {{aggregate: count, half_life: 1d}}}}
  - {{name: since_buying, type: number, origin: value, max_age: 5d, events: {{aggregate: since_last, type: bought}}}}
  - {{name: last_seen, {CATEGORIES}, max_age: 5d, events: {{aggregate: recent, type: viewed, property: category}}}}
  - {{name: second, {CATEGORIES}, events: {{aggregate: recent, type: viewed, property: category, position: 2}}}}
  - {{name: last_amount, type: number, origin: value, events: {{aggregate: recent, type: bought, property: amount}}}}
  - {{name: channels_7d, type: number, origin: activity, events: {{aggregate: distinct, property: channel, window: 7d}}}}
  - {{name: news, type: number, origin: activity, events: {{aggregate: count, window: 7d, where: {{new: 1}}}}}}
  - {{name: last_new, type: number, origin: activity, events: {{aggregate: recent, property: new}}}}
  - {{name: fashion, type: number, origin: activity, events: {{aggregate: count, window: 24h, where: {{category: fashion}}}}}}
""")
NOW = 1_790_000_000.0
DAY = 86_400.0


@pytest.fixture(scope="module")
def happened():
    """3,000 events of 40 customers in 30 days."""
    chance = np.random.default_rng(5)
    return [
        (
            f"c{chance.integers(40)}",
            Event(
                f"e{n}", str(chance.choice(["viewed", "bought", "other"])), NOW - float(chance.uniform(0, 30 * DAY)),
                {"category": str(chance.choice(["fashion", "home", "garden"])), "amount": float(chance.integers(1, 900)),
                 "new": bool(chance.integers(2)), CHANNEL: str(chance.choice(["web", "app", "email", "store"]))},
            ),
        )
        for n in range(3000)
    ]  # fmt: skip


def test_at_random_moments_offline_is_what_online_would_have_said(happened):
    """1,000 customers and moments: the state of the events until then, read at that moment."""
    chance, live = np.random.default_rng(6), LiveFeatures(CONTRACT)
    customers = [f"c{n}" for n in chance.integers(42, size=1000)]  # two of whom nothing is known
    moments = NOW - chance.uniform(-DAY, 30 * DAY, 1000)
    asked = pa.table({"customer_id": customers, "at": moments})
    found = live_values(CONTRACT, event_table(happened, CONTRACT), asked).to_pylist()
    for row in found:
        state = live.apply({}, [e for c, e in happened if c == row["customer_id"] and e.at <= row["at"]])
        online = live.values(state, row["at"])
        assert [one.name for one in CONTRACT.live if disagreement(online, row, one)] == []


def test_a_sum_beyond_all_numbers_is_missing_on_both_sides():
    """A model would learn from something else than what was served."""
    huge = [("c1", Event(f"e{n}", "bought", NOW, {"amount": 1.7e308, CHANNEL: "web"})) for n in range(2)]
    live = LiveFeatures(CONTRACT)
    [row] = live_values(CONTRACT, event_table(huge, CONTRACT), pa.table({"customer_id": ["c1"], "at": [NOW]})).to_pylist()
    online = live.values(live.apply({}, [event for _, event in huge]), NOW)
    assert [one.name for one in CONTRACT.live if disagreement(online, row, one)] == []
    assert (row["spend_7d"], row["worth"]) == (None, None)


def test_the_comparison_notices_a_difference(happened):
    """One event that only one of the two knows."""
    live = LiveFeatures(CONTRACT)
    asked = pa.table({"customer_id": ["c1"], "at": [NOW]})
    [row] = live_values(CONTRACT, event_table(happened, CONTRACT), asked).to_pylist()
    mine = [e for c, e in happened if c == "c1"]
    online = live.values(live.apply({}, mine[:-1]), NOW)
    assert "anything_30d" in [one.name for one in CONTRACT.live if disagreement(online, row, one)]


def test_nobody_and_nothing_are_no_error():
    """No events: counts are zero, the rest is missing."""
    asked = pa.table({"customer_id": ["c1"], "at": [NOW]})
    [row] = live_values(CONTRACT, event_table([], CONTRACT), asked).to_pylist()
    assert (row["views_30min"], row["warmth"], row["since_buying"], row["last_seen"]) == (0.0, 0.0, None, None)
