"""A world whose truth is known: each customer buys at a rate of its own until it complains and leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from features.contract import parse_contract
from features.homes import features_folder, write_home_contract
from features.offline import write_view
from service.decision.records import EventRecord
from training.event_history import write_events

DAY = 86_400.0
END = 1_790_000_000.0
DAYS = 240
FEATURES = """
transactions: {type: purchased, amount: amount, horizon: 30d}
features:
  - {name: orders_30d, type: number, origin: value, events: {aggregate: count, type: purchased, window: 30d}}
  - {name: since_buying, type: number, origin: value, events: {aggregate: since_last, type: purchased}}
  - {name: since_complaint, type: number, origin: attitude, events: {aggregate: since_last, type: complaint_opened}}
  - {name: tier, type: category, origin: profile, max_age: 100d, categories: [low, high]}
  - {name: often, type: number, origin: value, max_age: 7d, transactions: frequency}
  - {name: order_value, type: number, origin: value, max_age: 7d, transactions: monetary_value}
  - {name: churn_risk, type: number, origin: activity, max_age: 7d, prediction: churn_risk}
  - {name: expected_value, type: number, origin: value, max_age: 7d, prediction: expected_value}
"""
PREDICTIONS = """
predictions:
  churn_risk: {label: {none_of: purchased, within: 30d}, among: {any_of: purchased, within: 90d}}
  expected_value: {label: {sum: purchased.amount, within: 30d}}
"""


class Bought(NamedTuple):
    customer: str
    at: float
    amount: float


class SmallWorld(NamedTuple):
    home: Path
    bought: list[Bought]
    rate: dict[str, float]  # purchases a day while a customer stays
    left: dict[str, float]  # when it leaves


def simulate(customers: int, seed: int) -> SmallWorld:
    chance = np.random.default_rng(seed)
    rate, left, bought = {}, {}, []
    for number in range(customers):
        name, pays = f"c{number}", chance.gamma(4.0, 10.0)
        rate[name] = float(chance.gamma(1.2, 0.1))
        left[name] = END - float(chance.uniform(-600, DAYS)) * DAY
        stays = min(left[name], END) - (END - DAYS * DAY)
        count = chance.poisson(rate[name] * stays / DAY) if stays > 0 else 0
        moments = END - DAYS * DAY + chance.uniform(0, max(stays, 1.0), count)
        bought += [Bought(name, float(at), float(pays * chance.gamma(5, 0.2))) for at in moments]
    return SmallWorld(Path(), bought, rate, left)


def settle(home: Path, bought: list[Bought], predictions: str = PREDICTIONS, left: dict[str, float] | None = None) -> None:
    """A home in which all of this happened."""
    write_home_contract(home, parse_contract(FEATURES))
    (features_folder(home) / "predictions.yaml").write_text(predictions)
    events = [EventRecord(f"{n}", b.customer, "purchased", "web", b.at, b.at, {"amount": b.amount}) for n, b in enumerate(bought)]
    gone = {name: at for name, at in (left or {}).items() if at < END}
    events += [EventRecord(f"x{name}", name, "complaint_opened", "web", at, at) for name, at in gone.items()]
    write_events(home, "old", events)


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """1,200 customers in eight months, half of them with a tier that says nothing. Leave it as it is."""
    world = simulate(1200, 6)._replace(home=tmp_path_factory.mktemp("world"))
    settle(world.home, world.bought, left=world.left)
    names = sorted(world.rate)[::2]
    tiers = ["low", "high"] * (len(names) // 2)
    moment = pa.array([round((END - 120 * DAY) * 1e6)] * len(names), pa.timestamp("us", tz="UTC"))
    write_view(world.home, "profile", pa.table({"customer_id": names, "event_timestamp": moment, "tier": tiers}))
    return world


@pytest.fixture
def settled(tmp_path: Path) -> Callable[..., Path]:
    """Make a home of a history."""

    def make(
        bought: list[Bought], predictions: str = PREDICTIONS, name: str = "home", left: dict[str, float] | None = None
    ) -> Path:
        settle(tmp_path / name, bought, predictions, left)
        return tmp_path / name

    return make
