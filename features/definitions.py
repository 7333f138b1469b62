"""Feast's entity, sources, views and services, derived from the contract: the only module that knows feast's objects."""

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from features.cluster_url import node_urls
from features.contract import Contract, ContractError, Feature
from features.feast_sdk import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    Float64,
    RepoConfig,
    String,
    ValueType,
)
from features.homes import features_folder
from features.layout import JOIN_KEY, PROJECT
from features.offline import EVENT_TIMESTAMP, offline_path, used_views, view_features

MODELS: tuple[str, ...] = ("next_best_action",)  # one feature service each
LONGEST = timedelta(days=36_500)  # what is added to a moment has to be one
NO_LIMIT = timedelta(0)  # age is ours to check: Feast's `ttl` does not filter online reads, and one per view is too coarse


def customer_entity() -> Entity:
    """Whom features are about."""
    return Entity(name="customer", join_keys=[JOIN_KEY], value_type=ValueType.STRING, description="Whom we decide for")


def feature_views(contract: Contract, home: Path) -> list[FeatureView]:
    """One view for each kind of customer data that has features."""
    entity = customer_entity()
    return [_view(contract, home, view, entity) for view in used_views(contract)]


def feature_services(views: Sequence[FeatureView]) -> list[FeatureService]:
    """What each model reads."""
    return [FeatureService(name=model, features=list(views)) for model in MODELS]


def feature_store(home: Path, redis_url: str) -> FeatureStore:
    """Feast on this home and this Redis. Applies nothing. Raises ContractError where Feast cannot use such a URL."""
    return FeatureStore(config=repo_config(home, redis_url))


def repo_config(home: Path, redis_url: str) -> RepoConfig:
    """What `feature_store.yaml` says, for this home.

    `skip_dedup`: without it Feast writes nothing where a row's moment has not changed, so a corrected value or an added
    feature would never arrive.
    """
    return RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"path": str(features_folder(home).resolve() / "registry.db")},
        online_store={
            "type": "redis",
            "redis_type": "redis_cluster" if node_urls(redis_url) else "redis",
            "connection_string": connection_string(redis_url),
            "skip_dedup": True,
        },
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
    )


def history_store(folder: Path) -> FeatureStore:
    """Feast for reading offline tables only: a registry of its own in a folder, and no online store."""
    registry = {"path": str(folder.resolve() / "registry.db")}
    return FeatureStore(
        config=RepoConfig(
            project=PROJECT, provider="local", registry=registry, offline_store={"type": "duckdb"}, online_store=None,
            entity_key_serialization_version=3,
        )
    )  # fmt: skip


def history_view(home: Path, name: str, features: Sequence[Feature]) -> FeatureView:
    """Features of one view and one age, under a name of its own: here Feast's `ttl` does what the reader of Redis does."""
    [view], [age] = {f.view for f in features}, {f.max_age for f in features}
    ttl = NO_LIMIT if age is None else min(timedelta(seconds=age), LONGEST)
    return _feast_view(home, (name, view), features, customer_entity(), ttl)


def connection_string(redis_url: str) -> str:
    """A Redis URL as Feast wants it: `host:port,key=value,...`, each value as JSON so that `007` stays a password.

    Feast hands every key to redis-py, which prefers `unix_socket_path` to the host that Feast insists on. Of a cluster every
    node is named, and no database.
    """
    nodes = node_urls(redis_url)
    if nodes:
        parts = [connection_string(node).split(",") for node in nodes]
        return ",".join([*(host for host, *_ in parts), *(option for option in parts[0][1:] if option != "db=0")])
    url = urlsplit(redis_url)
    if url.scheme not in ("redis", "rediss", "unix"):
        raise ContractError(f"Expected a URL with `redis`, `rediss` or `unix`, got `{url.scheme}` - at `redis_url`")
    query = dict(parse_qsl(url.query))
    options: dict[str, object] = {"username": _plain(url.username), "password": _plain(url.password)}
    if url.scheme == "unix":
        options |= {"unix_socket_path": unquote(url.path), "db": _database(query.get("db", ""))}
    else:
        options |= {"db": _database(query.get("db", url.path.strip("/"))), "ssl": True if url.scheme == "rediss" else None}
    given = {key: value for key, value in options.items() if value is not None}
    if any("," in str(value) for value in given.values()):
        raise ContractError("Expected a Redis URL without commas, which Feast takes as separators - at `redis_url`")
    host = f"{url.hostname or 'localhost'}:{url.port or 6379}"
    return ",".join([host, *(f"{key}={json.dumps(value)}" for key, value in given.items())])


def _plain(text: str | None) -> str | None:
    return unquote(text) if text else None


def _database(text: str) -> int:
    try:
        return int(text or 0)
    except ValueError as error:
        raise ContractError(f"Expected a database number, got `{text}` - at `redis_url`") from error


def _view(contract: Contract, home: Path, view: str, entity: Entity) -> FeatureView:
    return _feast_view(home, (view, view), view_features(contract, view), entity, NO_LIMIT)


def _feast_view(home: Path, names: tuple[str, str], features: Sequence[Feature], entity: Entity, ttl: timedelta) -> FeatureView:
    """`names`: of the view, and of the offline table that it reads."""
    name, table = names
    path = str(offline_path(home, table).resolve())
    source = FileSource(name=f"{name}_history", path=path, timestamp_field=EVENT_TIMESTAMP)
    fields = [Field(name=JOIN_KEY, dtype=String)]  # said, so that Feast does not open the file to find out
    fields += [Field(name=f.name, dtype=Float64 if f.type == "number" else String) for f in features]
    return FeatureView(name=name, entities=[entity], schema=fields, source=source, ttl=ttl, online=True)
