"""Several processes at one address."""

import copy
import socket
import sys

import pytest

from service.listening import dealt_out

CONNECTIONS = 64
FEWEST = 12  # of 32 +- 4: five times that


@pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel deals out")
def test_connections_are_dealt_out():
    """Two that share an address get about as many each, and whoever hands it to them none."""
    with socket.create_server(("127.0.0.1", 0)) as alone, dealt_out(alone) as kept:
        two = [copy.copy(kept) for _ in range(2)]  # by the same means as processes are handed it
        for one in two:
            one.listen(CONNECTIONS)
        callers = [socket.create_connection(kept.getsockname(), timeout=1.0) for _ in range(CONNECTIONS)]
        found = [_accepted(one) for one in two]
        for one in (*two, *callers):
            one.close()
    assert sum(found) == CONNECTIONS
    assert min(found) >= FEWEST


def _accepted(listening: socket.socket) -> int:
    listening.setblocking(False)
    count = 0
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1
