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
        self._reason = _Reason()
        logging.getLogger(trace_exporter.__name__).addFilter(self._reason)
        self._exporter = OTLPSpanExporter(url, timeout=_REQUEST_SECONDS)

    def send(self, request: bytes) -> str:
        """Sends the body of a request, for a few seconds at most. Returns why it was not taken; empty when it was."""
        self._reason.first = ""
        try:
            # The exporter's public way takes spans of the SDK's and encodes them itself; see `encoding.py`.
            if self._exporter._client.export(request).success:
                return ""
        except Exception as error:  # whatever a transport raises, the thread that sends goes on
            return type(error).__name__
        return self._reason.first or "no reason given"

    def close(self) -> None:
        """Ends the connection, and a pause between two tries."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        logging.getLogger(trace_exporter.__name__).removeFilter(self._reason)


class _Reason(logging.Filter):
    """Keeps records back; the first one of a request says why it failed."""

    first = ""

    def filter(self, record: logging.LogRecord) -> bool:
        # An exception's text may quote the URL, and with it a key.
        values = record.args if isinstance(record.args, tuple) else ()
        told = tuple(type(value).__name__ if isinstance(value, Exception) else value for value in values)
        self.first = self.first or str(record.msg) % told
        return False
