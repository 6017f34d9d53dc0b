"""The book of faults: pure, seeded, shared by both ports."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest
from aiohttp import ClientTimeout, ServerDisconnectedError, web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import ValidationError

from sandbox.faults import HOLD_SECONDS, Fault, FaultBook, FaultKind, fault_routes, respond


def fault(**more: Any) -> Fault:
    """A status fault on orders, changed as told."""
    return Fault.model_validate({"target": "orders", "kind": "status", **more})


def drawn(book: FaultBook, times: int, target: str = "orders") -> list[bool]:
    """Which of so many requests meet a fault."""
    return [book.draw(target) is not None for _ in range(times)]


def test_a_fault_strikes_its_target_only() -> None:
    book = FaultBook()
    book.add(fault())
    assert book.draw("orders") == fault()
    assert book.draw("refunds") is None


def test_a_count_ends_a_fault_and_the_list_tells() -> None:
    book = FaultBook()
    book.add(fault(count=2))
    assert drawn(book, 4) == [True, True, False, False]
    assert [(row.id, row.fired) for row in book.list()] == [(1, 2)]


def test_a_share_is_met_and_repeats_with_its_seed() -> None:
    books = [FaultBook(), FaultBook(), FaultBook()]
    for book, seed in zip(books, (7, 7, 8), strict=True):
        book.add(fault(share=0.3, seed=seed))
    runs = [drawn(book, 2000) for book in books]
    assert runs[0] == runs[1] != runs[2]
    assert 520 < sum(runs[0]) < 680


def test_no_share_never_fires_and_a_full_one_always() -> None:
    book = FaultBook()
    book.add(fault(share=0.0))
    assert not any(drawn(book, 100))
    book.add(fault(share=1.0))
    assert all(drawn(book, 100))


def test_the_oldest_that_fires_wins() -> None:
    book = FaultBook()
    book.add(fault(status=500, count=1))
    book.add(fault(status=429))
    found = [book.draw("orders") for _ in range(2)]
    assert [one.status for one in found if one] == [500, 429]


def test_clearing_by_target_and_altogether() -> None:
    book = FaultBook()
    for target in ("orders", "refunds", "refunds"):
        book.add(fault(target=target))
    assert book.clear("refunds") == 2
    assert [row.target for row in book.list()] == ["orders"]
    assert book.clear() == 1
    assert book.list() == ()


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"target": "order"}, "unknown"),
        ({"kind": "nonsense"}, "model"),
        ({"kind": "explode"}, "kind"),
        ({"share": 1.5}, "share"),
        ({"status": 200}, "status"),
        ({"count": 0}, "count"),
        ({"colour": "red"}, "colour"),
        ({"before_work": True}, "before_work"),
    ],
)
def test_a_wrong_fault_is_refused_by_name(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        fault(**wrong)


def test_a_fault_strikes_one_request_of_one_task() -> None:
    book = FaultBook()
    book.add(fault(containing='gr\u00fcn "1"', skip=1, count=1))
    mine, other = [f'{{"a": [{{"b": "see gr\\u00fcn \\"{number}\\""}}], "c": 1}}'.encode() for number in (1, 2)]
    seen = [book.draw("orders", body) is not None for body in (mine, other, b"no JSON", b"", mine, mine)]
    assert seen == [False, False, False, False, True, False]


@pytest.mark.parametrize("patient", [True, False])
def test_a_request_that_is_held_before_the_work_is_not_worked_when_its_client_goes(patient: bool) -> None:
    done: list[str] = []

    async def run() -> None:
        book = FaultBook()
        async with TestClient(TestServer(served(book, done))) as client:
            order = {"target": "refunds", "kind": "timeout", "before_work": True, "seconds": 0.2 if patient else 60}
            await client.put("/faults", json=order)
            with nullcontext() if patient else pytest.raises(TimeoutError):
                await client.post("/refunds/post", timeout=ClientTimeout(total=60 if patient else 0.1))

    asyncio.run(run())
    assert done == ["work"] * patient


def test_a_timeout_holds_for_an_hour_unless_told() -> None:
    assert fault(kind="timeout").hold_seconds == HOLD_SECONDS == 3600
    assert fault(kind="slow").hold_seconds == 1
    assert fault(kind="timeout", seconds=2).hold_seconds == 2


def served(book: FaultBook, done: list[str]) -> web.Application:
    """A server with one route under faults, which notes when its work is done."""

    async def work() -> web.Response:
        done.append("work")
        return web.json_response({"ok": True, "padding": "x" * 100})

    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, book.draw("refunds"), work)

    app = web.Application()
    app.add_routes([web.post("/refunds/post", handler), *fault_routes(book)])
    return app


@pytest.mark.parametrize(
    ("kind", "works"),
    [("status", False), ("slow", True), ("timeout", True), ("malformed", True), ("cut", True)],
)
def test_which_faults_strike_after_the_work(kind: str, works: bool) -> None:
    done: list[str] = []

    async def run() -> None:
        book = FaultBook()
        async with TestClient(TestServer(served(book, done))) as client:
            order = {"target": "refunds", "kind": kind, "seconds": 0.01, "count": 1}
            assert (await client.put("/faults", json=order)).status == 200
            with pytest.raises(ServerDisconnectedError) if kind == "cut" else nullcontext():
                await (await client.post("/refunds/post")).read()
            assert book.list()[0].fired == 1
            assert (await client.post("/refunds/post")).status == 200

    asyncio.run(run())
    assert done == ["work"] * (1 + works)


def test_the_routes_refuse_with_a_sentence() -> None:
    async def run() -> tuple[int, str, int]:
        async with TestClient(TestServer(served(FaultBook(), []))) as client:
            bad = await client.put("/faults", data=b'{"target": "nobody", "kind": "status"}')
            unknown = await client.delete("/faults", params={"target": "nobody"})
            return bad.status, (await bad.json())["error"], unknown.status

    status, error, unknown = asyncio.run(run())
    assert (status, unknown) == (400, 400)
    assert "nobody" in error
    assert "refunds" in error


def test_every_kind_has_a_name_of_the_contract() -> None:
    assert {kind.value for kind in FaultKind} == {"status", "timeout", "cut", "malformed", "nonsense", "slow", "crash"}
