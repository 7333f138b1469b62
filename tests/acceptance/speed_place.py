"""The shop in which speed is measured, made once for all rows, with a Redis of its own for each."""

import contextlib
from collections.abc import Iterator

from loadtests.servers import Place, pin_generator, place
from tests.acceptance.row import Context


@contextlib.contextmanager
def speed_place(context: Context) -> Iterator[Place]:
    """The shop is made on all cores; then Redis and this process leave the first one to whoever is measured."""
    folder = context.scratch / "speed"
    folder.mkdir(exist_ok=True)
    with place(folder) as made, pin_generator():
        yield made
