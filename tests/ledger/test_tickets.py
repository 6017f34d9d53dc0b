"""Stored tickets: the same ticket is found again, another body under its id is a conflict, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError, Conflict, TaskNotFound
from app.ledger.store import database
from app.ledger.store.tickets import Replies, Tickets
from app.ledger.store.writer import Writer
from tests.makers import ticket

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture
def tickets(tmp_path: Path) -> Iterator[Tickets]:
    """An empty `tickets` table in an SQLite file."""
    engine = database.connect(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    writer = Writer(engine)
    yield Tickets(engine, writer, lambda: NOON)
    writer.close()
    engine.dispose()


def test_the_same_ticket_is_the_same_task(tickets: Tickets) -> None:
    first, created = tickets.accept(ticket())
    again, created_again = tickets.accept(ticket())
    assert (created, created_again) == (True, False)
    assert again == first == tickets.get("acme:T-1")
    assert first.received_at == NOON


def test_another_body_under_the_same_id_is_a_conflict(tickets: Tickets) -> None:
    tickets.accept(ticket())
    with pytest.raises(Conflict, match="acme:T-1 has another body"):
        tickets.accept(ticket(text="Another story."))


def test_the_same_id_of_another_tenant_is_another_task(tickets: Tickets) -> None:
    tickets.accept(ticket())
    _, created = tickets.accept(ticket(tenant="lumen", text="Another story."))
    assert created


def test_a_crowd_with_the_same_ticket_makes_one_task(tickets: Tickets) -> None:
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: tickets.accept(ticket()), range(64)))
    assert sum(created for _, created in results) == 1
    assert len({stored.sequence for stored, _ in results}) == 1


def test_what_lies_in_the_table_is_redacted_but_conflicts_are_seen_in_the_original(tickets: Tickets) -> None:
    stored, _ = tickets.accept(ticket(text="I am jane@example.com"))
    assert stored.text == "I am [e-mail]"
    with pytest.raises(Conflict):
        tickets.accept(ticket(text="I am john@example.com"))


def test_tickets_that_were_not_started_are_found_after_a_crash(tickets: Tickets) -> None:
    for number in range(3):
        tickets.accept(ticket(ticket_id=f"T-{number}"))
    tickets.mark_started("acme:T-1").result()
    assert [stored.ticket_id for stored in tickets.not_started(10)] == ["T-0", "T-2"]
    assert [stored.ticket_id for stored in tickets.not_started(1)] == ["T-0"]


def test_an_unknown_task_is_named(tickets: Tickets) -> None:
    with pytest.raises(TaskNotFound, match="acme:T-9"):
        tickets.get("acme:T-9")


def test_a_reply_is_kept_once_and_found_by_its_digest(tmp_path: Path) -> None:
    engine = database.connect(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    writer = Writer(engine)
    replies = Replies(engine, writer, lambda: NOON)
    digest = replies.keep("acme:T-1", "Dear customer")
    assert replies.keep("acme:T-1", "Dear customer") == digest
    assert replies.get("acme:T-1", digest) == "Dear customer"
    with pytest.raises(TaskNotFound):
        replies.get("acme:T-2", digest)
    writer.close()
    engine.dispose()


def test_a_database_that_cannot_be_had_is_named_without_its_password() -> None:
    with pytest.raises(ConfigurationError, match="REFUND_AGENT_LEDGER_URL") as error:
        database.connect("postgresql+psycopg://agent:hunter2@127.0.0.1:1/ledger")
    assert "hunter2" not in str(error.value)
