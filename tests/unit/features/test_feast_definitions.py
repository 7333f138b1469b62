"""The contract as Feast objects, and Redis URLs as Feast wants them."""

from pathlib import Path

import pytest
import redis
import yaml
from feast.infra.online_stores.redis import RedisOnlineStore

import features
from features.contract import ContractError
from features.definitions import connection_string, feature_services, feature_views, repo_config
from features.homes import home_contract


def test_each_kind_of_customer_data_is_a_view_and_the_model_reads_all_of_them(tmp_path: Path):
    """Names, types and the join key follow the contract; context and request time are no business of Feast's."""
    contract = home_contract(tmp_path)
    views = feature_views(contract, tmp_path)
    assert [view.name for view in views] == ["profile", "activity", "value", "attitude"]
    declared = {f.name: "Float64" if f.type == "number" else "String" for f in contract.customer}
    assert {field.name: str(field.dtype) for view in views for field in view.features} == declared
    assert {tuple(view.join_keys) for view in views} == {("customer_id",)}
    assert [(service.name, len(service.feature_view_projections)) for service in feature_services(views)] == [
        ("next_best_action", 4)
    ]


@pytest.mark.parametrize(
    "url",
    [
        "redis://example.org",
        "redis://example.org:6380/3",
        "redis://example.org?db=4",
        "redis://:007@example.org/1",
        "redis://me:p%40ss%3Dword@example.org",
        "unix:///tmp/a%20b/redis.sock?db=2",
    ],
)
def test_feast_connects_where_redis_py_would_connect(url):
    """The same address, database and password, also where a password looks like a number."""
    _, ours = RedisOnlineStore._parse_connection_string(connection_string(url))
    theirs = redis.Redis.from_url(url).connection_pool.connection_kwargs
    assert ours.get("unix_socket_path") == theirs.get("path")
    assert ours["db"] == theirs.get("db", 0)
    assert (ours.get("username"), ours.get("password")) == (theirs.get("username"), theirs.get("password"))
    if "host" in theirs:
        assert connection_string(url).split(",")[0] == f"{theirs['host']}:{theirs.get('port', 6379)}"


@pytest.mark.parametrize(
    ("url", "problem"), [("http://example.org", "got `http`"), ("redis://:a,b@example.org", "without commas")]
)
def test_a_url_that_feast_cannot_use_is_refused(url, problem):
    """Feast would take the rest of a password for a host."""
    with pytest.raises(ContractError, match=problem):
        connection_string(url)


def test_the_file_for_feasts_command_line_says_what_the_code_says(tmp_path: Path):
    """Two descriptions of one repository must not drift apart."""
    written = yaml.safe_load((Path(features.__file__).parent / "feature_store.yaml").read_text())
    built = repo_config(tmp_path, "redis://localhost:6379/0")
    assert written["project"] == built.project
    assert written["entity_key_serialization_version"] == built.entity_key_serialization_version
    assert written["online_store"] == {
        "type": built.online_store.type,
        "connection_string": built.online_store.connection_string,
        "skip_dedup": built.online_store.skip_dedup,
    }
    assert written["offline_store"] == {"type": built.offline_store.type}
