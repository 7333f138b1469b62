"""A lake in an S3-compatible object store: no rename, no folders, and the manifest that is written last commits."""

import asyncio
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse
from xml.sax.saxutils import escape

import pytest

from service.cli import main
from service.decision.records import EventRecord
from service.stores.segment_log import SegmentLog
from training.lake_store import open_lake
from training.live_log import read_payloads
from training.sealing import remove_sealed, seal
from training.verifying import verify

BUCKET = "lakes"


class ObjectStore(ThreadingHTTPServer):
    """The part of S3 that a lake needs, in memory: put, get, head, list version 2, uploads in parts. Signatures are not checked.

    `refuse`: how many puts are taken before the store refuses any more.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.refuse: int | None = None

    @property
    def query(self) -> str:
        return f"endpoint_override=127.0.0.1:{self.server_port}&scheme=http&region=us-east-1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        """Nobody reads it."""

    def _address(self) -> tuple[str, dict[str, str]]:
        url = urlparse(self.path)
        return unquote(url.path).removeprefix(f"/{BUCKET}").lstrip("/"), {
            k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()
        }

    def _answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        key, _ = self._address()
        store: ObjectStore = self.server
        if key and key not in store.objects:
            self._answer(HTTPStatus.NOT_FOUND)
        else:
            self._answer(HTTPStatus.OK, length=len(store.objects.get(key, b"")), ETag='"e"', Last_Modified=MOMENT)

    def do_GET(self) -> None:
        key, query = self._address()
        store: ObjectStore = self.server
        if not key:
            self._answer(HTTPStatus.OK, _listing(store.objects, query).encode(), Content_Type="application/xml")
        elif key not in store.objects:
            self._answer(HTTPStatus.NOT_FOUND, b"<Error><Code>NoSuchKey</Code></Error>", Content_Type="application/xml")
        else:
            self._get(store.objects[key])

    def _get(self, whole: bytes) -> None:
        asked = self.headers.get("Range")
        if asked is None:
            self._answer(HTTPStatus.OK, whole, ETag='"e"', Last_Modified=MOMENT)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = whole[int(first) : int(last) + 1]
        where = f"bytes {first}-{int(first) + len(part) - 1}/{len(whole)}"
        self._answer(HTTPStatus.PARTIAL_CONTENT, part, ETag='"e"', Content_Range=where, Last_Modified=MOMENT)

    def do_PUT(self) -> None:
        key, query = self._address()
        store: ObjectStore = self.server
        data = self._body()
        if store.refuse is not None and len(store.objects) >= store.refuse:
            self._answer(HTTPStatus.FORBIDDEN, b"<Error><Code>AccessDenied</Code></Error>", Content_Type="application/xml")
            return
        if "partNumber" in query:
            store.parts[query["uploadId"]][int(query["partNumber"])] = data
        elif key:
            store.objects[key] = data
        self._answer(HTTPStatus.OK, ETag='"e"')

    def _body(self) -> bytes:
        """What was sent, out of its wrappings: chunks of HTTP, and in them chunks of S3 with a checksum at the end."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return _unwrapped(data) if "aws-chunked" in (self.headers.get("Content-Encoding") or "") else data

    def do_POST(self) -> None:
        key, query = self._address()
        store: ObjectStore = self.server
        self._body()
        if "uploads" in query:
            name = f"u{len(store.parts)}"
            store.parts[name] = {}
            body = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
        else:
            store.objects[key] = b"".join(data for _, data in sorted(store.parts[query["uploadId"]].items()))
            body = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
        self._answer(HTTPStatus.OK, body.encode(), Content_Type="application/xml")


def _unwrapped(data: bytes) -> bytes:
    whole = b""
    while data:
        head, _, rest = data.partition(b"\r\n")
        size = int(head.partition(b";")[0], 16)
        whole, data = whole + rest[:size], rest[size + 2 :] if size else b""
    return whole


MOMENT = "Wed, 01 Jan 2025 00:00:00 GMT"


def _listing(objects: dict[str, bytes], query: dict[str, str]) -> str:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    keys, folders = [], set[str]()
    for key in sorted(objects):
        rest = key.removeprefix(prefix)
        if key.startswith(prefix) and delimiter and delimiter in rest:
            folders.add(prefix + rest.split(delimiter)[0] + delimiter)
        elif key.startswith(prefix):
            keys.append(key)
    contents = "".join(
        f"<Contents><Key>{escape(k)}</Key><Size>{len(objects[k])}</Size><LastModified>2025-01-01T00:00:00Z</LastModified>"
        f"<ETag>e</ETag></Contents>"
        for k in keys
    )
    common = "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders))
    count = f"<KeyCount>{len(keys) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>"
    return f'<?xml version="1.0"?><ListBucketResult><Name>{BUCKET}</Name>{count}{contents}{common}</ListBucketResult>'


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with ObjectStore() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(store, tmp_path):
    """A home whose lake lies in the store, with some events in its log. Credentials are nobody's."""

    async def fill() -> None:
        log = SegmentLog(tmp_path / "log", segment_bytes=500)
        for n in range(9):
            at = 1_790_000_000.0 + n * 40_000
            await log.append_events([EventRecord(f"e{n}", "c1", "viewed", "web", at, at)])
        await log.close()

    asyncio.run(fill())
    assert main(["--home", str(tmp_path), "log", "lake", f"s3://x:y@{BUCKET}/one?{store.query}"]) == 0
    return tmp_path


def test_what_was_sealed_into_an_object_store_is_read_from_there(home, store):
    """Every record, byte for byte, also when its segment is gone; the store holds files and a manifest, no folders."""
    before = sorted(read_payloads(home, "events"))
    assert (len(before), seal(home).records) == (9, 9)
    assert remove_sealed(home, before=float("inf")) > 1
    assert sorted(read_payloads(home, "events")) == before
    assert verify(home).findings == ()
    assert [name.rpartition(".")[2] for name in sorted(store.objects)] == ["parquet"] * 5 + ["json"]
    assert open_lake(home).names("events")[-1].startswith("events/manifests/")


@pytest.mark.parametrize("puts", [0, 3, 5])
def test_a_store_that_refuses_on_the_way_leaves_every_record_readable_once(home, store, puts):
    """However many files came through, without the manifest the segments count; the next seal is whole."""
    before, store.refuse = sorted(read_payloads(home, "events")), puts
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        seal(home)
    assert sorted(read_payloads(home, "events")) == before
    store.refuse = None
    seal(home)
    assert sorted(read_payloads(home, "events")) == before
    assert verify(home).findings == ()


def test_a_flipped_bit_in_the_store_is_found(home, store):
    """Verification reads what is there, wherever that is."""
    seal(home)
    name = next(name for name in store.objects if name.endswith(".parquet"))
    store.objects[name] = store.objects[name][:-1] + b"?"
    [finding] = verify(home).findings
    assert finding.file.endswith(name.removeprefix("one/"))
