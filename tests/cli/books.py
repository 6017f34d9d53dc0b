"""A server with a refund book for tests."""

from __future__ import annotations

import http.server
import json
import threading
from types import TracebackType
from typing import Any, Self


class RefundBookServer:
    """Answers GET /books/refunds with the given rows; a context manager."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path in ("/books/refunds", "/healthz") else 404)
                self.end_headers()
                self.wfile.write(json.dumps({"rows": rows}).encode())

            def log_message(self, *_: object) -> None:
                """Keeps the test output free of request logs."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
