"""Row 11: every route with every kind of key, and bodies that were made to do harm."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from service.keys import SCOPES, make_key, revoke_key
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import serving
from tests.acceptance.rows.live_world import live_home

WITHIN_MS = 50.0
FEWEST_BODIES = 60
NEEDS = {  # what each route of the interface needs; a route that is not here fails the row
    ("post", "/recommend"): "decide", ("post", "/outcomes"): "ingest", ("post", "/events"): "ingest",
    ("post", "/identities"): "ingest", ("post", "/consents"): "ingest", ("get", "/consents/{customer_id}"): "operate",
    ("get", "/decisions/{decision_id}"): "operate", ("get", "/metrics"): "operate", ("get", "/status"): "operate",
    ("get", "/live"): "open", ("get", "/ready"): "open", ("get", "/nextbest.js"): "open",
}  # fmt: skip
POSTS = ("/recommend", "/outcomes", "/events", "/identities", "/consents")
EVENT = {"event_id": "e", "customer_id": "c", "type": "product_viewed", "channel": "web"}


class Hostile(NamedTuple):
    """A request as bytes on the wire."""

    name: str
    data: bytes


def measure(context: Context) -> Measured:
    home = context.scratch / "door"
    live_home(home)
    with serving(home, context) as (_, url, _ready):
        bodies = list(hostile_bodies())
        slow, wrong = _attacked(url, bodies)
    keys = _keys(home)
    with serving(home, context) as (_, url, _ready):
        answers, problems = _knocked(url, keys)
    named = "; ".join([*problems, *wrong][:3]) or "every answer as expected"
    figure = f"{answers} answers to 6 kinds of key; {len(bodies)} hostile bodies, slowest answer {slow:.1f} ms: {named}"
    return Measured(figure, not problems and not wrong and slow <= WITHIN_MS and len(bodies) >= FEWEST_BODIES)


def _keys(home: Path) -> dict[str, str | None]:
    """Secrets by what they are."""
    found: dict[str, str | None] = {scope: make_key(home, scope, [scope], time.time())[1] for scope in SCOPES}
    old, secret = make_key(home, "old", SCOPES, time.time())
    revoke_key(home, old.id, time.time())
    return {**found, "none": None, "bad": "nb_0000_wrong", "revoked": secret}


def _knocked(url: str, keys: dict[str, str | None]) -> tuple[int, list[str]]:
    """Every route of the interface's document with every key: how many answers, and those that were not expected."""
    problems, answers = [], 0
    with httpx.Client(base_url=url, timeout=5.0) as web:
        document = web.get("/schema/openapi.json").raise_for_status().json()
        routes = [(method, path) for path, operations in document["paths"].items() for method in operations]
        problems += [f"{m} {p} is in no table" for m, p in routes if (m, p) not in NEEDS]
        for (method, path), needed in NEEDS.items():
            if (method, path) not in routes:
                continue
            for name, secret in keys.items():
                headers = {"Authorization": f"Bearer {secret}"} if secret else {}
                plain = path.replace("{customer_id}", "c1").replace("{decision_id}", "d1")
                status = web.request(method, plain, headers=headers, content=b"{}" if method == "post" else None).status_code
                answers += 1
                if not _fits(status, name, needed):
                    problems.append(f"{method} {path} with {name}: {status}")
    return answers, problems


def _fits(status: int, name: str, needed: str) -> bool:
    if needed != "open" and name in ("none", "bad", "revoked"):
        return status == httpx.codes.UNAUTHORIZED
    if needed not in ("open", name):
        return status == httpx.codes.FORBIDDEN if name in SCOPES else status < httpx.codes.INTERNAL_SERVER_ERROR
    return status < httpx.codes.INTERNAL_SERVER_ERROR and status not in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


def hostile_bodies() -> Iterator[Hostile]:
    """What no client sends by accident: bombs, nesting, lies about lengths, numbers that are none, text that is none."""
    for path in POSTS:
        kind = path.removeprefix("/")
        for name, body in (
            ("nested lists", b'{"%b": %b' % (kind.encode(), b"[" * 100_000)),
            ("nested objects", b'{"a": ' * 100_000),
            ("nested inside", b'{"%b": [%b]}' % (kind.encode(), b"[" * 50_000 + b"]" * 50_000)),
            ("no text", b"\xff\xfe\x00\x01"),
            ("bad UTF-8 in a text", b'{"customer_id": "\xc3\x28", "%b": []}' % kind.encode()),
            ("NaN", b'{"%b": [NaN]}' % kind.encode()),
            ("half a document", b'{"%b": [{"a": 1' % kind.encode()),
            ("a number alone", b"1e999"),
            ("many fields", json.dumps({f"f{n}": n for n in range(50_000)}).encode()),
            ("compressed", b"\x1f\x8b\x08\x00\x00\x00\x00\x00"),
        ):
            yield _posted(f"{path}: {name}", path, body)
    yield _posted("a text of 3 MB", "/recommend", json.dumps({"customer_id": "x" * 3_000_000, "placement": "hero"}).encode())
    yield _posted(
        "a thousand digits", "/recommend", b'{"customer_id": "c", "placement": "hero", "deadline_ms": %b}' % (b"9" * 1000)
    )
    yield _posted("too many events", "/events", json.dumps({"events": [EVENT] * 1001}).encode())
    yield _posted("a lone surrogate", "/recommend", b'{"customer_id": "\\ud800", "placement": 3}')
    for name, length in (("too long", b"99999999999"), ("negative", b"-5"), ("no number", b"abc"), ("longest", b"9" * 400)):
        yield Hostile(f"Content-Length {name}", _head("/events", b"Content-Length: " + length) + b"{}")
    yield Hostile("two lengths", _head("/events", b"Content-Length: 2\r\nContent-Length: 3") + b"{}")
    yield Hostile("length and chunks", _head("/events", b"Content-Length: 2\r\nTransfer-Encoding: chunked") + b"0\r\n\r\n")
    yield Hostile("a chunk of no size", _head("/events", b"Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n")
    yield Hostile("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 3 + b"\r\n\r\n")
    yield Hostile("a line without an end", b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")


def _posted(name: str, path: str, body: bytes) -> Hostile:
    return Hostile(name, _head(path, b"Content-Length: %d" % len(body)) + body)


def _head(path: str, headers: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n%b\r\n\r\n" % (path.encode(), headers)


def _attacked(url: str, bodies: list[Hostile]) -> tuple[float, list[str]]:
    """The slowest answer in milliseconds, from the last byte sent to the first one read, and those that were not 4xx."""
    address = httpx.URL(url)
    slowest, wrong = 0.0, []
    _answer(address.host, address.port or 80, bodies[-1].data)  # the first error compiles what later ones reuse
    for hostile in bodies:
        answer, seconds = _answer(address.host, address.port or 80, hostile.data)
        slowest = max(slowest, seconds * 1000)
        status: Any = answer[9:12]
        if not status.startswith(b"4"):
            wrong.append(f"{hostile.name}: {answer[:40]!r}")
    with httpx.Client(base_url=url) as web:
        if web.post("/events", json={"events": [EVENT]}).status_code != httpx.codes.ACCEPTED:
            wrong.append("afterwards it took no event")
    return slowest, wrong


def _answer(host: str, port: int, data: bytes) -> tuple[bytes, float]:
    with socket.create_connection((host, port), timeout=5.0) as connection:
        with contextlib.suppress(OSError):  # it has answered, and does not want the rest
            connection.sendall(data)
        started = time.perf_counter()
        try:
            return connection.recv(4096), time.perf_counter() - started
        except OSError as error:
            return repr(error).encode(), time.perf_counter() - started


ROW = Row(
    11,
    "every route x {no key, bad, revoked, wrong scope, right}; hostile bodies",
    f"the expected answer; at least {FEWEST_BODIES} bodies: 4xx within {WITHIN_MS:.0f} ms",
    measure,
)
