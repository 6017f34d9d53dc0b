"""The internal systems over a real socket: shapes, malformed requests, faults, many at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from sandbox.faults import Fault, FaultBook, FaultKind
from sandbox.systems import create_app

Client = TestClient[Request, Application]
Scenario = Callable[[Client], Awaitable[None]]
LIMIT_SECONDS = 30.0


def play(state: Path, scenario: Scenario, faults: FaultBook | None = None) -> None:
    """Runs a scenario against a server of its own."""

    async def run() -> None:
        app = create_app(state, faults or FaultBook(), lambda: datetime.now(UTC))
        async with TestClient(TestServer(app)) as client:
            await asyncio.wait_for(scenario(client), LIMIT_SECONDS)

    asyncio.run(run())


async def ask(client: Client, path: str, **body: object) -> dict[str, object]:
    """Posts a request that must be understood."""
    async with client.post(path, json=body) as response:
        assert response.status == 200, await response.text()
        answer: dict[str, object] = await response.json()
        return answer


def refund(number: int, key: str, amount: str = "20.00", ticket_id: str = "T-1") -> dict[str, object]:
    """A refund for the load generator's customer of that number."""
    return {
        "idempotency_key": key,
        "tenant": "bench",
        "ticket_id": ticket_id,
        "customer_id": f"load-{number:05d}",
        "order_id": f"LD-{number:05d}",
        "amount": amount,
        "currency": "EUR",
    }


def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        answer = await ask(client, "/accounts/get", tenant="acme", customer_id="nobody")
        assert answer["code"] == "account_not_found"
        async with client.get("/healthz") as health:
            assert health.status == 200

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b'{"tenant": "bench"}', "idempotency_key"),
        (json.dumps({**refund(1, "k"), "amount": 20.0}).encode(), "amount"),
        (json.dumps({**refund(1, "k"), "amount": "-1.00"}).encode(), "amount"),
        (json.dumps({**refund(1, "k"), "amount": "0.00"}).encode(), "amount"),
        (json.dumps({**refund(1, "k"), "amount": "1.001"}).encode(), "amount"),
        (json.dumps({**refund(1, "k"), "amount": "NaN"}).encode(), "amount"),
        (json.dumps({**refund(1, "k"), "currency": "euro"}).encode(), "currency"),
        (json.dumps({**refund(1, "k"), "note": "secret-text"}).encode(), "note"),
    ],
)
def test_a_malformed_request_names_the_field_and_not_the_value(tmp_path: Path, body: bytes, names: str) -> None:
    async def scenario(client: Client) -> None:
        async with client.post("/refunds/post", data=body) as response:
            answer = await response.json()
        assert (response.status, answer["code"]) == (400, "malformed_request")
        assert f"{names}:" in answer["message"]
        assert "secret-text" not in answer["message"]

    play(tmp_path, scenario)


def test_unknown_book_is_named(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        async with client.get("/books/nothing") as response:
            assert response.status == 404
            assert "refunds, notifications, cases" in (await response.json())["message"]

    play(tmp_path, scenario)


def test_books_survive_a_restart_and_are_not_seeded_again(tmp_path: Path) -> None:
    async def first(client: Client) -> None:
        assert (await ask(client, "/refunds/post", **refund(1, "k")))["created"] is True

    async def second(client: Client) -> None:
        assert (await ask(client, "/refunds/post", **refund(1, "k")))["created"] is False
        policy = await ask(client, "/policies/get", tenant="bench", category="damaged")
        assert policy["ok"] is True

    play(tmp_path, first)
    play(tmp_path, second)


def test_fifty_at_once_with_one_key_are_one_refund(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        answers = await asyncio.gather(*(ask(client, "/refunds/post", **refund(1, "same")) for _ in range(50)))
        assert sum(answer["created"] is True for answer in answers) == 1
        assert {answer["refund_id"] for answer in answers} == {"RF-000001"}

    play(tmp_path, scenario)


def test_fifty_at_once_with_fifty_keys_never_give_back_more_than_was_charged(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        answers = await asyncio.gather(
            *(ask(client, "/refunds/post", **refund(1, f"k-{n}", "3.00", f"T-{n}")) for n in range(50))
        )
        refused = [answer for answer in answers if not answer["ok"]]
        assert {answer["code"] for answer in refused} == {"exceeds_refundable"}
        async with client.get("/books/refunds") as response:
            rows = (await response.json())["rows"]
        assert sum(Decimal(row["amount"]) for row in rows) == Decimal("18.00")

    play(tmp_path, scenario)


def test_a_status_fault_hits_its_system_only_and_does_no_work(tmp_path: Path) -> None:
    faults = FaultBook()
    faults.add(Fault(target="refunds", kind=FaultKind.STATUS, status=503, count=1))

    async def scenario(client: Client) -> None:
        assert (await ask(client, "/policies/get", tenant="bench", category="damaged"))["ok"] is True
        async with client.post("/refunds/post", json=refund(1, "k")) as response:
            assert response.status == 503
        assert (await ask(client, "/refunds/post", **refund(1, "k")))["created"] is True

    play(tmp_path, scenario, faults)


@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.MALFORMED, FaultKind.TIMEOUT])
def test_a_lost_answer_leaves_the_refund_posted_once(tmp_path: Path, kind: FaultKind) -> None:
    faults = FaultBook()
    faults.add(Fault(target="refunds", kind=kind, count=1))

    async def scenario(client: Client) -> None:
        first = asyncio.create_task(ask(client, "/refunds/post", **refund(1, "k")))
        if kind is FaultKind.TIMEOUT:
            while faults.list()[0].fired == 0:
                await asyncio.sleep(0.01)
            await asyncio.wait([first], timeout=0.3)
            first.cancel()  # as one whose patience is over
        with pytest.raises((aiohttp.ClientError, json.JSONDecodeError, asyncio.CancelledError)):
            await first
        again = await ask(client, "/refunds/post", **refund(1, "k"))
        assert (again["created"], again["refund_id"]) == (False, "RF-000001")

    play(tmp_path, scenario, faults)


def test_faults_are_ordered_over_http(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        order = {"target": "cases", "kind": "status", "status": 500}
        async with client.put("/faults", json=order) as response:
            assert response.status == 200
        body = {"idempotency_key": "c", "tenant": "bench", "ticket_id": "T-1", "outcome": "answered"}
        async with client.post("/cases/close", json={**body, "refund_id": None}) as response:
            assert response.status == 500

    play(tmp_path, scenario)
