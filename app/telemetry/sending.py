"""One export request over HTTP, by OpenTelemetry's own client.

It reads the standard's variables for headers, certificates, compression and proxies (`OTEL_EXPORTER_OTLP_*`), and
repeats what failed for a moment. What it would log of each failure is kept back: who sends says it once.
"""

from __future__ import annotations

import logging

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

_REQUEST_SECONDS = 5.0


class Sender:
    """Sends to one URL."""

    def __init__(self, url: str) -> None:
        self._exporter = OTLPSpanExporter(url, timeout=_REQUEST_SECONDS)
        logging.getLogger(trace_exporter.__name__).addFilter(_nothing)

    def send(self, request: bytes) -> str:
        """Sends the body of a request, for a few seconds at most. Returns why it was not taken; empty when it was."""
        try:
            # The exporter's public way takes spans of the SDK's and encodes them itself; see `encoding.py`.
            result = self._exporter._client.export(request)
        except Exception as error:  # whatever a transport raises, the thread that sends goes on
            return type(error).__name__
        if result.success:
            return ""
        # Of an exception its type is enough: its text may quote the URL, and with it a key.
        return f"status {result.status_code}" if result.status_code else type(result.error).__name__

    def close(self) -> None:
        """Ends the connection, and a pause between two tries."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _nothing(_: logging.LogRecord) -> bool:
    return False
