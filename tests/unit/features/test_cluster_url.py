"""How a cluster is named, and what Feast and redis-py make of it."""

from pathlib import Path

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore

from features.cluster_url import node_urls
from features.contract import ContractError
from features.definitions import connection_string, repo_config


def test_every_node_is_named_with_the_same_user():
    """Each URL is one that a single Redis could have."""
    assert node_urls("redis+cluster://one:1,two") == ["redis://one:1", "redis://two"]
    assert node_urls("rediss+cluster://me:p%40s@one:1,[::1]:2") == ["rediss://me:p%40s@one:1", "rediss://me:p%40s@[::1]:2"]


@pytest.mark.parametrize("url", ["redis://host:6379/0", "rediss://me:secret@host", "unix:///path?db=1"])
def test_a_single_redis_names_no_nodes(url):
    """Then it is opened as ever."""
    assert node_urls(url) == []


def test_feast_is_told_of_all_nodes_and_of_no_database(tmp_path: Path):
    """Its client of a cluster refuses one; user and encryption are told as for one server."""
    url = "rediss+cluster://me:007@one:1,two"
    nodes, options = RedisOnlineStore._parse_connection_string(connection_string(url))
    assert nodes == [{"host": "one", "port": "1"}, {"host": "two", "port": "6379"}]
    assert options == {"username": "me", "password": "007", "ssl": True}
    assert repo_config(tmp_path, url).online_store.redis_type == "redis_cluster"
    assert repo_config(tmp_path, "redis://one").online_store.redis_type == "redis"


def test_a_password_that_feast_cannot_take_is_refused():
    """As for one server: a comma would begin another host."""
    with pytest.raises(ContractError, match="without commas"):
        connection_string("redis+cluster://:a%2Cb@one,two")
