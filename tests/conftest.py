"""A real Redis for the tests: one private server for the session, emptied before each test that asks for it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import prometheus_client.values  # noqa: F401  # before any test imports Feast, which makes it keep metrics in shared files
import pytest
import redis

from features.redis_server import resolve_redis

# A shared machine may be slow at any moment: how long one example takes says nothing about the rule under test.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")


@pytest.fixture(scope="session")
def shared_redis_url() -> Iterator[str]:
    """A server that nobody empties: keep to a database of your own, `?db=1` and up, for a world that lasts a module."""
    with tempfile.TemporaryDirectory(prefix="nb-") as home, resolve_redis(None, Path(home)) as url:
        yield url


@pytest.fixture
def redis_url(shared_redis_url: str) -> str:
    """Database 0 of a real server, empty."""
    with redis.Redis.from_url(shared_redis_url) as client:
        client.flushdb()
    return shared_redis_url
