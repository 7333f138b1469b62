"""`POST /recommend` on the wire, where neither the framework nor the server's messages have a part in it."""

import asyncio
import contextlib
import gc
import json

import msgspec
import pytest
import uvicorn

from service.api.admission import WINDOW, AdmittingProtocol
from service.api.door import Door
from service.keys import Key, KeyRing, digest
from service.stores.memory_log import MemoryDecisionLog
from tests.unit.service.api.conftest import publish, until

GOOD = json.dumps({"customer_id": "c42", "placement": "home_hero", "context": {"device": "mobile"}}).encode()
TOO_LONG = b"x" * 20_000


class Watched(Door):
    """Tells which requests came as messages all the same."""

    def __init__(self, app) -> None:
        super().__init__(app)
        self.state.messaged = []

    async def __call__(self, scope, receive, send) -> None:
        self.state.messaged.append(scope["path"])
        await super().__call__(scope, receive, send)


@contextlib.asynccontextmanager
async def connected(service, keys=KeyRing, http=AdmittingProtocol, **given):
    """A service that listens; a connection to it, and the application."""
    publish(service.registry)
    app = service.app(keys=keys)
    async with app.lifespan():
        server = uvicorn.Server(
            uvicorn.Config(Watched(app), port=0, http=http, lifespan="off", log_config=None, proxy_headers=False, **given)
        )
        running = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        app.state.connections = server.server_state.connections
        reader, writer = await asyncio.open_connection("127.0.0.1", server.servers[0].sockets[0].getsockname()[1])
        yield reader, writer, app
        writer.close()
        server.should_exit = True
        await running


def request(body: bytes, *headers: str, version: str = "1.1", path: str = "/recommend") -> bytes:
    """Whole, unless the headers say that it comes in chunks."""
    told = headers if any("chunked" in h for h in headers) else (*headers, f"Content-Length: {len(body)}")
    return f"POST {path} HTTP/{version}\r\nHost: here\r\n".encode() + "".join(f"{h}\r\n" for h in told).encode() + b"\r\n" + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict]:
    """One answer: status, headers by small names, body."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5.0)).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, json.loads(await reader.readexactly(int(headers["content-length"])))


async def test_a_connection_is_kept_for_the_next_question(service):
    """With the headers that every answer has."""
    async with connected(service) as (reader, writer, _):
        for _ in range(3):
            writer.write(request(GOOD))
            status, headers, body = await answer(reader)
            assert (status, body["customer_id"]) == (200, "c42")
            assert headers["content-type"] == "application/json"
            assert {"date", "server"} <= headers.keys()
            assert "connection" not in headers


async def test_questions_that_come_at_once_are_answered_in_their_order(service):
    """Some of them through the framework, and only those as messages."""
    async with connected(service) as (reader, writer, app):
        writer.write(request(GOOD) + request(b"{}") + request(GOOD, path="/nowhere") + request(GOOD))
        assert [(await answer(reader))[0] for _ in range(4)] == [200, 400, 404, 200]
    assert app.state.messaged == ["/nowhere"]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_a_body_may_come_in_pieces(service, chunked):
    """Its end is known by its length or by its last chunk."""
    whole = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD) if chunked else GOOD
    sent = request(whole, *(("Transfer-Encoding: chunked",) if chunked else ()))
    async with connected(service) as (reader, writer, _):
        for start in range(0, len(sent), 40):
            writer.write(sent[start : start + 40])
            await writer.drain()
            await asyncio.sleep(0.005)
        assert (await answer(reader))[0] == 200
        writer.write(request(GOOD))
        assert (await answer(reader))[0] == 200


@pytest.mark.parametrize(
    ("headers", "version"), [(("Connection: close",), "1.1"), ((), "1.0")], ids=["as it was asked for", "as of old"]
)
async def test_a_connection_is_closed_where_nobody_wants_to_keep_it(service, headers, version):
    """And says so."""
    async with connected(service) as (reader, writer, _):
        writer.write(request(GOOD, *headers, version=version))
        status, told, _ = await answer(reader)
        assert (status, told["connection"]) == (200, "close")
        assert await asyncio.wait_for(reader.read(), 5.0) == b""


async def test_who_waits_for_leave_to_send_a_body_gets_it(service):
    """`Expect: 100-continue`, as curl says where a body is large."""
    async with connected(service) as (reader, writer, _):
        head, body = request(GOOD, "Expect: 100-continue").split(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5.0)).startswith(b"HTTP/1.1 100")
        writer.write(body)
        assert (await answer(reader))[0] == 200


async def test_a_body_that_is_too_long_is_refused_before_all_of_it_is_there(service):
    """413; what still comes of it is passed over, and the next question is answered."""
    async with connected(service) as (reader, writer, _):
        writer.write(request(TOO_LONG)[:-5000])
        assert (await answer(reader))[0] == 413
        writer.write(b"x" * 5000 + request(GOOD))
        assert (await answer(reader))[0] == 200


async def test_who_leaves_in_the_middle_leaves_nothing_behind(service):
    """Nothing is under way any more."""
    async with connected(service) as (_, writer, app):
        writer.write(request(GOOD)[:-5])
        await writer.drain()
        await until(lambda: app.state.limiter.under_way == 1)
        writer.close()
        await until(lambda: app.state.limiter.under_way == 0)
    assert app.state.messaged == []


@pytest.fixture
def uncollected():
    """Nobody takes away meanwhile what holds itself. Tells how many connections there are."""
    gc.collect()
    gc.disable()
    yield lambda: sum(isinstance(one, AdmittingProtocol) for one in gc.get_objects())
    gc.enable()


@pytest.mark.parametrize(
    "sent", [request(GOOD), request(GOOD)[:-5], b"", request(b"{}")], ids=["answered", "in the middle", "silent", "refused"]
)
async def test_a_connection_that_ended_leaves_nothing_to_the_garbage_collector(service, uncollected, sent):
    """Answered, left in the middle, silent, refused: where clients come and go, the memory would grow with each."""
    before = uncollected()
    async with connected(service) as (reader, writer, app):
        writer.write(sent)
        if sent.endswith(b"}"):
            await answer(reader)
        elif sent:
            await until(lambda: app.state.limiter.under_way == 1)
        assert uncollected() == before + 1
        writer.transport.abort()
        await until(lambda: uncollected() == before)


@pytest.mark.parametrize("path", ["/recommend", "/nowhere"], ids=["past the framework", "through it"])
async def test_a_connection_on_which_nothing_happens_is_closed(service, path):
    """So long after the last answer, and not after the first."""
    loop = asyncio.get_running_loop()
    async with connected(service, timeout_keep_alive=1) as (reader, writer, _):
        for _ in range(3):
            writer.write(request(GOOD, path=path))
            await answer(reader)
            await asyncio.sleep(0.6)
        quiet_since = loop.time() - 0.6
        assert await asyncio.wait_for(reader.read(), 5.0) == b""
        assert 0.9 < loop.time() - quiet_since < 1.6


async def test_the_date_is_that_of_the_answer(service):
    """The lines that all answers of a second share are made anew with the next."""
    async with connected(service) as (reader, writer, _):
        dates = []
        for _ in range(2):
            writer.write(request(GOOD))
            dates.append((await answer(reader))[1]["date"])
            await asyncio.sleep(1.2)
    assert dates[0] != dates[1]


class SlowLog(MemoryDecisionLog):
    """A disk that leaves time to do something before customers whose name begins with an s are answered."""

    async def append_decisions(self, entries) -> None:
        if any(entry.record.customer_id.startswith("s") for entry in entries):
            await asyncio.sleep(0.1)
        await super().append_decisions(entries)


@pytest.fixture
def slow(service):
    service.log = SlowLog()
    return service


class Counting(AdmittingProtocol):
    """Counts the requests that its parser saw."""

    parsed = 0

    def on_message_begin(self) -> None:
        type(self).parsed += 1
        super().on_message_begin()


def asking(customer: str, *headers: str, version: str = "1.1") -> bytes:
    """Nobody else in these tests has such a head."""
    body = json.dumps({"customer_id": customer, "placement": "home_hero", "context": {"device": "mobile"}}).encode()
    return request(body, "X-Asked: past the parser", *headers, version=version)


async def known(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *headers: str) -> None:
    """From now on these heads go past the parser."""
    for _ in range(2):
        writer.write(asking("c42", *headers))
        await answer(reader)


async def test_who_asks_like_others_before_goes_past_the_parser(service):
    """Each is answered for its own body; a head of the same length is none that is known."""
    async with connected(service, http=type("Own", (Counting,), {})) as (reader, writer, app):
        [protocol] = app.state.connections
        await known(reader, writer)
        for customer in ("c43", "c44", "c45"):
            writer.write(asking(customer))
            assert (await answer(reader))[2]["customer_id"] == customer
        assert protocol.parsed == 2
        writer.write(asking("c46").replace(b"past the parser", b"by the parser, "))
        assert (await answer(reader))[2]["customer_id"] == "c46"
        assert protocol.parsed == 3
        writer.write(asking("c4").replace(b'"c4"', b"{}  "))
        assert (await answer(reader))[0] == 400
        assert app.state.limiter.under_way == 0


@pytest.mark.parametrize("elsewhere", [[], ["Origin: https://elsewhere.example"]], ids=["past the framework", "through it"])
async def test_the_limit_is_told_how_long_each_question_may_take(service, elsewhere):
    """Whatever way it comes in."""
    async with connected(service) as (reader, writer, app):
        for number in range(WINDOW):
            body = json.dumps({"customer_id": f"c{number}", "placement": "home_hero", "deadline_ms": 300 + number}).encode()
            writer.write(request(body, *elsewhere))
            assert (await answer(reader))[0] == 200
        await until(lambda: app.state.limiter.status()["in_time_ms"] == 150)
    assert bool(app.state.messaged) == bool(elsewhere)


async def test_what_comes_before_the_answer_waits_for_it(slow):
    """Questions on one connection are answered in their order, whoever reads their heads."""
    async with connected(slow) as (reader, writer, app):
        await known(reader, writer)
        writer.write(asking("s11"))
        await until(lambda: app.state.limiter.under_way == 1)
        for sent in (asking("c12"), asking("c13") + asking("c14")):
            writer.write(sent)
            await asyncio.sleep(0.02)
        assert [(await answer(reader))[2]["customer_id"] for _ in range(4)] == ["s11", "c12", "c13", "c14"]
        writer.write(asking("c15"))
        assert (await answer(reader))[2]["customer_id"] == "c15"


@pytest.mark.parametrize(
    ("headers", "version"), [(("Connection: close",), "1.1"), ((), "1.0")], ids=["as it was asked for", "as of old"]
)
async def test_a_connection_is_closed_each_time_its_client_does_not_keep_it(service, headers, version):
    """Such heads are read each time."""
    async with connected(service) as (_, first, _):
        for _ in range(4):
            reader, writer = await asyncio.open_connection(*first.get_extra_info("peername")[:2])
            writer.write(asking("c42", *headers, version=version))
            assert (await answer(reader))[1]["connection"] == "close"
            assert await asyncio.wait_for(reader.read(), 5.0) == b""
            writer.close()


async def test_a_page_of_another_site_goes_through_the_framework_each_time(service):
    """Which knows whom to let in."""
    async with connected(service) as (reader, writer, app):
        for _ in range(4):
            writer.write(asking("c42", "Origin: https://elsewhere.example"))
            await answer(reader)
    assert app.state.messaged == ["/recommend"] * 4


async def test_a_key_is_looked_at_each_time(service):
    """One that is taken back opens nothing any more."""
    web = Key("k1", "web", ("decide",), digest("secret"), 0.0)
    rings = [KeyRing([web])]
    async with connected(service, keys=lambda: rings[-1]) as (reader, writer, _):
        await known(reader, writer, "Authorization: Bearer secret")
        writer.write(asking("c42", "Authorization: Bearer secret"))
        assert (await answer(reader))[0] == 200
        rings.append(KeyRing([msgspec.structs.replace(web, revoked=1.0)]))
        writer.write(asking("c42", "Authorization: Bearer secret"))
        assert (await answer(reader))[0] == 401


async def test_who_is_answered_while_the_service_stops_is_told_that_it_was_the_last_time(slow):
    """And not cut off."""
    async with connected(slow) as (reader, writer, app):
        await known(reader, writer)
        [protocol] = app.state.connections
        writer.write(asking("s42"))
        await until(lambda: app.state.limiter.under_way == 1)
        protocol.shutdown()
        status, told, _ = await answer(reader)
        assert (status, told["connection"]) == (200, "close")
        assert await asyncio.wait_for(reader.read(), 5.0) == b""


async def test_who_leaves_before_the_answer_leaves_nothing_to_the_garbage_collector(slow, uncollected):
    """A connection whose head was known."""
    before = uncollected()
    async with connected(slow) as (reader, writer, app):
        await known(reader, writer)
        writer.write(asking("s42"))
        await until(lambda: app.state.limiter.under_way == 1)
        assert uncollected() == before + 1
        writer.transport.abort()
        await until(lambda: app.state.limiter.under_way == 0)
        await until(lambda: uncollected() == before)
    assert app.state.messaged == []
