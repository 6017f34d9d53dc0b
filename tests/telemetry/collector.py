"""A small OTLP collector for tests: an HTTP server on loopback that decodes the requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """The received requests. `status` is the answer; `refused` counts the requests that were not accepted."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.refused = 0
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.url = ""
        self._changed = threading.Condition()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Records one request."""
        with self._changed:
            self.paths.append(path)
            self.headers.append(headers)
            if self.status == 200:
                self.requests.append(ExportTraceServiceRequest.FromString(body))
            else:
                self.refused += 1
            self._changed.notify_all()
            return self.status

    def spans(self) -> list[Span]:
        """All accepted spans, in order."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def wait_for_spans(self, count: int, seconds: float = 15.0) -> list[Span]:
        """Waits until `count` spans have arrived."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.spans()) >= count, seconds), f"{len(self.spans())} spans"
        return self.spans()

    def wait_for_refusals(self, count: int, seconds: float = 15.0) -> None:
        """Waits for that many refused requests."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.refused >= count, seconds), f"{self.refused} refusals"


@contextmanager
def running_collector(status: int = 200, port: int = 0) -> Iterator[Collector]:
    """Runs a collector until the end of the block."""
    collector = Collector(status)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = collector.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keeps the test output free of request logs."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def attributes(span: Span) -> dict[str, Any]:
    """A span's attributes as plain values."""
    by_name: dict[str, Any] = {}
    for attribute in span.attributes:
        kind = attribute.value.WhichOneof("value")
        value = getattr(attribute.value, kind)
        by_name[attribute.key] = tuple(item.string_value for item in value.values) if kind == "array_value" else value
    return by_name
