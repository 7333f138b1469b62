"""Past the framework or through it: the same answers."""

import asyncio
import contextlib
import json

import httpx
import pytest
from litestar import Litestar

from service.api.door import Door
from service.keys import WatchedKeys, make_key
from tests.unit.service.api.conftest import publish

GOOD = {"customer_id": "c42", "placement": "home_hero", "context": {"device": "mobile"}}


def told(response: httpx.Response) -> tuple:
    """What an answer says, but for the clock's part of it and an id that was made up."""
    body = response.json()
    for name in ("took_ms", "decision_id"):
        body.pop(name, None)
    names = ("content-type", "retry-after", "www-authenticate")
    return response.status_code, {n: response.headers.get(n) for n in names}, body


@contextlib.asynccontextmanager
async def running(service, **given):
    """A service that has a catalog."""
    publish(service.registry)
    app = service.app(**given)
    async with app.lifespan():
        yield app


async def both(app: Litestar, **sent) -> list[httpx.Response]:
    """The same request past the framework and through it."""
    answers = []
    for way in (Door(app), app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=way), base_url="http://here") as client:
            answers.append(await client.post("/recommend", **sent))
    return answers


@pytest.mark.parametrize(
    "sent",
    [
        {"json": GOOD},
        {"json": GOOD | {"explain": "full"}},
        {"json": GOOD | {"dry_run": True}},
        {"json": GOOD | {"placement": None, "placements": [{"id": "home_hero", "slots": 2}, {"id": "sidebar"}]}},
        {"json": GOOD | {"placement": "nowhere"}},
        {"json": GOOD | {"customer": "unknown field"}},
        {"json": {"placement": "home_hero"}},
        {"json": []},
        {"content": b""},
        {"content": b"{"},
        {"content": b"\xff\xfe"},
        {"content": b"[" * 5000},
        {"content": json.dumps(GOOD | {"context": {"note": "x" * 20_000}}).encode()},  # longer than the limit, and says so
        {"content": b"{}", "headers": {"content-length": "many"}},
        {"json": GOOD, "headers": {"content-type": "text/plain"}},
    ],
)
async def test_the_door_answers_as_the_framework_does(service, sent):
    """Good and bad requests: status, kind of content, when to come back, and the answer itself."""
    async with running(service) as app:
        direct, framed = await both(app, **sent)
    assert told(direct) == told(framed)


async def test_keys_are_asked_for_at_the_door(service, tmp_path):
    """No key, a wrong one, one for something else, a right one."""
    _, deciding = make_key(tmp_path, "shop", ("decide",), 0.0)
    _, taking = make_key(tmp_path, "pipe", ("ingest",), 0.0)
    async with running(service, keys=WatchedKeys(tmp_path)) as app:
        for secret, status in ((None, 401), ("nonsense", 401), (taking, 403), (deciding, 200)):
            headers = {"authorization": f"Bearer {secret}"} if secret else {}
            direct, framed = await both(app, json=GOOD, headers=headers)
            assert (direct.status_code, told(direct)) == (status, told(framed))


async def test_a_body_that_grows_too_long_is_cut_off(service):
    """In pieces, without saying how long it will be."""
    pieces = [b"x" * 4000] * 5

    async def receive():
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    async with running(service) as app:
        status, _ = await ask(app, receive)
    assert status == 413
    assert len(pieces) == 2


async def test_who_left_gets_no_answer(service):
    """And nothing is decided for them."""

    async def receive():
        return {"type": "http.disconnect"}

    async with running(service) as app:
        assert await ask(app, receive) == (None, b"")


async def test_a_defect_is_told_as_such(service):
    """500, briefly, and counted."""

    async def receive():
        raise RuntimeError("a defect")

    async with running(service) as app:
        status, body = await ask(app, receive)
    assert (status, json.loads(body)["title"]) == (500, "Internal error")
    assert app.state.metrics.errors.labels("500")._value.get() == 1


async def test_another_sites_page_goes_through_the_framework(service):
    """It knows which sites may read answers."""
    async with running(service, origins="https://shop.example") as app:
        direct, _ = await both(app, json=GOOD, headers={"origin": "https://shop.example"})
        assert direct.headers["access-control-allow-origin"] == "https://shop.example"


async def ask(app, receive) -> tuple[int | None, bytes]:
    """One request, message by message."""
    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/recommend", "method": "POST", "headers": [], "query_string": b""}
    await asyncio.wait_for(Door(app)(scope, receive, send), 5)
    return (sent[0]["status"], sent[1]["body"]) if sent else (None, b"")
