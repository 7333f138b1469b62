"""The shop in which speed is measured, made once for all rows, with a Redis of its own for each."""

import contextlib
from collections.abc import Iterator

from loadtests.servers import Place, pin_generator, place
from tests.acceptance.row import Context


@contextlib.contextmanager
def speed_place(context: Context) -> Iterator[Place]:
    """Redis and this process leave the first core to whoever is measured."""
    folder = context.scratch / "speed"
    folder.mkdir(exist_ok=True)
    with pin_generator(), place(folder) as made:
        yield made
