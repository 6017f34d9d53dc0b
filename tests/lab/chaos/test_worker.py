"""The worker whose journal never answers: it writes the same rows, and the model is called, and paid, again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from app import bootstrap
from app.domain.models import CallState
from app.ledger.reading.queries import LedgerQueries
from app.ledger.store import database
from app.ledger.store.tables import MODEL_CALLS
from app.ledger.store.writer import Writer
from app.llm.call import ModelCall
from app.llm.conversation import Answer, Message, ToolDefinition
from app.llm.gateway import LLMGateway, ModelComponent
from app.llm.journal import Journal
from app.pricing.charge_types import TokenUsage
from lab.chaos import worker
from lab.chaos.checks import find_paid_again
from lab.chaos.worker import SilentJournal
from tests.makers import LOSSES

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
QUESTION = ModelCall(
    tenant="bench",
    task_id="bench:B-1",
    stage="classify",
    turn=1,
    execution_id="e-1",
    prompt_version="p1",
    messages=(Message("user", "Hello"),),
)


class Model:
    """Gives the same answer to each question, and counts the questions."""

    calls = 0

    async def provider(self, _seconds: float) -> str:
        """Returns a constant."""
        return "conversation.openai"

    async def passes_tools(self, _provider: str) -> bool:
        """All do."""
        return True

    async def ask(self, _messages: tuple[Message, ...], _tools: tuple[ToolDefinition, ...]) -> Answer:
        """Returns a constant."""
        self.calls += 1
        return Answer(
            "answer",
            (),
            "stop",
            "sandbox-small",
            TokenUsage(input_tokens=300, cached_tokens=0, output_tokens=50, reasoning_tokens=0),
        )


class Clock:
    """A clock that advances one second with each reading."""

    def __init__(self) -> None:
        self._readings = 0

    def __call__(self) -> datetime:
        self._readings += 1
        return NOON + timedelta(seconds=self._readings)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An empty ledger."""
    engine = database.connect(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield engine
    engine.dispose()


def ask_twice(engine: Engine, kind: type[Journal]) -> int:
    """Executes one step twice in sequence, and returns the number of model calls."""
    writer, model = Writer(engine), Model()
    gateway = LLMGateway(ModelComponent("llm", model), kind(writer, "w-1", Clock(), LOSSES))
    try:
        for _ in range(2):
            assert asyncio.run(gateway.ask(QUESTION)).answer.text == "answer"
    finally:
        writer.close()
    return model.calls


def test_the_journal_answers_the_second_time_and_the_silent_one_does_not(engine: Engine) -> None:
    assert ask_twice(engine, Journal) == 1
    assert find_paid_again(LedgerQueries(engine).calls()) == ()


def test_a_call_that_is_paid_again_is_in_the_journal_with_its_usage(engine: Engine) -> None:
    assert ask_twice(engine, SilentJournal) == 2
    first, second = LedgerQueries(engine).calls()
    assert (first.state, second.state) == (CallState.SETTLED, CallState.INTERRUPTED)
    with engine.connect() as connection:
        assert connection.execute(select(MODEL_CALLS.c.number)).scalars().all() == [1, 2]
    assert second.usage == first.usage
    assert find_paid_again((first, second)) == (second,)


def test_only_the_journal_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    before, served = dict(vars(bootstrap)), {}
    monkeypatch.setattr(bootstrap, "serve", lambda _: served.update(vars(bootstrap)))
    monkeypatch.setattr(bootstrap, "Journal", Journal)  # what `main` changes is put back afterwards
    worker.main()
    changed = {name for name, part in served.items() if before[name] is not part}
    assert changed == {"serve", "Journal"}
    assert served["Journal"] is SilentJournal
