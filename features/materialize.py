"""Offline tables to Redis through Feast, and proof that the two agree."""

import contextlib
import io
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import track

from features.contract import Contract
from features.definitions import customer_entity, feature_services, feature_store, feature_views
from features.feast_sdk import FeatureStore
from features.homes import features_folder, home_contract
from features.layout import JOIN_KEY, CustomerLayout
from features.offline import EVENT_TIMESTAMP, offline_path, read_view, used_views, view_features
from features.redis_client import redis_client

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
CHECKED_AT_ONCE = 500  # customers per pipeline
AS_IF_FRESH = 0.0  # no value is too old at this moment: age is the reader's matter, not the copy's

Stored = float | str | None


class Difference(msgspec.Struct, frozen=True):
    """One value that Redis and the offline tables disagree about; None is missing."""

    customer_id: str
    feature: str
    online: Stored
    offline: Stored


class CheckReport(msgspec.Struct, frozen=True):
    """What a comparison found. `stale` counts values that agree and are too old to be used."""

    customers: int
    values: int
    stale: int
    differences: tuple[Difference, ...]


def apply(home: Path, redis_url: str) -> dict[str, int]:
    """Make Feast's registry say what the contract says; the number of features by view."""
    contract = home_contract(home)
    _apply(feature_store(home, redis_url), contract, home)
    return {view: len(view_features(contract, view)) for view in used_views(contract)}


def materialize(home: Path, redis_url: str, end: datetime | None = None, only: str | None = None) -> dict[str, int]:
    """Copy each customer's latest row at `end` (now, where None) to Redis, view by view; customers copied by view.

    `only`: a view to be copied, where not all are. Applies the contract first. Feast's own engine takes 3 to 4 s for 32,000
    customers with 8 features.
    """
    contract, store, until = home_contract(home), feature_store(home, redis_url), end or datetime.now(UTC)
    _apply(store, contract, home)
    counts = {}
    told = Console(stderr=True)
    views = [view for view in _written_views(contract, home) if only in (None, view)]
    for view in track(views, "Features to Redis", console=told, transient=True, disable=not told.is_terminal):
        with quiet():
            store.materialize(start_date=BEGINNING, end_date=until, feature_views=[view])
        table = read_view(home, view)
        counts[view] = pc.count_distinct(table.filter(pc.field(EVENT_TIMESTAMP) <= until)[JOIN_KEY]).as_py()
    return counts


def check(home: Path, redis_url: str, sample: int, at: datetime | None = None) -> CheckReport:
    """Compare what `CustomerLayout` reads from Redis with what Feast's point-in-time join says of `at` (now, where None).

    Takes `sample` customers at random, the same ones each time; every value is compared exactly. What events feed is not among
    them: it is as of the last event, and compared with the events themselves.
    """
    contract, moment = home_contract(home).batch, at or datetime.now(UTC)
    views = _written_views(contract, home)
    customers = _sample(home, views, sample)
    if not customers:
        return CheckReport(0, 0, 0, ())
    offline = _offline_values(feature_store(home, redis_url), contract, views, customers, moment)
    replies = _replies(redis_url, CustomerLayout(contract), customers)
    return _compare(contract, customers, replies, offline, moment)


def _apply(store: FeatureStore, contract: Contract, home: Path) -> None:
    features_folder(home).mkdir(parents=True, exist_ok=True)
    views = feature_views(contract, home)
    names = {view.name for view in views}
    with quiet():
        gone = [view for view in store.list_feature_views() if view.name not in names]
        wanted = [customer_entity(), *views, *feature_services(views)]
        store.apply(wanted, objects_to_delete=gone, partial=False)


def _written_views(contract: Contract, home: Path) -> list[str]:
    return [view for view in used_views(contract) if offline_path(home, view).exists()]


def _sample(home: Path, views: Sequence[str], count: int) -> list[str]:
    ids = pa.chunked_array([chunk for view in views for chunk in read_view(home, view)[JOIN_KEY].chunks], pa.string())
    everybody = sorted(pc.unique(ids).to_pylist())
    return random.Random(0).sample(everybody, min(count, len(everybody)))  # noqa: S311  # a repeatable sample, no secret


def _offline_values(
    store: FeatureStore, contract: Contract, views: Sequence[str], customers: Sequence[str], at: datetime
) -> dict[str, dict[str, Stored]]:
    """Feast's point-in-time join, by customer and feature."""
    asked = pd.DataFrame({JOIN_KEY: customers, EVENT_TIMESTAMP: pd.to_datetime([at] * len(customers), utc=True)})
    names = [f"{view}:{f.name}" for view in views for f in view_features(contract, view)]
    with quiet():
        rows = store.get_historical_features(entity_df=asked, features=names).to_arrow().to_pylist()
    return {row[JOIN_KEY]: row for row in rows}


def _replies(redis_url: str, layout: CustomerLayout, customers: Sequence[str]) -> Iterator[Sequence[bytes | None]]:
    with redis_client(redis_url) as client:
        for start in range(0, len(customers), CHECKED_AT_ONCE):
            pipeline = client.pipeline(transaction=False)
            for customer in customers[start : start + CHECKED_AT_ONCE]:
                pipeline.hmget(layout.key(customer), layout.fields)
            yield from pipeline.execute()


def _compare(
    contract: Contract,
    customers: Sequence[str],
    replies: Iterator[Sequence[bytes | None]],
    offline: Mapping[str, Mapping[str, Stored]],
    at: datetime,
) -> CheckReport:
    layout, names = CustomerLayout(contract), [f.name for f in contract.customer]
    differences, stale = [], 0
    for customer, reply in zip(customers, replies, strict=True):
        online = layout.decode(reply, AS_IF_FRESH).values
        stale += len(layout.decode(reply, at.timestamp()).stale)
        expected = offline.get(customer, {})
        differences += [
            Difference(customer, name, online.get(name), _plain(expected.get(name)))
            for name in names
            if online.get(name) != _plain(expected.get(name))
        ]
    return CheckReport(len(customers), len(customers) * len(names), stale, tuple(differences))


def _plain(value: Stored) -> Stored:
    """NaN is how a data frame says missing."""
    return None if value != value else value  # noqa: PLR0124  # NaN is the number that differs from itself


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Feast prints its progress in colours, and its libraries warn about each other."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
