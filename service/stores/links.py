"""The link to whatever Redis the settings name: one server, or a cluster."""

from collections.abc import Sequence
from typing import Any, Protocol

from features.cluster_url import node_urls
from service.stores.cluster_link import ClusterLink
from service.stores.redis_link import RedisLink


class Link(Protocol):
    """What stores need of Redis."""

    @property
    def has_slots(self) -> bool:
        """Whether keys lie in slots, so that a script must name keys of one slot only."""

    @property
    def problem(self) -> str | None:
        """Why Redis counts as down, or a part of it; None where it does not."""

    async def ask(self, commands: bytes, count: int, *, raw: bool = False) -> Sequence[Any]:
        """Send so many encoded commands in one go; their replies. Raises DependencyFailed, also where a reply is an error.

        `raw`: errors, and failures of some of several nodes, are left among the replies.
        """

    async def close(self) -> None:
        """Release connections."""


def open_link(url: str, *, timeout_ms: float) -> Link:
    """A link that connects when it is first asked. Raises BadRequest where the URL names no Redis."""
    nodes = node_urls(url)
    return ClusterLink(nodes, timeout_ms=timeout_ms) if nodes else RedisLink(url, timeout_ms=timeout_ms)
