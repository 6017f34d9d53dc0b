"""Reading the books' refunds: page by page, with a remedy in the error if they cannot be read."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.dapr.daprd import Daprd
from app.domain.errors import SystemUnavailable
from app.ledger.audit import refunds as posted
from app.ledger.audit.refunds import posted_refunds

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


def row(number: int) -> dict[str, Any]:
    """A refund as `list` of the refund system returns it."""
    return {
        "refund_id": f"RF-{number:06d}",
        "idempotency_key": "k",
        "tenant": "acme",
        "ticket_id": f"T-{number}",
        "order_id": "O-1",
        "amount": "1.00",
        "currency": "EUR",
        "at": "2026-11-22T12:00:00+00:00",
    }


class Sidecar:
    """Answers service invocations of refunds/list as the test determines, on a real socket."""

    def __init__(self) -> None:
        self.answer: Answer = lambda _: (200, b"{}")
        self.asked: list[dict[str, Any]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.path == "/v1.0/invoke/refunds/method/list"
                outer.asked.append(question)
                status, body = outer.answer(question)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Suppresses the log."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.daprd = Daprd(f"http://127.0.0.1:{self.server.server_port}", "", "")


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    """A running server of the refund system."""
    made = Sidecar()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def books_of(count: int) -> Answer:
    """Applies cursor and limit as the books do."""

    def answer(question: dict[str, Any]) -> tuple[int, bytes]:
        start = int((question["after"] or "RF-0").removeprefix("RF-"))
        page = [row(number) for number in range(start + 1, count + 1)][: question["limit"]]
        following = page[-1]["refund_id"] if len(page) == question["limit"] else None
        return 200, json.dumps({"ok": True, "refunds": page, "next": following}).encode()

    return answer


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_all_pages_are_read(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(posted, "PAGE", 2)
    sidecar.answer = books_of(count)
    refunds = list(posted_refunds(sidecar.daprd))
    assert [refund.refund_id for refund in refunds] == [f"RF-{number:06d}" for number in range(1, count + 1)]
    assert sidecar.asked[0] == {"tenant": None, "after": None, "limit": 2}
    assert len(sidecar.asked) == count // 2 + 1


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (503, b"", "status 503"),
        (200, b"nonsense", "unknown format"),
        (200, b'{"refunds": []}', "unknown format"),
        (200, b'{"ok": false, "code": "closed", "message": "for today"}', "refused, closed"),
        (
            200,
            json.dumps({"ok": True, "refunds": [row(1) | {"amount": "1.001"}], "next": None}).encode(),
            "unknown format",
        ),
    ],
)
def test_an_answer_that_is_none(sidecar: Sidecar, status: int, body: bytes, why: str) -> None:
    sidecar.answer = lambda _: (status, body)
    with pytest.raises(SystemUnavailable, match=f"refunds/list: .*{why}.*refund-agent doctor"):
        list(posted_refunds(sidecar.daprd))


def test_pages_without_an_end(sidecar: Sidecar) -> None:
    sidecar.answer = lambda _: (200, json.dumps({"ok": True, "refunds": [row(1)], "next": "RF-000001"}).encode())
    with pytest.raises(SystemUnavailable, match="page RF-000001 names itself as the next page"):
        list(posted_refunds(sidecar.daprd))


def test_no_sidecar() -> None:
    with pytest.raises(SystemUnavailable, match=r"ConnectError at the sidecar http://127\.0\.0\.1:1"):
        list(posted_refunds(Daprd("http://127.0.0.1:1", "", "")))
