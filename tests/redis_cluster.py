"""A real Redis Cluster of three nodes on the loopback, without replicas."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from features.redis_server import find_server
from service.stores.slots import SLOTS

NODES = 3
READY_WITHIN_S = 30.0
POLL_S = 0.02
NODE_TIMEOUT_MS = 60_000  # a node that is stopped for a moment is not taken for dead by the others


class Cluster:
    """Its nodes by number: start and stop them, and move slots between them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports = _free_ports(NODES)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._moved: dict[int, int] = {}

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def start(self) -> None:
        """All nodes, a third of the slots each; returns when they know each other."""
        for number in range(NODES):
            self.start_node(number)
        for number in range(NODES):
            slots = range(SLOTS * number // NODES, SLOTS * (number + 1) // NODES)
            with self.node(number) as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *slots)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number in range(NODES):  # only now: whoever was met cannot be given an epoch any more
            with self.node(number) as client:
                for port in self.ports:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        self.wait_until_ok()

    def start_node(self, number: int) -> None:
        """One node, with what it knew of the cluster."""
        folder = self._folder / str(number)
        folder.mkdir(exist_ok=True)
        options = {
            "port": self.ports[number],
            "bind": "127.0.0.1",
            "cluster-enabled": "yes",
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "save": "",
            "dir": folder,
            "logfile": folder / "redis.log",
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self._processes[number] = subprocess.Popen([str(find_server()), *words])
        _wait(lambda: self._answers(number), f"node {number} to answer")

    def _answers(self, number: int) -> bool:
        with contextlib.suppress(redis.ConnectionError), self.node(number) as client:
            return bool(client.ping())
        return False

    def node(self, number: int) -> redis.Redis:
        """A client of one node."""
        return redis.Redis(port=self.ports[number])

    def process(self, number: int) -> subprocess.Popen[bytes]:
        """The process of one node."""
        return self._processes[number]

    def wait_until_ok(self) -> None:
        """Every node says that every slot is served, and all say by whom alike."""

        def is_ok(number: int) -> bool:
            with self.node(number) as client:
                info = client.execute_command("CLUSTER", "INFO")
            return b"cluster_state:ok" in info and b"cluster_known_nodes:%d" % NODES in info

        def slots(number: int) -> list[tuple[int, int, int]]:
            with self.node(number) as client:
                found = client.execute_command("CLUSTER", "SLOTS")
            return sorted((first, last, master[1]) for first, last, master, *_ in found)

        def are_one() -> bool:
            return all(is_ok(number) and slots(number) == slots(0) for number in range(NODES))

        _wait(are_one, "the cluster to be whole")

    def owner(self, slot: int) -> int:
        """The number of the node that has a slot."""
        first = next(number for number in range(NODES) if slot < SLOTS * (number + 1) // NODES)
        return self._moved.get(slot, first)

    def begin_to_move(self, slot: int, to: int) -> None:
        """From now on, what is not there any more or not yet is asked for, and written, at the new node."""
        source = self.owner(slot)
        with self.node(source) as here, self.node(to) as there:
            there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", here.execute_command("CLUSTER", "MYID"))
            here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", there.execute_command("CLUSTER", "MYID"))

    def end_moving(self, slot: int, to: int) -> None:
        """Its keys are at the new node, and everybody knows."""
        with self.node(self.owner(slot)) as here:
            while keys := here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                here.execute_command("MIGRATE", "127.0.0.1", self.ports[to], "", 0, 5000, "KEYS", *keys)
        with self.node(to) as there:
            name = there.execute_command("CLUSTER", "MYID")
        for number in (to, *(n for n in range(NODES) if n != to)):
            with self.node(number) as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", name)
        self._moved[slot] = to

    def take_over(self, slot: int, to: int) -> None:
        """Another node says that a slot is its own, with no word from who had it, who yields to a higher number."""
        with self.node(to) as there:
            name = there.execute_command("CLUSTER", "MYID")
        for number in range(NODES):
            if number != self.owner(slot):
                with self.node(number) as client:
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", name)
        self._moved[slot] = to

    def empty(self) -> None:
        """Forget every key."""
        for number in range(NODES):
            with self.node(number) as client:
                client.flushall()

    def stop(self) -> None:
        """All nodes."""
        for process in self._processes.values():
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    """Ports whose bus port, 10,000 above, is free as well."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            here = held.enter_context(socket.socket())
            here.bind(("127.0.0.1", 0))
            port = here.getsockname()[1]
            bus = held.enter_context(socket.socket())
            with contextlib.suppress(OSError, OverflowError):
                bus.bind(("127.0.0.1", port + 10_000))
                found.append(port)
    return found


def _wait(until, what: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not until():
        if time.monotonic() > deadline:
            raise AssertionError(f"Expected {what} within {READY_WITHIN_S:g} s")
        time.sleep(POLL_S)


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """As long as the context lasts."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
