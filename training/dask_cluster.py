"""The same work on a Dask cluster."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from distributed import Client, as_completed

from service.errors import NotReady

Item = TypeVar("Item")
Result = TypeVar("Result")
CONNECT_S = 10.0


def spread(work: Callable[[Item], Result], items: Sequence[Item], scheduler: str) -> Iterator[Result]:
    """What comes of each item, in the order of completion. Raises NotReady where no scheduler answers.

    Items are not pure: what they do is in Redis, in the log and on disk, and is never taken from a cache.
    """
    with connected(scheduler) as client:
        pending = client.map(work, items, pure=False)
        try:
            for done in as_completed(pending, loop=client.loop):
                yield done.result()
        finally:
            client.cancel(pending)


@contextlib.contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """A client of a cluster that has workers. Raises NotReady where none answers, or none works."""
    try:
        client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except OSError as error:
        raise NotReady(f"Expected a Dask scheduler, found none: {error} - at `{scheduler}`") from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise NotReady(f"Expected workers, found none - of the scheduler at `{scheduler}`")
        yield client
