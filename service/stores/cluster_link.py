"""Redis Cluster behind the interface of one Redis: a pipeline is split by node, and its replies come back in order."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import hiredis

from service.errors import BadRequest, DependencyFailed
from service.stores.redis_link import RedisLink, retrieve
from service.stores.resp import REFUSED, Address, check, encode, parse_address
from service.stores.slots import SLOTS, slot_of

MOST_REDIRECTS = 5
TRY_AGAIN_S = 0.002  # a script whose keys are on their way from one node to another
LOOK_EVERY_S = 0.5  # at most so often it is asked who has which slots, while something is wrong
ASKING, WHO_HAS_WHAT = encode("ASKING"), encode("CLUSTER", "SLOTS")
MOVED, ASK, TRY_AGAIN = ELSEWHERE = "MOVED", "ASK", "TRYAGAIN"
AWAY = "CLUSTERDOWN", "LOADING", "MASTERDOWN"  # said by a node that is cut off, or not ready: another may have its slots by now
DROPPED = -1  # in place of a command's number: nobody waits for this reply
NO_KEY = -1  # the slot of a command that any node may answer: the one that is asked before it does

Part = list[tuple[int, bytes]]  # commands for one node, each with its number in the pipeline


class _Node(RedisLink):
    """The link to one node, with a time-out and a breaker of its own."""

    def __init__(self, like: Address, host: str, port: int, timeout_ms: float) -> None:
        user = f"{quote(like.username, safe='')}:{quote(like.password, safe='')}@" if like.password else ""
        shown = f"[{host}]" if ":" in host else host
        super().__init__(f"{'rediss' if like.secure else 'redis'}://{user}{shown}:{port}", timeout_ms=timeout_ms)
        self.host, self.port = host, port


class ClusterLink:
    """Links to all nodes that have slots. A node that does not answer fails the calls that need it, and no others.

    Redis tells of a slot that has moved when asked for it: the command is sent to where it is, and all others are looked up.
    """

    has_slots = True

    def __init__(self, urls: Sequence[str], *, timeout_ms: float = 30.0) -> None:
        """`urls`: of some nodes, which tell the others. Raises BadRequest where one is no node of a cluster."""
        self._timeout_ms = timeout_ms
        self._nodes: dict[tuple[str, int], _Node] = {}
        addresses = [_node_address(url) for url in urls]
        self._like = addresses[0]
        self._seeds = [self._node(address.host, address.port) for address in addresses]
        self._masters = self._seeds
        self._owners: list[_Node | None] = []  # by slot; empty until it is known
        self._looking: asyncio.Task[None] | None = None
        self._looked = 0.0  # the loop's time

    @property
    def problem(self) -> str | None:
        """Why a node counts as down; None where none does."""
        return next((f"{node.host}:{node.port}: {node.problem}" for node in self._masters if node.problem is not None), None)

    async def ask(self, commands: bytes, count: int, *, raw: bool = False) -> Sequence[Any]:
        """Send so many encoded commands in one go, each to the node of its key; their replies, in order.

        Raises DependencyFailed where a node does not answer, or a reply is an error: others may have done their part then. `raw`:
        failures and errors are left among the replies.
        """
        if not count:
            return []
        if not self._owners:
            await self._look()
        told = list(_split(commands))
        parts: defaultdict[_Node, Part] = defaultdict(list)
        node = self._anyone()
        replies: list[Any] = [None] * count
        for number, (slot, command) in enumerate(told):
            try:
                node = node if slot == NO_KEY else self._owner(slot)
            except DependencyFailed as error:
                replies[number] = error
            else:
                parts[node].append((number, command))
        await self._send(parts, replies)
        await self._follow(told, replies)
        return replies if raw else check(replies)

    def _anyone(self) -> _Node:
        return next((node for node in self._masters if node.problem is None), self._seeds[0])

    def _owner(self, slot: int) -> _Node:
        owner = self._owners[slot]
        if owner is None:
            self._look_soon()
            raise DependencyFailed(f"Expected a node that has slot {slot}, found none")
        return owner

    async def _send(self, parts: Mapping[_Node, Part], replies: list[Any]) -> None:
        """All parts at once; their replies go where they belong."""
        calls = [node.ask(b"".join([command for _, command in part]), len(part), raw=True) for node, part in parts.items()]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for (node, part), answer in zip(parts.items(), answers, strict=True):
            if isinstance(answer, DependencyFailed):
                self._look_soon()  # a replica may have taken its place
            elif isinstance(answer, BaseException):
                raise answer
            elif any(_begins(reply, AWAY) for reply in answer):
                self._look_soon(last=node)
            said = [answer] * len(part) if isinstance(answer, DependencyFailed) else answer
            for (number, _), reply in zip(part, said, strict=True):
                if number != DROPPED:
                    replies[number] = reply

    async def _follow(self, told: Sequence[tuple[int, bytes]], replies: list[Any]) -> None:
        """Send what was not done, since its slot has moved or is moving, to where it belongs."""
        for _ in range(MOST_REDIRECTS):
            elsewhere = {number: str(reply).split() for number, reply in enumerate(replies) if _begins(reply, ELSEWHERE)}
            if not elsewhere:
                return
            if any(kind == TRY_AGAIN for kind, *_ in elsewhere.values()):
                await asyncio.sleep(TRY_AGAIN_S)
            parts: defaultdict[_Node, Part] = defaultdict(list)
            for number, (kind, *where) in elsewhere.items():
                slot, command = told[number]
                node = self._owner(slot) if kind == TRY_AGAIN else self._named(where[1], slot)
                if kind == MOVED:
                    self._owners[slot] = node
                    self._look_soon(node)
                parts[node] += [(DROPPED, ASKING), (number, command)] if kind == ASK else [(number, command)]
            await self._send(parts, replies)
        for number, reply in enumerate(replies):
            if _begins(reply, ELSEWHERE):
                replies[number] = DependencyFailed(REFUSED.format(reply))  # no refusal: the next call may go through

    def _named(self, address: str, slot: int) -> _Node:
        """The node of `<host>:<port>`; without a host it is that of the one that told."""
        host, _, port = address.rpartition(":")
        return self._node(host or self._owner(slot).host, int(port))

    def _node(self, host: str, port: int) -> _Node:
        key = host, port
        if key not in self._nodes:
            self._nodes[key] = _Node(self._like, host, port, self._timeout_ms)
        return self._nodes[key]

    async def _look(self) -> None:
        """Find out who has which slots; calls that need it wait for the same look. Raises DependencyFailed."""
        if self._looking is None or self._looking.done():
            self._begin_to_look()
        await asyncio.shield(self._looking)  # type: ignore[arg-type]  # it has just begun

    def _look_soon(self, first: _Node | None = None, last: _Node | None = None) -> None:
        """In the background, not too often; `first` is who most likely knows, `last` who most likely does not."""
        idle = self._looking is None or self._looking.done()
        if idle and asyncio.get_running_loop().time() - self._looked > LOOK_EVERY_S:
            self._begin_to_look(first, last)

    def _begin_to_look(self, first: _Node | None = None, last: _Node | None = None) -> None:
        self._looked = asyncio.get_running_loop().time()
        self._looking = asyncio.create_task(self._ask_around(first, last))
        self._looking.add_done_callback(retrieve)

    async def _ask_around(self, first: _Node | None, last: _Node | None) -> None:
        nodes = dict.fromkeys([*([first] if first else []), *self._masters, *self._seeds])
        failures = []
        for node in sorted(nodes, key=lambda node: node is last):
            try:
                [slots] = await node.ask(WHO_HAS_WHAT, 1)
            except DependencyFailed as error:
                failures.append(error)
                continue
            if slots:
                await self._learn(slots, node.host)
                return
            failures.append(
                DependencyFailed(f"Expected a node of a cluster, found one that knows no slots - at `{node.host}:{node.port}`")
            )
        raise failures[0]

    async def _learn(self, slots: Sequence[Any], told_by: str) -> None:
        """Replies to `CLUSTER SLOTS`: first and last slot, then who has them, the master before its replicas."""
        owners: list[_Node | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_replicas in slots:
            owners[first : last + 1] = [self._node(host.decode() if host else told_by, port)] * (last + 1 - first)
        self._owners = owners
        self._masters = list(dict.fromkeys(node for node in owners if node is not None))
        needed = {*self._masters, *self._seeds}
        for key, node in list(self._nodes.items()):
            if node not in needed and node.problem is not None:  # else somebody may be waiting for its answer
                await self._nodes.pop(key).close()

    async def close(self) -> None:
        """Release all connections."""
        if self._looking is not None and not self._looking.done():
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError, DependencyFailed):
                await self._looking
        for node in self._nodes.values():
            await node.close()


def _begins(reply: Any, words: tuple[str, ...]) -> bool:  # noqa: ANN401  # whatever Redis says
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(words)


def _node_address(url: str) -> Address:
    address = parse_address(url)
    if address.path or address.database:
        raise BadRequest(f"Expected a node of a cluster such as `redis+cluster://host:6379`, got `{url}`")
    return address


def _split(commands: bytes) -> Iterator[tuple[int, bytes]]:
    """Each command, with the slot of its first key."""
    reader = hiredis.Reader()  # a command is an array of words, as a reply may be
    reader.feed(commands)
    while words := reader.gets():
        yield _slot(words), hiredis.pack_command(tuple(words))


def _slot(words: Sequence[bytes]) -> int:
    if words[0] == b"EVAL":
        return slot_of(words[3])  # after the script and the number of keys
    return slot_of(words[1]) if len(words) > 1 else NO_KEY
