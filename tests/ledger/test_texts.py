"""Text that one store cannot hold is stored in the same form by every store, wherever it comes from."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Engine, insert, select

from app.domain.errors import ConfigurationError, ModelUnavailable
from app.domain.models import Intake, TaskView, Ticket, UsageBasis
from app.domain.texts import storable
from app.ledger.store import database
from app.ledger.store.tables import EXECUTIONS, MODEL_CALLS, PRICE_BOOKS
from app.ledger.store.tickets import Replies, Tickets
from app.ledger.store.writer import Writer, insert_many, run
from app.llm.call import ModelCall, Reserve
from app.llm.conversation import Answer, Message, ToolRequest
from app.llm.gateway import reported_or_estimated
from app.llm.journal import Journal, SettledCall
from app.llm.json_answer import json_object, validate
from app.pricing.charge_types import TokenUsage
from app.web.factory import create_app
from app.worker.execution_log import Executions, StepAttempt
from app.workflow.activities.draft_refund import _Answer
from tests.domain.test_texts import ANY_TEXT
from tests.makers import LOSSES, ticket
from tests.web.fakes import FakeTaskService, make_access, secret

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
NASTY = "Invoice\0 total \ud800 and \udc00\ud800"
PLAIN = "Invoice\ufffd total \ufffd and \ufffd\ufffd"
JSON = "application/json"
numbers = itertools.count(1)
on_each_store = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


class Keeping(FakeTaskService):
    """A service that stores tickets and looks up tasks in the same tables as the real one."""

    def __init__(self, tickets: Tickets) -> None:
        super().__init__()
        self.kept = tickets

    def submit(self, ticket: Ticket) -> tuple[TaskView, Intake]:
        """Raises Conflict."""
        _, created = self.kept.accept(ticket)
        return super().submit(ticket)[0], Intake.NEW if created else Intake.KNOWN

    def get(self, task_id: str) -> TaskView:
        """Raises TaskNotFound."""
        self.kept.get(task_id)
        return super().get(task_id)

    def terminate(self, task_id: str, reason: str) -> TaskView:
        """Raises TaskNotFound."""
        self.kept.get(task_id)
        return super().terminate(task_id, reason)


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    opened = Writer(engine)
    yield opened
    opened.close()


@pytest.fixture
def web(engine: Engine, writer: Writer) -> FlaskClient:
    """The API with the real intake."""
    service = Keeping(Tickets(engine, writer, lambda: NOON))
    return create_app(service, make_access(), version="1").test_client()


def call(digest: str = "d" * 64) -> ModelCall:
    return ModelCall(
        tenant="acme",
        task_id="acme:T-1",
        stage="classify",
        turn=1,
        execution_id=f"step-{next(numbers)}",
        prompt_version="p",
        messages=(Message("user", "x"),),
        tools=(),
    )


def posted(web: FlaskClient, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    answer = web.post(path, data=json.dumps(body), headers={"Authorization": f"Bearer {secret('root')}"}, mimetype=JSON)
    return answer.status_code, answer.get_json()


@on_each_store
@given(text=ANY_TEXT)
def test_a_ticket_of_any_text_is_kept(engine: Engine, writer: Writer, text: str) -> None:
    tickets = Tickets(engine, writer, lambda: NOON)
    sent = ticket(ticket_id=f"T-{next(numbers)}", text=text, subject=text[:500])
    stored, created = tickets.accept(sent)
    assert created
    assert (sent.text, sent.subject) == (storable(text), storable(text[:500]))
    assert tickets.get(stored.task_id) == stored
    assert tickets.accept(sent) == (stored, False)


def test_the_api_takes_such_a_ticket_and_finds_it_again(web: FlaskClient, engine: Engine, writer: Writer) -> None:
    body = {"tenant": "acme", "ticket_id": "Z-2", "customer_id": "C-100", "subject": NASTY, "text": NASTY}
    assert posted(web, "/tasks", body)[0] == 201
    assert posted(web, "/tasks", body | {"text": PLAIN})[0] == 200
    assert Tickets(engine, writer, lambda: NOON).get("acme:Z-2").text == PLAIN


@pytest.mark.parametrize("field", ["tenant", "ticket_id", "customer_id", "order_id"])
def test_an_id_with_such_a_character_is_refused_by_name(web: FlaskClient, field: str) -> None:
    body = {"tenant": "acme", "ticket_id": "Z-2", "customer_id": "C-100", "text": "x"}
    status, problem = posted(web, "/tasks", body | {field: "Z\0-2"})
    assert (status, [error["field"] for error in problem["errors"]]) == (422, [field])


@pytest.mark.parametrize("path", ["/tasks/acme:Z%00", "/tasks/acme:%ED%A0%80", "/tasks/acme:%FF"])
def test_an_address_with_such_a_character_is_a_task_that_is_not_there(web: FlaskClient, path: str) -> None:
    headers = {"Authorization": f"Bearer {secret('root')}"}
    assert web.get(path, headers=headers).status_code == 404
    assert web.post(f"{path}/terminate", json={"reason": NASTY}, headers=headers).status_code == 404


@on_each_store
@given(text=ANY_TEXT)
def test_a_letter_of_any_text_is_kept(engine: Engine, writer: Writer, text: str) -> None:
    written = {"action": "answer", "reason": "asked", "confidence": 1, "reply": f"Dear {text[:9000]}"}
    proposal = validate(_Answer, json_object(f"Here it is: {json.dumps(written)}"))
    replies = Replies(engine, writer, lambda: NOON)
    digest = replies.keep("acme:T-1", proposal.reply)
    assert replies.get("acme:T-1", digest) == proposal.reply == storable(json.loads(json.dumps(written))["reply"])


def test_a_models_answer_of_any_words_settles_its_call(engine: Engine, writer: Writer) -> None:
    asyncio.run(_answered(engine, writer))


async def _answered(engine: Engine, writer: Writer) -> None:
    journal, asked = Journal(writer, "w", lambda: NOON, LOSSES), call()
    tools = (ToolRequest(NASTY, NASTY, NASTY),)
    usage = TokenUsage(input_tokens=2**40, output_tokens=5)
    answer = Answer(NASTY, tools, f"{NASTY} {'and so on ' * 9}", f"model {NASTY} {'x' * 300}", usage)
    counted = reported_or_estimated(answer, asked, "")
    assert counted.basis is UsageBasis.ESTIMATED  # no call is so large
    begun = await journal.begin(asked, "llm", NASTY, Reserve(1, 1))
    assert isinstance(begun, str)
    await journal.settle(begun, asked, answer, counted, NASTY)
    again = await journal.begin(asked, "llm", "", Reserve(1, 1))
    assert isinstance(again, SettledCall)
    assert storable(again.answer.text) == storable(again.answer.tool_calls[0].arguments) == PLAIN
    with engine.connect() as connection:
        row = connection.execute(select(MODEL_CALLS).where(MODEL_CALLS.c.call_id == begun)).mappings().one()
    assert row["model"] == f"model {PLAIN} {'x' * 300}"[:200]
    assert row["finish_reason"] == f"{PLAIN} {'and so on ' * 9}"[:32]


def test_a_failures_words_are_kept(engine: Engine, writer: Writer) -> None:
    asyncio.run(_failed(engine, writer))


async def _failed(engine: Engine, writer: Writer) -> None:
    journal, asked = Journal(writer, "w", lambda: NOON, LOSSES), call()
    begun = await journal.begin(asked, "llm", "", Reserve(1, 1))
    assert isinstance(begun, str)
    await journal.fail(begun, ModelUnavailable(NASTY), "")
    with engine.connect() as connection:
        kept = connection.execute(select(MODEL_CALLS.c.error).where(MODEL_CALLS.c.call_id == begun)).scalar_one()
    assert kept.endswith(PLAIN)


def test_the_loops_own_connection_keeps_them_too(engine: Engine, writer: Writer) -> None:
    asyncio.run(_begun(engine, writer))


async def _begun(engine: Engine, writer: Writer) -> None:
    executions = Executions(writer, "w", lambda: NOON)
    async with executions.start(StepAttempt(f"acme:{NASTY}", "step", 1, "classify")):
        pass
    with engine.connect() as connection:
        assert connection.execute(select(EXECUTIONS.c.task_id)).scalars().all() == [f"acme:{PLAIN}"]


def test_many_rows_of_one_statement_are_kept(engine: Engine) -> None:
    rows = [{"digest": f"{number}", "content": NASTY, "first_used_at": NOON} for number in range(3)]
    with engine.begin() as connection:
        connection.execute(insert(PRICE_BOOKS), rows)
        returned = insert(PRICE_BOOKS).returning(PRICE_BOOKS.c.content)
        told = connection.execute(returned, [{**row, "digest": f"again {row['digest']}"} for row in rows])
        assert told.scalars().all() == [PLAIN] * 3
        assert connection.execute(select(PRICE_BOOKS.c.content)).scalars().all() == [PLAIN] * 6


def test_rows_that_go_straight_to_the_driver_are_kept(engine: Engine) -> None:
    rows = [{"digest": f"{number}", "content": NASTY, "first_used_at": NOON} for number in range(3)]
    statement = insert(PRICE_BOOKS)
    with engine.begin() as connection:
        insert_many(connection, statement, rows)
        run(connection, statement, {"digest": "3", "content": NASTY, "first_used_at": 1})
        assert connection.execute(select(PRICE_BOOKS.c.content)).scalars().all() == [PLAIN] * 4


def test_a_database_that_cannot_hold_every_language_is_refused(databases: Any) -> None:
    databases.postgres.run_sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(ConfigurationError, match=r"encoding is LATIN1.*ENCODING 'UTF8'"):
        database.connect(databases.postgres.url("latin", "postgresql+psycopg"))


def test_usage_of_ordinary_size_is_taken_as_reported() -> None:
    answer = Answer(
        "x", (), "stop", "m", TokenUsage(input_tokens=811, cached_tokens=100, output_tokens=32, reasoning_tokens=0)
    )
    assert reported_or_estimated(answer, call(), "") == TokenUsage(
        input_tokens=811, cached_tokens=100, output_tokens=32, reasoning_tokens=0
    )
