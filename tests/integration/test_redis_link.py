"""The one connection to Redis: time-outs, a breaker, and what it says when something is wrong."""

import asyncio
import contextlib
import ssl
import time

import pytest
import redis

from service.errors import BadRequest, DependencyFailed, DependencyRefused, no_answer
from service.stores.redis_link import LONGEST_PAUSE_S, RedisLink
from service.stores.resp import connect, encode, parse_address

PING = encode("PING")


@contextlib.asynccontextmanager
async def server_that(answers, secure=None):
    """Its port, and its connections; `answers` is given what comes in, and where to write."""
    connections = []

    async def talk(reader, writer):
        connections.append(asyncio.current_task())
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(10_000):
                await answers(data, writer)

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=secure)
    try:
        yield server.sockets[0].getsockname()[1], connections
    finally:
        server.close()
        for talking in connections:
            talking.cancel()
        await asyncio.gather(*connections)
        await asyncio.sleep(0.01)  # transports close in the next turns of the loop


async def nothing(data, writer):
    """Reads, and never answers."""


def answer_to(data: bytes) -> bytes:
    """What Redis would say to PING and ECHO."""
    return b"+PONG\r\n" if b"PING" in data else data.partition(b"ECHO\r\n")[2]


async def test_calls_that_overlap_get_their_own_replies(redis_url):
    """A hundred at once over one connection, each its own echo."""
    link = RedisLink(redis_url, timeout_ms=5000)
    replies = await asyncio.gather(*(link.ask(encode("ECHO", str(n)) + PING, 2) for n in range(100)))
    assert replies == [[str(n).encode(), b"PONG"] for n in range(100)]
    await link.close()


async def test_an_error_reply_is_a_failure_that_quotes_it(redis_url):
    """Whoever reads the message sees what Redis said."""
    link = RedisLink(redis_url, timeout_ms=5000)
    with pytest.raises(DependencyFailed, match="unknown command"):
        await link.ask(encode("NONSENSE"), 1)
    assert await link.ask(PING, 1) == [b"PONG"]
    await link.close()


async def test_redis_has_refused_only_where_it_did_nothing_of_what_was_asked(redis_url):
    """Where some of it was done, as when memory ran out on the way, whoever asked must not take it for undone."""
    link, wrong = RedisLink(redis_url, timeout_ms=5000), encode("LPUSH", "text", "1")
    with pytest.raises(DependencyFailed, match="WRONGTYPE") as some:
        await link.ask(encode("SET", "text", "1") + wrong, 2)
    assert no_answer(some.value)
    with pytest.raises(DependencyRefused, match="WRONGTYPE"):
        await link.ask(2 * wrong, 2)
    await link.close()


async def test_a_server_that_does_not_answer_costs_the_time_out_once():
    """One call waits; those after it fail at once, however long it lasts: the link looks by itself, less and less often."""
    async with server_that(nothing) as (port, connections):
        link = RedisLink(f"redis://127.0.0.1:{port}", timeout_ms=20)
        with pytest.raises(DependencyFailed, match="within 20 ms"):
            await link.ask(PING, 1)
        for _ in range(20):
            started = asyncio.get_running_loop().time()
            with pytest.raises(DependencyFailed, match="found it down: Expected Redis to answer within 20 ms"):
                await link.ask(PING, 1)
            assert asyncio.get_running_loop().time() - started < 0.015
            await asyncio.sleep(0.03)
        assert 2 <= len(connections) <= 5
        await link.close()


async def test_a_server_that_is_back_is_noticed_without_anybody_asking():
    """The first call after that is answered, with no time-out to pay."""
    held = asyncio.Event()

    async def answer(data, writer):
        if held.is_set():
            writer.write(answer_to(data))

    async with server_that(answer) as (port, _):
        link = RedisLink(f"redis://127.0.0.1:{port}", timeout_ms=20)
        with pytest.raises(DependencyFailed, match="within 20 ms"):
            await link.ask(PING, 1)
        held.set()
        await asyncio.sleep(2 * LONGEST_PAUSE_S)
        assert await link.ask(PING, 1) == [b"PONG"]
        await link.close()


async def test_a_server_that_is_back_is_noticed_where_the_connection_before_was_never_greeted():
    """Nobody waits for an answer to AUTH on a line that carries nothing any more: another connection is tried."""
    held = asyncio.Event()

    async def answer(data, writer):
        if held.is_set():
            writer.write(b"+OK\r\n" if b"AUTH" in data else answer_to(data))

    async with server_that(answer) as (port, connections):
        link = RedisLink(f"redis://:secret@127.0.0.1:{port}", timeout_ms=20)
        with pytest.raises(DependencyFailed, match="within 20 ms"):
            await link.ask(PING, 1)
        await asyncio.sleep(2.5 * LONGEST_PAUSE_S)
        assert len(connections) > 1
        assert connections[0].done(), "nobody holds on to a line that was given up"
        held.set()
        await asyncio.sleep(2.5 * LONGEST_PAUSE_S)
        assert await link.ask(PING, 1) == [b"PONG"]
        await link.close()


async def test_a_line_that_carries_a_few_bytes_a_second_is_not_taken_for_a_server_that_is_back():
    """A short answer would pass; one as long as real answers does not."""

    async def trickle(data, writer):
        for byte in answer_to(data):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)

    async with server_that(trickle) as (port, _):
        link = RedisLink(f"redis://127.0.0.1:{port}", timeout_ms=50)
        assert await link.ask(PING, 1) == [b"PONG"]
        with pytest.raises(DependencyFailed, match="within 50 ms"):
            await link.ask(encode("ECHO", "." * 500), 1)
        await asyncio.sleep(0.5)
        with pytest.raises(DependencyFailed, match="found it down"):
            await link.ask(PING, 1)
        await link.close()


async def test_an_error_that_redis_tells_does_not_count_as_being_down(redis_url):
    """A server that takes no writes can still be read."""
    link = RedisLink(redis_url, timeout_ms=5000)
    for _ in range(5):
        with pytest.raises(DependencyFailed, match="unknown command"):
            await link.ask(encode("NONSENSE"), 1)
    assert await link.ask(PING, 1) == [b"PONG"]
    await link.close()


@pytest.mark.parametrize(
    "refusal",
    [
        b"READONLY You can't write against a read only replica.",
        b"MASTERDOWN Link with MASTER is down",
        b"ERR Can not execute the command on a stale replica script: a",
    ],
)
async def test_where_another_server_took_over_the_link_finds_it_and_nobody_fails_meanwhile(refusal):
    """The one before keeps its connections, and its answers, until nobody waits for one; then it is let go."""
    writers, write = [], encode("SET", "a", "1")

    async def answer(data, writer):
        if writer not in writers:
            writers.append(writer)
        is_replica = writer is writers[0]
        if data == PING:
            await asyncio.sleep(0.2)
        writer.write(b"-%b\r\n" % refusal if is_replica and data == write else b"+OK\r\n")

    async with server_that(answer) as (port, connections):
        link = RedisLink(f"redis://127.0.0.1:{port}", timeout_ms=1000)
        with pytest.raises(DependencyRefused, match=refusal.split()[0].decode()):
            await link.ask(write, 1)
        slow = asyncio.create_task(link.ask(PING, 1))
        await asyncio.sleep(0.1)
        assert await link.ask(write, 1) == [b"OK"]
        assert await slow == [b"OK"]
        assert link.problem is None
        await asyncio.wait([connections[0]])
        await link.close()


async def test_a_redis_that_stays_read_only_is_read_all_the_time_and_connected_to_once_a_second(redis_url):
    """Nobody took over: whoever reads is answered, though every script that writes is refused."""
    with redis.Redis.from_url(redis_url) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            link, before = RedisLink(redis_url, timeout_ms=1000), client.info("stats")["total_connections_received"]
            end = time.monotonic() + 2.5 * LONGEST_PAUSE_S
            while time.monotonic() < end:
                with pytest.raises(DependencyRefused, match="READONLY"):
                    await link.ask(encode("EVAL", "return redis.call('SET', KEYS[1], '1')", "1", "a"), 1)
                assert await link.ask(PING, 1) == [b"PONG"]
                await asyncio.sleep(0.01)
            await link.close()
            assert 3 <= client.info("stats")["total_connections_received"] - before <= 5
        finally:
            client.replicaof("NO", "ONE")


async def test_a_link_that_lost_its_connection_opens_another(redis_url):
    """Redis was restarted: a moment later calls are answered."""
    link = RedisLink(redis_url, timeout_ms=5000)
    with pytest.raises(DependencyFailed):
        await link.ask(encode("CLIENT", "KILL", "SKIPME", "no", "TYPE", "normal") + encode("CLIENT", "PAUSE", "0") * 2000, 2001)
    await asyncio.sleep(0.1)
    assert await link.ask(PING, 1) == [b"PONG"]
    await link.close()


async def test_calls_that_find_no_connection_share_the_new_one():
    """A burst at start opens one connection, not fifty."""
    async with server_that(nothing) as (port, connections):
        link = RedisLink(f"redis://127.0.0.1:{port}", timeout_ms=50)
        await asyncio.gather(*(link.ask(PING, 1) for _ in range(50)), return_exceptions=True)
        assert len(connections) == 1
        await link.close()


async def test_calls_that_come_while_it_connects_share_the_new_one():
    """One more at each turn of the loop, those included in which the connection is there and nobody has taken it yet."""

    async def answer(data, writer):
        writer.write(b"+PONG\r\n" * data.count(b"PING"))

    async with server_that(answer) as (port, connections):
        for times in range(1, 6):
            link = RedisLink(f"redis://127.0.0.1:{port}", timeout_ms=5000)
            calls = [asyncio.create_task(link.ask(PING, 1))]
            while not calls[0].done():
                await asyncio.sleep(0)
                calls.append(asyncio.create_task(link.ask(PING, 1)))
            assert await asyncio.gather(*calls) == [[b"PONG"]] * len(calls)
            assert len(connections) == times
            await link.close()


async def test_a_connection_that_came_too_late_for_whoever_wanted_it_is_used_by_the_next():
    """The first answer to AUTH takes 60 ms, a caller waits 20: what was opened for it is not left lying open."""

    async def answer(data, writer):
        if b"AUTH" in data:
            await asyncio.sleep(0.06)
        writer.write(b"+OK\r\n" if b"AUTH" in data else answer_to(data))

    async with server_that(answer) as (port, connections):
        link = RedisLink(f"redis://:secret@127.0.0.1:{port}", timeout_ms=20)
        with pytest.raises(DependencyFailed, match="within 20 ms"):
            await link.ask(PING, 1)
        await asyncio.sleep(LONGEST_PAUSE_S)
        assert await link.ask(PING, 1) == [b"PONG"]
        assert len(connections) == 1
        await link.close()


async def test_nobody_listening_is_a_failure_that_names_the_address():
    """Refused is told as such."""
    link = RedisLink("redis://127.0.0.1:1/0", timeout_ms=1000)
    with pytest.raises(DependencyFailed, match=r"127\.0\.0\.1"):
        await link.ask(PING, 1)
    await link.close()


def without_certificates(protocol: int) -> ssl.SSLContext:
    """TLS between two who ask each other for nothing."""
    made = ssl.SSLContext(protocol)
    made.check_hostname, made.verify_mode, made.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    made.set_ciphers("AECDH:@SECLEVEL=0")
    return made


async def test_whom_tls_trusts_is_read_once_and_not_at_each_look():
    """Reading it takes 50 ms, in which no decision is made: addresses bring it along, and connections go by that."""
    first, second = parse_address("rediss://one"), parse_address("rediss://two")
    assert isinstance(first.secure, ssl.SSLContext)
    assert first.secure is second.secure

    async def answer(data, writer):
        writer.write(answer_to(data))

    async with server_that(answer, without_certificates(ssl.PROTOCOL_TLS_SERVER)) as (port, _):
        address = parse_address(f"redis://127.0.0.1:{port}")._replace(secure=without_certificates(ssl.PROTOCOL_TLS_CLIENT))
        connection = await connect(address)
        assert await connection.ask(PING, 1) == [b"PONG"]
        connection.abort()


@pytest.mark.parametrize("url", ["http://host", "redis://host/zero", "unix:///path?db=x"])
def test_an_address_that_is_none_is_refused_at_once(url):
    """Before anything is asked."""
    with pytest.raises(BadRequest, match="Expected"):
        RedisLink(url)


async def test_the_database_of_the_address_is_selected(redis_url):
    """`?db=5` is another room of the same server."""
    here, there = RedisLink(redis_url, timeout_ms=5000), RedisLink(f"{redis_url}?db=5", timeout_ms=5000)
    await here.ask(encode("SET", "only-here", "1"), 1)
    assert await there.ask(encode("GET", "only-here"), 1) == [None]
    await here.close()
    await there.close()
