"""Requests are followed where a collector is set, and nothing is where none is."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.app import tracer_from
from service.errors import BadRequest
from service.otlp import OtlpTracer
from service.settings import Settings
from service.tracing import NoTracer

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{CALLER}-01"


class Collector(ThreadingHTTPServer):
    """Takes spans as any collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Intake)
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list:
        calls = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [span for call in calls for r in call.resource_spans for scope in r.scope_spans for span in scope.spans]


class Intake(BaseHTTPRequestHandler):
    """One call of an exporter."""

    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def catalog(publish_catalog):
    """Published, so that requests are answered."""
    publish_catalog()


@pytest.mark.usefixtures("catalog")
async def test_a_request_is_a_span_and_the_stages_of_its_batch_are_spans_below_it(service, collector):
    """The trace is the caller's; each stage lies within the request, in order."""
    async with service.client(tracer=OtlpTracer(collector.url, 0.0, "1")) as client:
        await client.post("/recommend", json={"customer_id": "c42", "placement": "sidebar"}, headers={"traceparent": PARENT})
    spans = collector.spans()
    [request] = [s for s in spans if s.name == "POST /recommend"]
    stages = [s for s in spans if s is not request]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, CALLER)
    assert [s.name for s in stages] == ["read", "decide", "claim", "append"]
    assert {s.parent_span_id for s in stages} == {request.span_id}
    times = [t for s in stages for t in (s.start_time_unix_nano, s.end_time_unix_nano)]
    assert times == sorted(times)
    assert request.start_time_unix_nano <= times[0]
    assert "http.response.status_code" in {a.key for a in request.attributes}


@pytest.mark.usefixtures("catalog")
async def test_a_request_that_its_caller_does_not_follow_is_traced_by_chance_alone(service, collector):
    """With a share of 0 nothing is sent, with 1 everything is, those who were turned away included."""
    for share, expected in ((0.0, set()), (1.0, {"POST /recommend", "GET /decisions/{decision_id}"})):
        async with service.client(tracer=OtlpTracer(collector.url, share, "1")) as client:
            await client.post("/recommend", json={"customer_id": "c42", "placement": "sidebar"})
            await client.get("/decisions/unheard-of")
        assert {s.name for s in collector.spans() if s.kind == 2} == expected


@pytest.mark.usefixtures("catalog")
async def test_a_collector_that_is_gone_costs_no_answer(service, collector):
    """Spans are lost, and nothing else; stopping does not wait for it for long."""
    collector.server_close()
    async with service.client(tracer=OtlpTracer(collector.url, 1.0, "1")) as client:
        answer = await client.post("/recommend", json={"customer_id": "c42", "placement": "sidebar"})
    assert answer.status_code == 200


def test_without_a_collector_nothing_is_traced():
    """The sibling that does nothing is the default."""
    assert isinstance(tracer_from(Settings()), NoTracer)


def test_a_collector_without_what_speaks_to_it_is_said():
    """The extra is named, and so is the setting."""
    with pytest.raises(BadRequest, match=r"nextbest\[tracing\].*otlp_endpoint"):
        tracer_from(Settings(otlp_endpoint="http://127.0.0.1:4318"), "service.not_installed")
