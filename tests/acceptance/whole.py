"""A home with the example catalog, which uses everything that a catalog can say: a history, a bundle, customers in Redis."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from features.materialize import materialize
from features.redis_server import resolve_redis
from service.cli import main
from service.registry import Registry
from tests.acceptance.row import Context, NotRun
from training.importing import import_table
from training.learn import train
from training.promotion import promote_without_evidence
from training.simulate import World, write_world

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CUSTOMERS = 2000
DECISIONS = 12_000
ENDS = 1_790_000_000.0  # 2026-09-21: a moment of its own, so that the history is the same on every day


class WholeHome(NamedTuple):
    """The home, and the world that its customers come from."""

    folder: Path
    world: World


def whole_world(seed: int, customers: int = CUSTOMERS) -> World:
    """Simulated customers, and the example catalog with the features that it reads."""
    return World(customers, seed, EXAMPLES / "catalog.yaml", EXAMPLES / "features.yaml")


def whole_home(context: Context) -> WholeHome:
    """The home, made the first time a row asks for it: history imported, catalog published, a bundle promoted."""
    folder, world = context.scratch / "whole", whole_world(context.seed)
    if not (folder / "registry" / "current").exists() or Registry(folder / "registry").current().champion is None:
        context.tell("preparing a home with the example catalog ...")
        table, mapping = write_world(folder / "world", world, DECISIONS, ENDS, context.seed)
        report = import_table(folder, table, mapping)
        command(folder, "catalog", "publish", str(report.catalog))
        promote_without_evidence(folder, train(folder, "click"), "for measuring")
    return WholeHome(folder, world)


def without_log(context: Context, home: WholeHome, name: str) -> WholeHome:
    """A copy of the home in which nothing was decided yet."""
    derived = shutil.ignore_patterns("redis", "log")
    return WholeHome(Path(shutil.copytree(home.folder, context.scratch / name, ignore=derived)), home.world)


@contextlib.contextmanager
def with_customers(home: WholeHome) -> Iterator[str]:
    """The home's own Redis, with the features of its customers, for as long as the block lasts. Its address."""
    with resolve_redis(None, home.folder) as url:
        materialize(home.folder, url)
        yield url


def command(home: Path, *arguments: str) -> None:
    """A command of the project, in this process. Raises NotRun where it fails."""
    code = main(["--home", str(home), *arguments])
    if code:
        raise NotRun(f"`nextbest {' '.join(arguments)}` ended with exit code {code}")
