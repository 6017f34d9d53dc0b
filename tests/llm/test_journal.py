"""What is paid is paid once: executed again, interrupted or executed twice at once, a step has one settled answer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from app.dapr.history.executions import GONE_AFTER
from app.domain.errors import FailureCause, ModelRefused, ModelUnavailable
from app.domain.models import AnsweredBy, UsageBasis
from app.ledger.store import database
from app.ledger.store.call_rows import GIVEN_UP, mark_calls_wasted
from app.ledger.store.database import insert_or_ignore
from app.ledger.store.tables import BEGINNINGS, MODEL_CALLS
from app.ledger.store.writer import Writer
from app.llm import estimate
from app.llm.call import ModelCall, Reserve
from app.llm.conversation import Answer, Message, ToolDefinition, ToolRequest
from app.llm.gateway import LLMGateway, ModelAnswer, ModelComponent
from app.llm.journal import Journal
from app.pricing.charge_types import NOT_REPORTED, TokenUsage
from app.worker import execution_log
from app.worker.execution_log import Heartbeat
from app.workflow.activities.tools import definitions
from tests.makers import LOSSES
from tests.servers import PostgresServer, ensure_installed

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
REPORTED = TokenUsage(input_tokens=811, cached_tokens=100, output_tokens=32, reasoning_tokens=0)
NOTHING = NOT_REPORTED
Say = Callable[[int], Answer]


class Model:
    """Counts its questions; `held` keeps the answer back until it is set."""

    def __init__(self, usage: TokenUsage = REPORTED) -> None:
        self.asked = 0
        self.types: list[str | None] = []
        self.held = asyncio.Event()
        self.held.set()
        self.failing = False
        self.refusing = False
        self.text = ""
        self.sent: list[tuple[tuple[Message, ...], tuple[ToolDefinition, ...]]] = []
        self._usage = usage

    async def provider(self, seconds: float) -> str | None:
        """What was told to it, in order; else always the same."""
        return self.types.pop(0) if self.types else "conversation.openai"

    async def passes_tools(self, provider: str) -> bool:
        """All but one do."""
        return provider != "conversation.anthropic"

    async def ask(self, messages: tuple[Message, ...], tools: tuple[ToolDefinition, ...]) -> Answer:
        """Answers with the number of the question."""
        self.asked += 1
        self.sent.append((messages, tools))
        text = self.text or f"answer {self.asked}"
        await self.held.wait()
        if self.failing:
            message = "model component llm: no answer in time; it is asked again later"
            raise ModelUnavailable(message, cause=FailureCause.NO_ANSWER_IN_TIME)
        if self.refusing:
            raise ModelRefused("model component llm: the provider refuses the request with status 400")
        if self.text:
            return Answer(text, (), "stop", "claude-2.1", self._usage)
        return Answer(text, (ToolRequest("1", "lookup_order", "{}"),), "stop", "sandbox-small", self._usage)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A throw-away server."""
    ensure_installed()
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An empty ledger."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create_database(f"journal{uuid.uuid4().hex}")
    engine = database.connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    """Its writer."""
    writer = Writer(engine)
    yield writer
    writer.close()


def gateway(model: Model, writer: Writer, worker: str = "w1") -> LLMGateway:
    """A gateway of one worker."""
    return LLMGateway(ModelComponent("llm", model), Journal(writer, worker, lambda: NOON, LOSSES))


def call(**changes: Any) -> ModelCall:
    """The first question of a step."""
    values: dict[str, Any] = {
        "tenant": "acme",
        "task_id": "acme:T-1",
        "stage": "classify",
        "turn": 1,
        "execution_id": "e1",
        "prompt_version": "p1",
        "messages": (Message("system", "sort"), Message("user", "my toaster")),
    }
    return ModelCall(**(values | changes))


def rows(engine: Engine) -> list[dict[str, Any]]:
    """The journal, in order of its rows."""
    with engine.connect() as connection:
        found = connection.execute(select(MODEL_CALLS).order_by(MODEL_CALLS.c.started_at, MODEL_CALLS.c.worker))
        return [dict(row._mapping) for row in found]


def test_a_call_is_journaled_with_what_the_provider_reported(engine: Engine, writer: Writer) -> None:
    answered = asyncio.run(gateway(Model(), writer).ask(call()))
    assert answered.use.answered_by is AnsweredBy.PROVIDER
    (row,) = rows(engine)
    assert (row["state"], row["usage_basis"], row["worker"], row["model"]) == (
        "settled",
        "reported",
        "w1",
        "sandbox-small",
    )
    assert (row["input_tokens"], row["cached_tokens"], row["output_tokens"]) == (811, 100, 32)


@pytest.mark.parametrize(
    ("before", "after", "booked"),
    [
        ("conversation.openai", "conversation.openai", "conversation.openai"),
        ("conversation.openai", "conversation.echo", ""),  # changed meanwhile: either may have answered
        ("conversation.openai", "", ""),  # just being changed
        ("", "conversation.echo", ""),
        (None, "conversation.openai", ""),
        ("conversation.openai", None, "conversation.openai"),  # its sidecar went away after it
    ],
)
@pytest.mark.parametrize("failing", [False, True])
def test_a_call_is_booked_under_the_provider_that_answered_it_or_under_none(
    engine: Engine, writer: Writer, before: str | None, after: str | None, booked: str, *, failing: bool
) -> None:
    model = Model()
    model.types, model.failing = [before, after], failing
    if failing:
        with pytest.raises(ModelUnavailable):
            asyncio.run(gateway(model, writer).ask(call()))
    else:
        asyncio.run(gateway(model, writer).ask(call()))
    (row,) = rows(engine)
    assert row["provider"] == booked


def test_tools_go_in_words_to_a_component_that_cannot_pass_them_on(engine: Engine, writer: Writer) -> None:
    model = Model(NOT_REPORTED)
    model.types = ["conversation.anthropic", "conversation.anthropic"]
    model.text = '{"tool_calls": [{"name": "lookup_order", "arguments": {"order_id": "AC-1"}}]}'
    answered = asyncio.run(gateway(model, writer).ask(call(tools=definitions())))
    assert [(request.name, request.arguments) for request in answered.answer.tool_calls] == [
        ("lookup_order", '{"order_id": "AC-1"}')
    ]
    ((messages, tools),) = model.sent
    assert "lookup_order" in messages[0].text
    assert tools == ()
    (row,) = rows(engine)
    assert (row["tool_form"], row["usage_basis"]) == ("json", "estimated")
    by = estimate.counting("conversation.anthropic", "claude-2.1")
    assert row["input_tokens"] == estimate.input_tokens(messages, (), by), "what was sent is counted, words and all"
    assert row["output_tokens"] > 10, "the JSON was the answer that is billed"


@pytest.mark.parametrize(("offered", "form"), [((), None), (definitions(), "native")])
def test_the_record_says_how_tools_were_offered(
    engine: Engine, writer: Writer, offered: tuple[ToolDefinition, ...], form: str | None
) -> None:
    asyncio.run(gateway(Model(), writer).ask(call(tools=offered)))
    (row,) = rows(engine)
    assert row["tool_form"] == form


@pytest.mark.parametrize(
    ("types", "raised", "code"),
    [
        (["conversation.openai", "conversation.openai"], ModelRefused, "model_refused"),
        (["conversation.openai", "conversation.anthropic"], ModelUnavailable, "status"),
    ],
)
def test_a_refusal_counts_only_if_the_component_stayed_the_same(
    engine: Engine, writer: Writer, types: list[str | None], raised: type[Exception], code: str
) -> None:
    model = Model()
    model.types, model.refusing = list(types), True
    with pytest.raises(raised):
        asyncio.run(gateway(model, writer).ask(call()))
    (row,) = rows(engine)
    assert FailureCause.from_error(row["error"]).value == code
    assert FailureCause.from_error(row["error"]).no_model_worked


def test_a_step_that_is_executed_again_is_answered_by_the_journal(engine: Engine, writer: Writer) -> None:
    model = Model()
    first = asyncio.run(gateway(model, writer).ask(call()))
    again = asyncio.run(gateway(model, writer, "w2").ask(call()))
    assert model.asked == 1
    assert again.answer == first.answer
    assert again.use.answered_by is AnsweredBy.JOURNAL
    assert again.use.input_tokens == 811
    assert len(rows(engine)) == 1


@pytest.mark.parametrize("other", [{"turn": 2}, {"execution_id": "e2"}])
def test_another_turn_or_step_is_another_call(engine: Engine, writer: Writer, other: dict[str, Any]) -> None:
    model = Model()
    for question in (call(), call(**other)):
        asyncio.run(gateway(model, writer).ask(question))
    assert model.asked == len(rows(engine)) == 2


def test_a_row_that_a_dead_worker_left_is_interrupted_with_its_reserve(engine: Engine, writer: Writer) -> None:
    async def die_in_flight() -> None:
        model = Model()
        model.held.clear()
        running = asyncio.ensure_future(gateway(model, writer, "w1").ask(call()))
        while not rows(engine):
            await asyncio.sleep(0.005)
        running.cancel()

    asyncio.run(die_in_flight())
    assert [row["state"] for row in rows(engine)] == ["started"]
    asyncio.run(gateway(Model(), writer, "w2").ask(call()))
    lost, paid = rows(engine)
    assert (lost["state"], lost["usage_basis"], lost["input_tokens"]) == ("interrupted", "unreported", None)
    assert lost["reserve_input"] > 0
    assert lost["reserve_output"] > 0
    assert (paid["state"], paid["worker"]) == ("settled", "w2")


def test_two_workers_at_once_cannot_both_settle(engine: Engine, writer: Writer) -> None:
    async def both() -> list[ModelAnswer]:
        model = Model()
        model.held.clear()
        running = [asyncio.ensure_future(gateway(model, writer, worker).ask(call())) for worker in ("w1", "w2")]
        while model.asked < 2:
            await asyncio.sleep(0.005)
        model.held.set()
        return list(await asyncio.gather(*running))

    first, second = asyncio.run(both())
    assert first.answer == second.answer, "both go on with the one answer that settled the step"
    assert {row["state"]: row["error"] for row in rows(engine)} == {
        "interrupted": "another execution of the step settled first",
        "settled": None,
    }
    assert [row["input_tokens"] for row in rows(engine)] == [811, 811], "what the loser used is known, too"


def test_two_executions_in_one_worker_share_one_call(engine: Engine, writer: Writer) -> None:
    async def both() -> None:
        model = Model()
        worker = gateway(model, writer)
        await asyncio.gather(worker.ask(call()), worker.ask(call()))
        assert model.asked == 1

    asyncio.run(both())
    assert len(rows(engine)) == 1


def test_a_failed_call_is_not_free_and_the_next_attempt_is_a_row_of_its_own(engine: Engine, writer: Writer) -> None:
    model = Model()
    model.failing = True
    with pytest.raises(ModelUnavailable):
        asyncio.run(gateway(model, writer).ask(call()))
    model.failing = False
    asyncio.run(gateway(model, writer).ask(call()))
    failed, settled = sorted(rows(engine), key=lambda row: str(row["state"]))
    assert (failed["state"], failed["usage_basis"], failed["input_tokens"]) == ("failed", "unreported", None)
    assert "no answer in time" in failed["error"]
    assert FailureCause.from_error(failed["error"]) is FailureCause.NO_ANSWER_IN_TIME
    assert settled["state"] == "settled"


def test_usage_that_is_not_reported_is_counted_and_marked(engine: Engine, writer: Writer) -> None:
    answered = asyncio.run(gateway(Model(NOTHING), writer).ask(call()))
    assert answered.use.usage_basis is UsageBasis.ESTIMATED
    assert answered.use.input_tokens is not None
    assert answered.use.input_tokens > 0
    assert answered.use.output_tokens is not None
    assert answered.use.output_tokens > 0
    assert answered.use.cached_tokens is None


def test_a_writer_commits_the_rest_when_one_operation_fails(engine: Engine, writer: Writer) -> None:
    def bad(_: object) -> None:
        raise ValueError("no")

    futures = [writer.submit(lambda connection: connection.exec_driver_sql("select 1").scalar()) for _ in range(5)]
    failing = writer.submit(bad)
    futures += [writer.submit(lambda connection: connection.exec_driver_sql("select 1").scalar()) for _ in range(5)]
    with pytest.raises(ValueError, match="no"):
        failing.result(timeout=60)
    assert [future.result(timeout=60) for future in futures] == [1] * 10


def test_calls_of_a_worker_that_is_gone_are_closed_and_those_of_a_living_one_are_not(
    engine: Engine, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution_log, "BEAT_SECONDS", 3600.0)  # only the beats that are told here
    now = [NOON]
    dead, living = (Heartbeat(writer, lambda: now[0]) for _ in range(2))
    for worker, step in ((dead, "e1"), (living, "e2")):
        worker.begin()
        asyncio.run(
            Journal(writer, worker.worker, lambda: NOON, LOSSES).begin(
                call(execution_id=step), "llm", "", Reserve(9, 9)
            )
        )
    now[0] += GONE_AFTER
    assert living.beat() == 1
    assert {row["execution_id"]: row["state"] for row in rows(engine)} == {"e1": "interrupted", "e2": "started"}
    assert living.beat() == 0
    for worker in (dead, living):
        worker.end()


def given_up(
    writer: Writer, why: str = f"{GIVEN_UP}: activity completion references unknown task scheduled id 4"
) -> None:
    """The task's run is over, and another one is begun."""
    row = {"task_id": "acme:T-1", "number": 1, "given_up_at": NOON, "at": NOON}
    writer.run(lambda connection: connection.execute(insert_or_ignore(connection, BEGINNINGS), row).rowcount)
    writer.run(lambda connection: mark_calls_wasted(connection, "acme:T-1", why))


def test_the_answers_of_a_run_that_dapr_gave_up_are_those_of_the_next_one(engine: Engine, writer: Writer) -> None:
    model = Model()
    first = asyncio.run(gateway(model, writer).ask(call()))
    given_up(writer)
    again = asyncio.run(gateway(model, writer, "w2").ask(call(execution_id="e2", turn=2)))
    assert (again.answer, again.use.answered_by) == (first.answer, AnsweredBy.JOURNAL)
    (row,) = rows(engine)
    assert (row["execution_id"], row["turn"], row["state"], row["error"], row["worker"]) == (
        "e2",
        2,
        "settled",
        None,
        "w1",
    )
    asyncio.run(gateway(model, writer).ask(call(execution_id="e3")))
    assert model.asked == 2, "an answer is one step's only"


@pytest.mark.parametrize(
    "other",
    [
        {"messages": (Message("user", "another question"),)},
        {"stage": "draft_refund"},
        {"prompt_version": "p2"},
        {"task_id": "acme:T-2"},
    ],
    ids=str,
)
def test_another_question_is_not_answered_by_it(engine: Engine, writer: Writer, other: dict[str, Any]) -> None:
    model = Model()
    asyncio.run(gateway(model, writer).ask(call()))
    given_up(writer)
    asyncio.run(gateway(model, writer).ask(call(execution_id="e2", **other)))
    assert (model.asked, len(rows(engine))) == (2, 2)


def test_a_run_that_a_person_begins_again_asks_anew(engine: Engine, writer: Writer) -> None:
    model = Model()
    asyncio.run(gateway(model, writer).ask(call()))
    given_up(writer, "worked again")
    asyncio.run(gateway(model, writer).ask(call(execution_id="e2")))
    assert (model.asked, len(rows(engine))) == (2, 2)
