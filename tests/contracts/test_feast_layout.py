"""`CustomerLayout` against the Feast SDK: what one writes, the other reads, value for value."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
import redis

from features.contract import Contract, parse_contract
from features.definitions import feature_store
from features.feast_sdk import FeatureStore
from features.homes import write_home_contract
from features.layout import CustomerLayout
from features.materialize import materialize
from features.offline import used_views, view_features, write_view

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
CUSTOMERS = [f"customer-{i}" for i in range(490)] + ["", "ü-ß-客", "a b:c", "x" * 300] + [f"unknown-{i}" for i in range(6)]
DOCUMENT = """
features:
  - {name: age, type: number, origin: profile, max_age: 400d}
  - {name: region, type: category, origin: profile, max_age: 400d, categories: [north, south]}
  - {name: visits, type: number, origin: activity, max_age: 10d}
  - {name: opens, type: number, origin: activity, max_age: 40d}
  - {name: last_channel, type: category, origin: activity, max_age: 20d, categories: [web, app]}
  - {name: spend, type: number, origin: value, max_age: 400d}
  - {name: hour, type: number, origin: request_time}
"""


class World(NamedTuple):
    contract: Contract
    store: FeatureStore
    client: redis.Redis


@pytest.fixture(scope="module")
def world(shared_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Customers with missing values, without some views, and with moments from today to 60 days ago."""
    home: Path = tmp_path_factory.mktemp("home")
    url, contract = f"{shared_redis_url}?db=1", parse_contract(DOCUMENT)
    write_home_contract(home, contract)
    chance = random.Random(7)
    for view in used_views(contract):
        known = [c for c in CUSTOMERS if not c.startswith("unknown") and chance.random() < 0.8]
        columns = {f.name: [_value(f.categories, chance) for _ in known] for f in view_features(contract, view)}
        moments = [NOW - timedelta(seconds=chance.uniform(0, 60 * 86_400)) for _ in known]
        table = {"customer_id": known, "event_timestamp": pa.array(moments, pa.timestamp("us", tz="UTC")), **columns}
        write_view(home, view, pa.table(table))
    materialize(home, url, end=NOW)
    with redis.Redis.from_url(url) as client:
        yield World(contract, feature_store(home, url), client)


def _value(categories: tuple[str, ...], chance: random.Random) -> float | str | None:
    if chance.random() < 0.2:
        return None
    return chance.choice([*categories, "", "ünseen"]) if categories else chance.choice([0.0, -1.5, 1e300, chance.random()])


def _online(world: World, customers: list[str], **options: bool) -> dict[str, list[object]]:
    """What the SDK says of every feature, by column."""
    service = world.store.get_feature_service("next_best_action")
    rows = [{"customer_id": customer} for customer in customers]
    return world.store.get_online_features(features=service, entity_rows=rows).to_dict(**options)


def _ours(world: World, customer: str, now: float) -> tuple[dict[str, float | str], tuple[str, ...]]:
    layout = CustomerLayout(world.contract)
    return layout.decode(world.client.hmget(layout.key(customer), layout.fields), now)


def test_500_customers_read_the_same_through_the_layout_as_through_the_sdk(world: World):
    """Fresh values are equal, missing ones are left out, and a value past its age by Feast's own timestamp is named stale."""
    theirs = _online(world, CUSTOMERS, include_event_timestamps=True)
    kinds = {"fresh": 0, "missing": 0, "stale": 0}
    for row, customer in enumerate(CUSTOMERS):
        values, stale = _ours(world, customer, NOW.timestamp())
        for feature in world.contract.customer:
            value, moment = theirs[feature.name][row], theirs[f"{feature.name}__ts"][row]
            # Feast reports whole seconds; no moment of this world lies within a second of an age limit
            past = value is not None and NOW.timestamp() - moment > feature.max_age
            expected = "stale" if past else "missing" if value is None else "fresh"
            kinds[expected] += 1
            assert values.get(feature.name) == (value if expected == "fresh" else None), (customer, feature.name)
            assert (feature.name in stale) == past, (customer, feature.name)
    assert len(CUSTOMERS) == 500
    assert min(kinds.values()) > 100, f"the world exercises too little: {kinds}"


def test_a_value_is_fresh_at_its_maximum_age_and_stale_just_after(world: World):
    """The age limit itself still counts; a tenth of a second more does not."""
    layout = CustomerLayout(world.contract)
    world.client.hset(layout.key("edge"), mapping=layout.encode("activity", {"visits": 3.0}, 1_000_000))
    limit = 1 + 10 * 86_400
    assert _ours(world, "edge", limit) == ({"visits": 3.0}, ())
    assert _ours(world, "edge", limit + 0.1) == ({}, ("visits",))


def test_the_sdk_reads_what_the_layout_writes(world: World):
    """A later streaming write is as good as Feast's own: numbers, text, missing values and the moment."""
    layout = CustomerLayout(world.contract)
    at = 1_790_000_000_250_000
    written = {"visits": -0.1, "opens": None, "last_channel": "äpp"}
    world.client.hset(layout.key("streamed"), mapping=layout.encode("activity", written, at))
    theirs = _online(world, ["streamed"], include_event_timestamps=True)
    assert {name: theirs[name][0] for name in written} == written
    assert theirs["visits__ts"] == [at // 1_000_000]
    assert theirs["age"] == [None]


def test_an_unknown_customer_has_no_values_and_nothing_stale(world: World):
    """Nothing known is an answer, not an error."""
    assert _ours(world, "nobody", NOW.timestamp()) == ({}, ())
