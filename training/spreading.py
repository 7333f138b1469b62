"""Work for many processes: of this machine, or of a Dask cluster. What is done where is the same."""

import argparse
import importlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

from service.errors import NotReady

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(NamedTuple):
    """Who works. `scheduler`: the address of a Dask cluster's; None for `processes` of this machine, one per core unless told.

    The workers of a cluster see home, table and result under the same paths as this process: on a shared disk.
    """

    processes: int | None = None
    scheduler: str | None = None

    def how_many(self) -> int:
        """Processes, as far as they are ours to say."""
        return self.processes or os.cpu_count() or 1


ALONE = Workers(1)

_working = threading.Lock()  # this process, on something that it was given


def add_workers(parser: argparse.ArgumentParser) -> None:
    """The options that say who works."""
    parser.add_argument("--processes", type=positive, help="default: one per core")
    parser.add_argument("--engine", choices=("local", "dask"), default="local", help="who works (default: this machine)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, like tcp://10.0.0.1:8786")


def positive(text: str) -> int:
    """An option that counts. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"Expected a whole number, 1 or more, got `{text}`")
    return int(text)


def workers_of(options: argparse.Namespace) -> Workers:
    """Who was asked to work. Raises NotReady where an engine lacks its scheduler, or the other way round."""
    if (options.engine == "dask") != (options.scheduler is not None):
        raise NotReady("Expected `--engine dask --scheduler ADDRESS`, got one without the other")
    return Workers(options.processes, options.scheduler)


def spread(work: Callable[[Item], Result], items: Sequence[Item], workers: Workers) -> Iterator[Result]:
    """What comes of each item, in the order of completion. Everything has to be importable there, and to be pickled.

    The first error ends it, and is raised here.
    """
    if workers.scheduler is not None:
        yield from _cluster().spread(work, items, workers.scheduler)
    elif workers.how_many() == 1 or len(items) <= 1:
        yield from map(work, items)
    else:
        pool = new_pool(min(workers.how_many(), len(items)))
        try:
            for done in as_completed([pool.submit(to_its_end, work, item) for item in items]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)  # what has begun ends, what has not is not begun


def new_pool(processes: int, prepare: Callable[..., None] | None = None, told: tuple[Any, ...] = ()) -> ProcessPoolExecutor:
    """Processes that go when this one is gone, however it went. `prepare` is called first in each, with what it is `told`.

    By itself a process waits for ever for more to do of one that was killed. What was begun with `to_its_end` ends first.
    """
    return ProcessPoolExecutor(processes, get_context("spawn"), _prepared, (prepare, told))


def _prepared(prepare: Callable[..., None] | None, told: tuple[Any, ...]) -> None:
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    if prepare is not None:
        prepare(*told)


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    with _working:
        os._exit(1)


def to_its_end(work: Callable[..., Result], *given: Any) -> Result:  # noqa: ANN401  # handed on as they are
    """What comes of it; in a process of `new_pool`, which does not end meanwhile."""
    with _working:
        return work(*given)


def _cluster() -> Any:  # noqa: ANN401  # a module; loading it takes a second, and few ask for a cluster
    return importlib.import_module("training.dask_cluster")
