"""Events reach their consumer: at least once, those of a tenant in order, whatever fails or is killed in between."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.systems import entries, events
from sandbox.systems.books import Books
from sandbox.systems.events import Dispatcher, Event, NotDelivered, growing_pauses
from sandbox.systems.requests import RefundIssued
from tests.sandbox.systems.conftest import NOW, make_shop
from tests.sandbox.systems.makers import close, post

LIMIT_SECONDS = 20.0


def at_once() -> Iterator[float]:
    """No pause between two tries."""
    return itertools.repeat(0.0)


def run(scenario: Awaitable[None]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario, LIMIT_SECONDS)

    asyncio.run(limited())


async def until(condition: Callable[[], bool]) -> None:
    """Lets the others work until it holds."""
    while not condition():
        await asyncio.sleep(0)


def issue(books: Books, number: int, tenant: str = "bench") -> None:
    """Posts a refund and closes its case; tenant `shop` has one customer."""
    where = {"customer_id": "ada", "order_id": "S-1", "amount": "0.01"} if tenant == "shop" else {}
    refund_id = post(books, number, NOW, tenant=tenant, **where)
    assert close(books, number, refund_id, NOW, tenant=tenant)["created"] is True


class Recorder:
    """A consumer that takes what it is sent, but for the first tries of some tenants."""

    def __init__(self, **failures: int) -> None:
        self.taken: list[str] = []
        self._failures = failures

    async def __call__(self, event: Event) -> None:
        await asyncio.sleep(0)
        if self._failures.get(event.tenant, 0) > 0:
            self._failures[event.tenant] -= 1
            raise NotDelivered("not now")
        self.taken.append(event.event_id)


def ids(*numbers: int) -> list[str]:
    """The events of these refunds."""
    return [f"refund.issued-RF-{number:06d}" for number in numbers]


def test_what_was_left_is_delivered_at_the_start_in_order(books: Books) -> None:
    for number in range(1, 4):
        issue(books, number)
    recorder = Recorder(bench=2)

    async def scenario() -> None:
        async with Dispatcher(books, recorder, lambda: NOW, at_once).running():
            await until(lambda: len(recorder.taken) == 3)
            await until(lambda: events.waiting_tenants(books) == [])

    run(scenario())
    assert recorder.taken == ids(1, 2, 3)
    assert {row["delivered_at"] for row in entries.book_rows(books, "outbox")} == {NOW.isoformat()}


def test_a_look_that_fails_is_not_the_last_one(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    issue(books, 1)
    monkeypatch.setattr(events, "POLL_SECONDS", 0.01)
    looks = itertools.count()
    look = events.waiting_tenants

    def locked_at_first(books: Books) -> list[str]:
        if next(looks) == 0:
            raise sqlite3.OperationalError("database is locked")
        return look(books)

    monkeypatch.setattr(events, "waiting_tenants", locked_at_first)
    recorder = Recorder()

    async def scenario() -> None:
        async with Dispatcher(books, recorder, lambda: NOW, at_once).running():
            await until(lambda: recorder.taken == ids(1))

    run(scenario())


def test_an_event_that_is_written_leaves_at_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL_SECONDS", 3_600.0)
    recorder = Recorder()

    async def scenario() -> None:
        dispatcher = Dispatcher(books, recorder, lambda: NOW, at_once)
        async with dispatcher.running():
            for number in range(1, 30):
                issue(books, number)
                dispatcher.wake("bench")
                for _ in range(number % 4):
                    await asyncio.sleep(0)
            await until(lambda: len(recorder.taken) == 29)

    run(scenario())
    assert recorder.taken == ids(*range(1, 30))


def test_a_tenant_whose_events_are_not_taken_does_not_hold_back_another(books: Books) -> None:
    issue(books, 1)
    issue(books, 2, "shop")
    issue(books, 3, "shop")
    recorder = Recorder(bench=1_000_000)

    async def scenario() -> None:
        async with Dispatcher(books, recorder, lambda: NOW, at_once).running():
            await until(lambda: len(recorder.taken) == 2)

    run(scenario())
    assert recorder.taken == ids(2, 3)
    assert events.waiting_tenants(books) == ["bench"]


def test_a_fault_of_the_books_does_not_end_the_dispatcher(books: Books) -> None:
    issue(books, 1)
    recorder = Recorder()

    def clock() -> datetime:
        if len(recorder.taken) == 1:
            raise OSError("no clock")
        return NOW

    async def scenario() -> None:
        dispatcher = Dispatcher(books, recorder, clock, at_once)
        async with dispatcher.running():
            await until(lambda: len(recorder.taken) == 1)
            await asyncio.sleep(0)
            dispatcher.wake("bench")
            await until(lambda: events.waiting_tenants(books) == [])

    run(scenario())
    assert recorder.taken == ids(1, 1)


def test_pauses_grow_to_a_limit() -> None:
    assert list(itertools.islice(growing_pauses(), 10)) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


# What may happen to one delivery, and whether the consumer has recorded the event when it did.
FATES = {
    "taken": True,
    "refused": False,
    "answer lost": True,
    "killed before": False,
    "killed after": True,
}


class Fate:
    """A consumer that records in the books of its own, and meets one fate after another; then nothing happens."""

    def __init__(self, path: Path, fates: list[str]) -> None:
        self._books = Books(path)
        self._fates = iter(fates)
        self.dead = False

    async def __call__(self, event: Event) -> None:
        fate = next(self._fates, "taken")
        await asyncio.sleep(0)
        if FATES[fate]:
            events.record_refund(self._books, RefundIssued.model_validate(event.message()), NOW)
        if fate.startswith("killed"):
            self.dead = True
            await asyncio.Event().wait()
        if fate != "taken":
            raise NotDelivered(fate)

    def close(self) -> None:
        """Closes its books."""
        self._books.close()


async def live(path: Path, consumer: Fate, work: Iterator[tuple[str, int]]) -> None:
    """One incarnation: closes cases as they come until all are delivered, or it is killed."""
    books = Books(path)
    dispatcher = Dispatcher(books, consumer, lambda: NOW, at_once)
    consumer.dead = False
    async with dispatcher.running():
        await asyncio.sleep(0)
        while not consumer.dead:
            following = next(work, None)
            if following is None:
                await until(lambda: consumer.dead or not events.waiting_tenants(books))
                break
            tenant, number = following
            issue(books, number, tenant)
            dispatcher.wake(tenant)
            for _ in range(number % 3):
                await asyncio.sleep(0)
    books.close()


@settings(max_examples=60)
@given(
    tenants=st.lists(st.sampled_from(["bench", "shop"]), min_size=1, max_size=8),
    fates=st.lists(st.sampled_from(sorted(FATES)), max_size=20),
)
def test_every_event_is_recorded_once_and_in_order(tenants: list[str], fates: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "systems.sqlite"
        make_shop(path)
        consumer = Fate(path, fates)
        work = iter([(tenant, number) for number, tenant in enumerate(tenants, start=1)])
        for _ in range(len(fates) + 1):
            run(live(path, consumer, work))
        consumer.close()
        books = Books(path)
        written = [(row["tenant"], row["event_id"]) for row in entries.book_rows(books, "outbox")]
        recorded = [(row["tenant"], row["event_id"]) for row in entries.book_rows(books, "bookkeeping")]
        assert sorted(recorded) == sorted(written)
        assert len(written) == len(tenants)
        for tenant in ("bench", "shop"):
            of_tenant = [[event for whose, event in rows if whose == tenant] for rows in (written, recorded)]
            assert of_tenant[0] == of_tenant[1]
        books.close()
