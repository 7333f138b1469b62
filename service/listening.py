"""Where several processes answer at one address, the kernel deals connections out to them.

With one queue for all, whoever wakes first takes what is there: in one of three trials one of two processes got all of 64
connections opened at once, and two cores answered little more than one (4,569/s beside 4,041). With a queue each, 32 +- 4 are a
process's.
"""

import contextlib
import socket
import sys
from typing import Any


class DealtOut(socket.socket):
    """Keeps an address, and listens at none. Each process that it is handed to gets a socket, and a queue, of its own there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _bound, (int(self.family), self.getsockname())


def dealt_out(listening: socket.socket) -> socket.socket:
    """A socket for several processes at the address of this one, which ends; itself where the kernel does not deal out.

    `listening`: bound alone, so that whoever else is there has been told apart. Raises OSError.
    """
    if sys.platform != "linux":  # macOS lets several be bound, and gives all connections to the last one
        return listening
    with contextlib.closing(listening):
        family, address = int(listening.family), listening.getsockname()
    return _bound(family, address)


def _bound(family: int, address: tuple[Any, ...]) -> DealtOut:
    made = DealtOut(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(address)
    return made
