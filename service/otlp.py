"""Traces for a collector that speaks OTLP over HTTP: the only module that needs the extra `tracing`."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from service.tracing import Lap, Traced

SEND_S = 2.0  # longest wait for the collector: it has a thread of its own, and no answer waits for it
FAILED = 500  # from this status on a request counts as failed


class OtlpTracer:
    """Sends a share of the requests, and those whose caller follows them, as spans: the request, and each stage below it.

    `endpoint`: the collector's address, to which `/v1/traces` is added, such as `http://localhost:4318`. `share`: of the
    requests that come without a trace of their own, 0 to 1.
    """

    is_on = True

    def __init__(self, endpoint: str, share: float, version: str) -> None:
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create({SERVICE_NAME: "nextbest", "service.version": version}),
            shutdown_on_exit=False,
        )
        address = endpoint.rstrip("/") + "/v1/traces"
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=SEND_S)))
        self._tracer = self._provider.get_tracer("nextbest", version)

    @contextlib.contextmanager
    def request(self, method: str, route: str, headers: Mapping[bytes, bytes]) -> Iterator[Traced]:
        told = {
            name: headers[name.encode()].decode("latin-1") for name in ("traceparent", "tracestate") if name.encode() in headers
        }
        known = {"http.request.method": method, "http.route": route}
        with self._tracer.start_as_current_span(
            f"{method} {route}", context=extract(told), kind=SpanKind.SERVER, attributes=known
        ) as span:
            yield span

    def current(self) -> Traced:
        span = trace.get_current_span()
        return span if span.is_recording() else None

    def answered(self, traced: Traced, status: int) -> None:
        traced.set_attribute("http.response.status_code", status)
        if status >= FAILED:
            traced.set_status(Status(StatusCode.ERROR))

    def decided(self, traced: Sequence[Traced], laps: Sequence[Lap]) -> None:
        known, since_1970 = {"nextbest.batch_requests": len(traced)}, time.time_ns() - time.perf_counter_ns()
        for parent in traced:
            if parent is None:
                continue
            context = set_span_in_context(parent)
            for lap in laps:
                span = self._tracer.start_span(lap.stage, context=context, attributes=known, start_time=since_1970 + lap.begun)
                span.end(since_1970 + lap.ended)

    def close(self) -> None:
        self._provider.shutdown()
