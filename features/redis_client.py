"""redis-py's client for whatever Redis the settings name. The service has a faster one."""

from urllib.parse import unquote, urlsplit

import redis
from redis.cluster import ClusterNode

from features.cluster_url import node_urls


def redis_client(redis_url: str) -> redis.Redis | redis.RedisCluster:
    """A client of one server, or of a cluster. Raises redis.RedisError and RedisClusterException."""
    nodes = [urlsplit(node) for node in node_urls(redis_url)]
    if not nodes:
        return redis.Redis.from_url(redis_url)
    return redis.RedisCluster(
        startup_nodes=[ClusterNode(node.hostname or "localhost", node.port or 6379) for node in nodes],  # type: ignore[no-untyped-call]  # redis-py
        username=unquote(nodes[0].username or "") or None,
        password=unquote(nodes[0].password or "") or None,
        ssl=nodes[0].scheme == "rediss",
    )
