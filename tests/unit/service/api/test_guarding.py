"""Who may come in: every route with every kind of key, and bodies that are too long."""

import contextlib

import pytest
from litestar import Litestar, get

from service.api.guarding import NO_KEY, check_routes
from service.keys import Key, KeyRing, digest

ROUTES = {
    ("POST", "/recommend"): "decide",
    ("POST", "/outcomes"): "ingest",
    ("POST", "/events"): "ingest",
    ("POST", "/identities"): "ingest",
    ("POST", "/consents"): "ingest",
    ("GET", "/consents/c42"): "operate",
    ("GET", "/decisions/d1"): "operate",
    ("GET", "/metrics"): "operate",
    ("GET", "/live"): None,
    ("GET", "/ready"): None,
    ("GET", "/nextbest.js"): None,
    ("GET", "/schema/openapi.json"): None,
}
SCOPES = ("decide", "ingest", "operate")


def key(name: str, *scopes: str, **more) -> Key:
    return Key(name, name, scopes, digest(f"secret-{name}"), 0.0, **more)


BROWSER = key("browser", "decide", "ingest", rate=2.0)
RING = KeyRing([*(key(s, s) for s in SCOPES), key("old", *SCOPES, revoked=1.0), key("slow", *SCOPES, rate=2.0), BROWSER])


@pytest.fixture
async def guarded(service, publish_catalog):
    publish_catalog()
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(service.client(keys=lambda: RING))


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_opens_to_the_right_key_alone(guarded, method, path):
    """401 for none, a wrong or a revoked one, with how to bring one; 403 for one of another scope; else what the route says."""
    needed = ROUTES[method, path]

    async def status(secret: str | None):
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        return await guarded.request(method, path, headers=headers)

    for secret in (None, "secret-nobody", "secret-old", "Bearer"):
        answer = await status(secret)
        assert (answer.status_code == 401) == (needed is not None)
        if needed is not None:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert f"Expected an active key for `{needed}`" in answer.json()["detail"]
    for scope in SCOPES:
        answer = await status(f"secret-{scope}")
        assert (answer.status_code == 403) == (needed not in (None, scope))
        assert answer.status_code not in (401, 500)


@pytest.mark.parametrize("path", ["/recommend/", "//recommend", "/recommend?x=1", "/Recommend", "/recommend%2F"])
async def test_no_way_of_writing_a_path_goes_round_the_guard(guarded, path):
    """Either there is no such route, or it asks for a key."""
    assert (await guarded.post(path, content="{}")).status_code in (401, 404)


async def test_a_key_in_the_address_is_as_good(guarded):
    """For a page that is being left."""
    assert (await guarded.post("/recommend?key=secret-decide", content="{}")).status_code == 400
    assert (await guarded.post("/recommend?key=secret-ingest", content="{}")).status_code == 403


async def test_a_key_that_had_its_share_is_asked_to_come_back(guarded):
    """429 with Retry-After."""
    answers = [await guarded.get("/metrics", headers={"X-API-Key": "secret-slow"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert answers[-1].headers["Retry-After"] == "1"


async def test_events_that_ask_for_a_decision_need_a_key_that_may(guarded, service):
    """403 before anything is written; with both scopes it is one request of the key's rate."""
    event = {"event_id": "e1", "customer_id": "c42", "type": "product_viewed", "channel": "web"}
    told, asked = {"events": [event]}, {"events": [event], "decide": {"customer_id": "c42", "placement": "home_hero"}}
    answer = await guarded.post("/events", json=asked, headers={"X-API-Key": "secret-ingest"})
    assert (answer.status_code, answer.json()["detail"]) == (403, "Expected a key for `decide`, got one for `ingest`")
    assert service.log.events == []
    assert (await guarded.post("/events", json=told, headers={"X-API-Key": "secret-ingest"})).status_code == 202
    answers = [await guarded.post("/events?key=secret-browser", json=asked) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert answers[0].json()["decision"]["placements"]


async def test_a_body_that_says_it_is_too_long_is_not_waited_for(client):
    """413, whatever is sent; a length that is no number is 400."""
    answer = await client.post("/recommend", content="{}", headers={"Content-Length": "10001"})
    assert answer.status_code == 413
    assert "Expected a body of at most 10000 bytes, got 10001" in answer.json()["detail"]


def test_a_route_that_does_not_say_what_it_needs_is_no_service():
    """Nor one that needs what there is not."""

    @get("/forgotten")
    async def forgotten() -> str:
        return ""

    @get("/open", opt=NO_KEY)
    async def open_to_all() -> str:
        return ""

    with pytest.raises(
        TypeError, match=r"Expected a scope \(decide, ingest, operate, open\), got `None` - at route `/forgotten`"
    ):
        check_routes(Litestar([open_to_all, forgotten], openapi_config=None))
    check_routes(Litestar([open_to_all], openapi_config=None))


async def test_a_body_with_too_many_levels_is_malformed(client):
    """400, not a crash."""
    for opened in ('{"events": [' + "[" * 9000, '{"consents": [' + '{"a":' * 1900):
        path = "/events" if "events" in opened else "/consents"
        assert (await client.post(path, content=opened)).status_code == 400
