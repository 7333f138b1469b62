"""What tests share: a real Redis, emptied before each test that asks for it, and a small shop that was learned from once."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import prometheus_client.values  # noqa: F401  # before any test imports Feast, which makes it keep metrics in shared files
import pytest
import redis

from features.redis_server import resolve_redis
from service.cli import main
from tests.redis_cluster import Cluster, running_cluster
from training.importing import import_table
from training.learn import train
from training.simulate import World, write_world

# A shared machine may be slow at any moment: how long one example takes says nothing about the rule under test.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")


def pytest_configure() -> None:
    """Whoever imports Feast tells the processes that it starts, workers among them, to keep metrics in files that they share."""
    for variable in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
        os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def shared_redis_url() -> Iterator[str]:
    """A server that nobody empties: keep to a database of your own, `?db=1` and up, for a world that lasts a module."""
    folder = tempfile.TemporaryDirectory(prefix="nb-", ignore_cleanup_errors=True)  # Redis may write a last file while it goes
    with folder as home, resolve_redis(None, Path(home)) as url:
        yield url


@pytest.fixture
def redis_url(shared_redis_url: str) -> str:
    """Database 0 of a real server, empty."""
    with redis.Redis.from_url(shared_redis_url) as client:
        client.flushdb()
    return shared_redis_url


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """Three nodes that know each other."""
    with (
        tempfile.TemporaryDirectory(prefix="nb-", ignore_cleanup_errors=True) as folder,
        running_cluster(Path(folder)) as cluster,
    ):
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """A real cluster, empty."""
    shared_cluster.empty()
    return shared_cluster


@pytest.fixture
def cluster_url(cluster: Cluster) -> str:
    """The URL of an empty cluster."""
    return cluster.url


@pytest.fixture(params=["redis_url", "cluster_url"])
def any_redis_url(request: pytest.FixtureRequest) -> str:
    """One server, then a cluster: each is real, and empty."""
    url: str = request.getfixturevalue(request.param)
    return url


WEEK = 7 * 86_400
SHOP_ENDS = time.time() // WEEK * WEEK  # the end of its history: recent enough, and always the same weekday and hour
SHOP_DECISIONS = 8000


@pytest.fixture(scope="session")
def shop() -> World:
    """1,500 simulated customers whose truth is known."""
    return World(1500, seed=4)


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory, shop: World) -> Path:
    """The shop's history imported, its catalog published, one bundle trained, none promoted. Leave it as it is."""
    home = tmp_path_factory.mktemp("trained")
    table, mapping = write_world(home / "world", shop, SHOP_DECISIONS, SHOP_ENDS, seed=4)
    import_table(home, table, mapping)
    assert main(["--home", str(home), "catalog", "publish", str(home / "catalog.yaml")]) == 0
    train(home, "click")
    return home


@pytest.fixture
def own_home(trained_home: Path, tmp_path: Path) -> Path:
    """A copy of the trained home, to change."""
    return Path(shutil.copytree(trained_home, tmp_path / "home"))
