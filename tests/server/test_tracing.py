"""Traces of requests, as a real collector of OpenTelemetry's protocol receives them."""

import gzip
import json
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from neuronbert.artifact.manifest import Artifact
from server.served import serving

SENDING_S = 20.0  # a ceiling, below the half minute for which OpenTelemetry would wait
QUESTION = {"question": "Who was it?", "context": "It was Jim Henson, who lived in London."}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(HTTPServer):
    """Keeps the spans that are sent to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: List[Any] = []


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture()
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, daemon=True)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


def test_a_request_is_a_span_with_its_stages(collector: Collector, echo_artifact: Artifact, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "NEURONBERT_TRACE": "1", "NEURONBERT_GRACE_S": "0"}
    with serving(tmp_path, f"qa={echo_artifact.folder}", environment=environment) as server:
        parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert server.ask("/", {"inputs": QUESTION}, parent).status == 200
        assert server.ask("/models/nobody", {}).status == 404
        assert server.end() == 0
    request = next(span for span in collector.spans if span.name == "POST /")
    assert request.trace_id.hex() == TRACE and request.parent_span_id.hex() == PARENT
    stages = [span for span in collector.spans if span.parent_span_id == request.span_id]
    assert [span.name for span in sorted(stages, key=lambda span: span.start_time_unix_nano)] == STAGES
    assert all(span.end_time_unix_nano <= request.end_time_unix_nano for span in stages)
    attributes = {each.key: each.value for each in request.attributes}
    assert attributes["neuronbert.artifact_digest"].string_value == echo_artifact.manifest["digest"]
    assert attributes["http.response.status_code"].int_value == 200
    missing = next(span for span in collector.spans if span.name == "POST /models/{name}")
    assert {each.key: each.value for each in missing.attributes}["http.response.status_code"].int_value == 404


STAGES = ["tokenise", "queue", "batch_wait", "worker_wait", "device", "decode"]


def test_a_collector_that_is_not_there_changes_no_answer(echo_artifact: Artifact, tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    arguments = ("--trace", "--grace-s", "0", "--log-format", "json")
    with serving(tmp_path, f"qa={echo_artifact.folder}", *arguments, environment=environment) as server:
        assert server.ask("/", {"inputs": QUESTION}).status == 200
        assert server.end() == 0
        lines = [json.loads(line) for line in server.text().splitlines()]
    assert any(line["logger"].startswith("opentelemetry") for line in lines)


def test_a_collector_that_says_nothing_does_not_keep_it_from_ending(echo_artifact: Artifact, tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
        }
        arguments = (f"qa={echo_artifact.folder}", "--trace", "--grace-s", "0", "--drain-timeout-s", "0.1")
        with serving(tmp_path, *arguments, environment=environment) as server:
            assert server.ask("/", {"inputs": QUESTION}).status == 200
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(SENDING_S) == 0
