"""A trace of each request for OpenTelemetry: the request, and in it the stages of its slowest input.

Where traces go, and how many, say OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT.
"""

import time
from typing import Any, Dict, Mapping, Optional, Sequence

from neuronbert import __version__
from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.metrics import STAGES

_NS = 1_000_000_000
_NS_PER_MS = 1_000_000


class Tracer:
    """Writes spans; ``close`` sends what is left of them."""

    def __init__(self) -> None:
        with optional_imports(otherwise="leave out --trace"):
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.propagate import extract
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, set_span_in_context
            from opentelemetry.trace.status import Status, StatusCode
        self._extract, self._in_context = extract, set_span_in_context
        self._kind, self._failed = SpanKind.SERVER, Status(StatusCode.ERROR)
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
        resource = Resource.create({"service.name": "neuronbert", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # ``close`` does
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("neuronbert.server", __version__)

    def answered(
        self,
        name: str,
        seconds: float,
        headers: Mapping[bytes, bytes],
        attributes: Mapping[str, Any],
        breakdowns: Sequence[Mapping[str, Any]],
    ) -> None:
        """The spans of a request that took ``seconds`` until now; its parent is what ``traceparent`` among its headers
        says (W3C Trace Context).
        """
        end = time.time_ns()
        start = end - int(seconds * _NS)
        span = self._tracer.start_span(
            name, self._extract(_carrier(headers)), self._kind, dict(attributes), start_time=start
        )
        if int(attributes["http.response.status_code"]) >= 500:
            span.set_status(self._failed)
        if breakdowns:
            self._stages(span, end, max(breakdowns, key=lambda breakdown: breakdown["total_ms"]))
        span.end(end)

    def _stages(self, span: Any, end: int, breakdown: Mapping[str, Any]) -> None:
        """One after the other, the last of them ends with the request."""
        context = self._in_context(span)
        at = end - int(sum(breakdown[name] for name in STAGES.values()) * _NS_PER_MS)
        facts = {f"neuronbert.{name}": breakdown[name] for name in ("worker", "cores", "reason", "batches", "deaths")}
        for stage, name in STAGES.items():
            child = self._tracer.start_span(stage, context, attributes=facts, start_time=at)
            at += int(breakdown[name] * _NS_PER_MS)
            child.end(at)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _carrier(headers: Mapping[bytes, bytes]) -> Dict[str, str]:
    found: Dict[str, Optional[bytes]] = {name: headers.get(name.encode()) for name in ("traceparent", "tracestate")}
    return {name: value.decode("latin-1") for name, value in found.items() if value is not None}
