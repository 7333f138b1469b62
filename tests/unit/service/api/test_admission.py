"""Who is let in when more come than can be served: the limit, the priorities, and what is read of a request before parsing."""

import asyncio
import contextlib

import h11
import httptools
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from service.api.admission import (
    BEGIN,
    BULK,
    EVENTS,
    FEWEST,
    OUTCOMES,
    QUIET_S,
    RECOMMEND,
    TARGET_S,
    WINDOW,
    AdmittingProtocol,
    Limiter,
)
from service.api.heads import KNOWN_HEADS, SHORT_HEAD, Heads, content_length, size_of
from service.metrics import Metrics
from tests.acceptance.open_loop import OpenLoop, call
from tests.unit.service.api.conftest import until


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def limiter(clock):
    return Limiter(Metrics(), clock)


def answered(limiter: Limiter, clock: Clock, at_once: int, seconds: float, windows: int = 1) -> None:
    """So many requests at once, each answered after so long, for some windows of judgement."""
    for _ in range(windows * WINDOW // at_once + 1):
        begun = [limiter.start() for _ in range(at_once)]
        clock.now += seconds
        for since in begun:
            limiter.end(since)


@pytest.mark.parametrize(("late", "kept"), [(1.01, 0.9), (1.25, 0.8), (10.0, 0.75)])
def test_the_limit_shrinks_by_as_much_as_answers_are_late(limiter, clock, late, kept):
    """A tenth at least and a quarter at most; whoever had come by then was let in by the old limit, and is not judged again."""
    waiting = limiter.start()  # all the time
    begun = [limiter.start() for _ in range(3 * WINDOW)]
    clock.now += late * TARGET_S
    for since in begun:
        limiter.end(since)
    assert limiter.limit == pytest.approx(kept * BEGIN)
    limiter.end(waiting)


def test_the_limit_grows_by_one_where_answers_are_in_time(limiter, clock):
    """Only a limit that was nearly reached can be known to be too low."""
    limiter.start()  # somebody waits all the time
    answered(limiter, clock, BEGIN, TARGET_S / 2)
    before = limiter.limit
    assert before > BEGIN
    answered(limiter, clock, 10, TARGET_S / 2, windows=3)
    assert limiter.limit == before


def test_what_a_stall_took_quick_answers_give_back(limiter, clock):
    """Bit by bit, and never beyond where it began."""
    limiter.start()  # somebody waits all the time
    answered(limiter, clock, WINDOW, 2 * TARGET_S)
    narrow = limiter.limit
    assert narrow < 0.7 * BEGIN
    answered(limiter, clock, 10, 0.9 * TARGET_S, windows=8)
    assert limiter.limit == narrow, "answers that are merely in time say nothing where the house is not full"
    answered(limiter, clock, 10, TARGET_S / 4, windows=16)
    assert limiter.limit == BEGIN


def test_once_nobody_waits_the_limit_is_what_it_was_at_first(limiter, clock):
    """A burst after an overload finds the door open; while somebody waits, it stays as narrow as latency asks for."""
    waiting = limiter.start()
    answered(limiter, clock, WINDOW, 2 * TARGET_S, windows=10)
    assert limiter.limit < BEGIN / 2
    while limiter.admits(RECOMMEND):
        limiter.start()
    narrow = limiter.limit
    while limiter.under_way > 1:
        limiter.end(clock.now)
    limiter.end(waiting)
    assert limiter.limit < BEGIN, "a moment after somebody was turned away"
    assert narrow < BEGIN / 2
    clock.now += QUIET_S + 0.1
    limiter.start()
    assert limiter.limit == BEGIN, "with the first of those who come, for the others come with it"


def promised(limiter: Limiter, clock: Clock, deadlines: list[float], seconds: float) -> None:
    """A window of requests with these deadlines, turn by turn, each answered after so long."""
    begun = [limiter.start() for _ in range(WINDOW)]
    for number in range(WINDOW):
        limiter.promised(deadlines[number % len(deadlines)])
    clock.now += seconds
    for since in begun:
        limiter.end(since)


@pytest.mark.parametrize(
    ("deadlines", "in_time"),
    [([0.1], 0.05), ([0.2], 0.1), ([0.2, 0.3], 0.1), ([0.2] * 49 + [0.1], 0.05), ([0.001], 0.05), ([10.0], 0.25)],
)
def test_whoever_can_wait_longer_is_in_time_for_longer(limiter, clock, deadlines, in_time):
    """Half of the shortest deadline of a window: nobody makes others wait, or has them turned away, and nobody waits forever."""
    limiter.start()  # somebody waits all the time
    before = limiter.limit
    promised(limiter, clock, deadlines, 0.99 * in_time)
    assert limiter.limit >= before
    promised(limiter, clock, deadlines, 1.01 * in_time)
    assert limiter.limit < before


def test_where_all_can_wait_twice_as_long_twice_as_many_may(limiter, clock):
    """Bit by bit; and half as many once somebody cannot."""
    limiter.start()  # somebody waits all the time
    for _ in range(20):
        promised(limiter, clock, [0.2], 0.01)
    assert limiter.limit == pytest.approx(2 * BEGIN)
    while limiter.limit > BEGIN:
        before = limiter.limit
        promised(limiter, clock, [0.2, 0.1], 0.06)
        assert limiter.limit == pytest.approx(before * 0.05 / 0.06)


def test_what_was_promised_last_holds_where_nobody_is_promised_anything(limiter, clock):
    """Outcomes have no deadline."""
    limiter.start()  # somebody waits all the time
    promised(limiter, clock, [0.2], 0.01)
    before = limiter.limit
    answered(limiter, clock, WINDOW, 0.09)
    assert limiter.limit >= before


def test_the_limit_never_closes_the_door(limiter, clock):
    """However slow everything is."""
    limiter.start()  # somebody waits all the time
    answered(limiter, clock, WINDOW, 10.0, windows=100)
    assert limiter.limit == FEWEST


def test_outcomes_come_first_then_questions_then_events_then_bulk(limiter):
    """Each up to its share of the limit; questions up to all of it, whoever else waits."""
    let_in = dict.fromkeys((BULK, EVENTS, RECOMMEND, OUTCOMES), 0)
    for priority in let_in:
        while limiter.admits(priority):
            limiter.start(priority)
            let_in[priority] += 1
    assert let_in == {BULK: BEGIN // 2, EVENTS: BEGIN // 4, RECOMMEND: BEGIN, OUTCOMES: 4 * BEGIN - 7 * BEGIN // 4}
    assert not any(limiter.admits(priority) for priority in let_in)


def test_questions_leave_events_no_room_and_take_none_of_that_of_outcomes(limiter):
    """What can be sent again is turned away first, once as many ask as may."""
    while limiter.admits(RECOMMEND):
        limiter.start(RECOMMEND)
    assert [limiter.admits(priority) for priority in (BULK, EVENTS, OUTCOMES)] == [False, False, True]


@pytest.mark.parametrize("priority", [OUTCOMES, EVENTS, BULK])
def test_questions_are_let_in_however_many_wait_for_a_disk_that_hangs(limiter, clock, priority):
    """They can be answered without it, also where late answers have let the limit shrink; and those that left have left."""
    waiting = []
    while limiter.admits(priority):
        waiting.append(limiter.start(priority))
    answered(limiter, clock, WINDOW, 10.0, windows=100)
    assert limiter.limit == FEWEST
    for _ in range(FEWEST):
        assert limiter.admits(RECOMMEND)
        limiter.start(RECOMMEND)
    assert not limiter.admits(RECOMMEND)
    for since in waiting:
        limiter.end(since, priority)
    assert limiter.under_way == FEWEST
    assert not limiter.admits(RECOMMEND)


def test_whoever_was_turned_away_is_counted_by_the_time_a_scrape_is_answered(clock):
    """A scrape is a request that is let in; and whoever is answered later counts those who came meanwhile."""
    metrics = Metrics()
    limiter = Limiter(metrics, clock)

    def counted(priority: str) -> float | None:
        return metrics.registry.get_sample_value("nextbest_rejected_total", {"priority": priority})

    while limiter.admits(RECOMMEND):
        limiter.start()
    assert not limiter.admits(RECOMMEND)
    assert not limiter.admits(BULK)
    scrape = limiter.start()
    assert (counted(RECOMMEND), counted(BULK), counted(OUTCOMES)) == (2.0, 1.0, 0.0)
    assert not limiter.admits(EVENTS)
    limiter.end(scrape)
    assert counted(EVENTS) == 1.0


def test_outcomes_keep_their_room_when_questions_are_turned_away(limiter, clock):
    """The limit that shrank was for pages that somebody waits for."""
    limiter.start()  # somebody waits all the time
    answered(limiter, clock, WINDOW, 10.0, windows=100)
    let_in = 0
    while limiter.admits(OUTCOMES):
        limiter.start()
        let_in += 1
    assert let_in == 4 * BEGIN - 1
    assert not limiter.admits(RECOMMEND)


@pytest.mark.parametrize(
    ("data", "priority"),
    [
        (b"POST /outcomes HTTP/1.1", OUTCOMES), (b"POST /consents HTTP/1.1", OUTCOMES), (b"POST /recommend HTTP/1.1", RECOMMEND),
        (b"POST /events?key=a HTTP/1.1", EVENTS), (b"GET /ready HTTP/1.1", None), (b"GET /metrics HTTP/1.1", None), (b"", None),
    ],
)  # fmt: skip
def test_the_first_bytes_tell_the_priority(data, priority):
    """What operators ask is always let in."""
    assert Heads().judged(data) == (priority, False)


def asking(path, length, body):
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (asking("/recommend", 5, "12345"), (RECOMMEND, True)),
        (asking("/recommend", 5, "1234"), (RECOMMEND, False)),
        (asking("/recommend", 4, "12345"), (RECOMMEND, False)),
        (asking("/outcomes?", 5, "12345"), (OUTCOMES, True)),
        (asking("/events", 70_000, 70_000 * "1"), (BULK, True)),
        (asking("/events", 5, "12345"), (EVENTS, True)),
    ],
    ids=["a whole one", "its end is missing", "more than one", "of the same size", "a large one", "a small one"],
)
def test_what_is_remembered_of_a_head_is_what_a_first_look_says(data, found):
    """Each is asked for after all others: a size, or a head, alone makes nobody somebody else."""
    heads = Heads()
    others = [asking("/recommend", 5, "54321"), asking("/outcomes?", 5, "54321"), asking("/recommend", 4, "1234")]
    for other in others:
        heads.judged(other)
    assert heads.judged(data) == found
    known = heads.known(data)
    assert (None if known is None else (known.priority, True)) == (found if found[1] else None)


def test_few_heads_are_remembered():
    """A client that sends ever new ones fills no memory."""
    heads = Heads()
    for size in range(3 * KNOWN_HEADS):
        heads.judged(asking("/recommend", size, size * "1"))
    assert 1 < len(heads) <= KNOWN_HEADS


def test_a_long_head_is_read_each_time():
    """A thousand of them would be memory that a client fills."""
    heads, long = Heads(), asking("/recommend", 2, "{}").replace(b"Host: a", b"Host: " + SHORT_HEAD * b"a")
    assert heads.judged(long) == (RECOMMEND, True)
    assert heads.known(long) is None
    assert len(heads) == 0


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 112\r\n", 112),
        (b"POST / HTTP/1.1\r\ncontent-length:7\r\nHost: a\r\n", 7),
        (b"POST / HTTP/1.1\r\nContent-Type: a\r\nCONTENT-LENGTH: 3\r\n", 3),
        (b"POST / HTTP/1.1\r\nContent-Type: a\r\nContent-Length: 3\r\n", 3),
        (b"POST / HTTP/1.1\r\nContent-Length: -3\r\n", None),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", None),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTRANSFER-ENCODING: chunked\r\n", None),
        (b"POST / HTTP/1.1\r\nX-Content-Length: 0\r\nContent-Length: 40\r\n", None),
        (b"POST / HTTP/1.1\r\nX-Content-Length: 0\r\n", None),
        (b"POST / HTTP/1.1\r\nContent-Length: 0\r\nCONTENT-LENGTH: 40\r\n", None),
        (b"POST / HTTP/1.1\r\nA: Content-Length: 3\r\n", None),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nA: a\n\nPOST / HTTP/1.1\r\n", None),
    ],
)
def test_a_length_is_read_where_it_is_plain(head, length):
    """Anything else is for the parser; then the connection is closed after the answer."""
    assert content_length(head) == length


class Parsed:
    """What httptools makes of some bytes: of how many bytes a body is, once all of it is there."""

    def __init__(self, data: bytes) -> None:
        self.bodies, self._body = [], 0
        httptools.HttpRequestParser(self).feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += len(body)

    def on_message_complete(self) -> None:
        self.bodies.append(self._body)


def h11_bodies(data: bytes) -> list[int]:
    """The same by h11, of the first request."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    size = 0
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            return []
        size += len(event.data) if isinstance(event, h11.Data) else 0
    return [size]


NAMES = ["Content-Length", "CONTENT-LENGTH", "X-Content-Length", "Transfer-Encoding", "transfer-encoding", "Content-Type", "A"]
HEADER_LINES = st.builds(
    "{}{}{}{}".format, st.sampled_from(NAMES), st.sampled_from([":", ": ", " : ", ":\t"]),
    st.sampled_from(["0", "7", "40", "07", "chunked", "Content-Length: 0", "-1", ""]),
    st.sampled_from(["\r\n", " \r\n", "\n", "\r\n "]),
)  # fmt: skip


@given(st.lists(HEADER_LINES, max_size=4))
def test_a_length_that_is_read_is_what_parsers_read(lines):
    """Whatever the head says: a request ends where they say it does, or they refuse it."""
    head = f"POST /recommend HTTP/1.1\r\nHost: a\r\n{''.join(lines)}\r\n".encode()
    data = head + 40 * b"1"
    size = size_of(data)
    if size is None:
        return
    with contextlib.suppress(httptools.HttpParserError):
        assert Parsed(data[:size]).bodies == [size - len(head)]
    with contextlib.suppress(h11.RemoteProtocolError):
        assert h11_bodies(data[:size]) == [size - len(head)]


class Held:
    """An application that answers when it is told to; its limiter lets two in."""

    def __init__(self, begin: float = 2.0) -> None:
        self.go, self.state = asyncio.Event(), self
        self.limiter = Limiter(Metrics(), begin=begin)

    async def __call__(self, scope, receive, send) -> None:
        assert scope["type"] == "http"
        await receive()
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})


@contextlib.asynccontextmanager
async def listening(app, keep_alive=5):
    """A real server with this protocol; its port."""
    config = uvicorn.Config(
        app, port=0, http=AdmittingProtocol, lifespan="off", log_config=None, timeout_keep_alive=keep_alive
    )  # fmt: skip
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await running


async def test_whoever_is_too_many_is_answered_at_once_and_keeps_the_connection():
    """503 with Retry-After, while the others wait for their answers; afterwards there is room again."""
    app = Held()
    async with listening(app) as port:
        loop = OpenLoop("127.0.0.1", port)
        waiting = [asyncio.create_task(loop.ask(call("/recommend", {}).data)) for _ in range(2)]
        await until(lambda: app.limiter.under_way == 2)
        status, body = await loop.ask(call("/recommend", {}).data)
        assert (status, b"Overloaded" in body) == (503, True)
        outcome = asyncio.create_task(loop.ask(call("/outcomes", {}).data))
        again, _ = await loop.ask(call("/recommend", {}).data)
        assert again == 503
        app.go.set()
        assert [status for status, _ in await asyncio.gather(*waiting, outcome)] == [200, 200, 200]
        assert app.limiter.under_way == 0
        assert (await loop.ask(call("/recommend", {}).data))[0] == 200
        loop.close()


@pytest.mark.parametrize("others", ["/outcomes", "/events"])
async def test_a_question_is_let_in_while_others_wait(others):
    """More of them than may ask at once: who they are is known from the first bytes, and again once they are parsed."""
    app = Held()
    async with listening(app) as port:
        loop = OpenLoop("127.0.0.1", port)
        waiting = [asyncio.create_task(loop.ask(call(others, {}).data)) for _ in range(2)]
        await until(lambda: app.limiter.under_way == 2)
        asking = asyncio.create_task(loop.ask(call("/recommend", {}).data))
        await until(lambda: app.limiter.under_way == 3)
        app.go.set()
        assert [status for status, _ in await asyncio.gather(*waiting, asking)] == [200, 200, 200]
        loop.close()


@pytest.mark.parametrize(
    "name", ["Content-Length: ", "content-length: ", "Content-length:"], ids=["as most write it", "in small letters", "otherwise"]
)
async def test_a_connection_is_kept_however_the_length_is_spelt(name):
    """All of it is here, so its end is known."""
    app = Held(begin=0.0)
    async with listening(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(f"POST /recommend HTTP/1.1\r\nHost: a\r\n{name}2\r\n\r\n{{}}".encode())
            answer = await asyncio.wait_for(reader.readuntil(b"[]}"), 5.0)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"connection: close" not in answer
        writer.close()


@pytest.mark.parametrize(
    "headers",
    ["X-Content-Length: 0\r\nContent-Length: 40\r\n", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"],
    ids=["a name that ends like it", "in chunks"],
)
async def test_a_connection_is_closed_where_the_end_of_a_body_is_not_plain(headers):
    """What would come next is the body, and must not be taken for a request."""
    app = Held(begin=0.0)
    async with listening(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST /recommend HTTP/1.1\r\nHost: a\r\n{headers}\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 5.0)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in answer
        writer.close()


async def test_a_connection_that_was_turned_away_is_kept_while_it_asks_and_closed_once_it_is_quiet():
    """The alarm looks only whether anybody was turned away since it rang last."""
    app = Held(begin=0.0)
    async with listening(app, keep_alive=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(8):
            writer.write(asking("/recommend", 2, "{}"))
            assert (await asyncio.wait_for(reader.readuntil(b"[]}"), 5.0)).startswith(b"HTTP/1.1 503")
            await asyncio.sleep(0.1)
        assert await asyncio.wait_for(reader.read(), 5.0) == b""
        writer.close()


async def test_a_body_that_is_still_coming_is_not_waited_for():
    """The answer is there, and the connection is closed."""
    app = Held(begin=0.0)
    async with listening(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(), 5.0)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in answer
        writer.close()
