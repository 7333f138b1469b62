"""How a Redis Cluster is named: `redis+cluster://[user:password@]host:port[,host:port...]`, with TLS `rediss+cluster://`."""

from urllib.parse import urlsplit

ENDING = "+cluster"


def node_urls(redis_url: str) -> list[str]:
    """A URL for each node that the URL of a cluster names, all with the same user; none where it names a single Redis."""
    parts = urlsplit(redis_url)
    if not parts.scheme.endswith(ENDING):
        return []
    user, at, hosts = parts.netloc.rpartition("@")
    scheme = parts.scheme.removesuffix(ENDING)
    return [f"{scheme}://{user}{at}{host}{parts.path}" for host in hosts.split(",")]
