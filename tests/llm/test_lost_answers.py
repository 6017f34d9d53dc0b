"""A step may lose few answers that were probably billed; what surely costs nothing is repeated for hours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from app.config.policy import Losses
from app.domain.errors import AnswersLost, FailureCause, ModelUnavailable
from app.domain.models import AnsweredBy
from app.ledger.store import database
from app.ledger.store.tables import MODEL_CALLS
from app.ledger.store.writer import Writer
from app.llm.conversation import Answer, Message, ToolDefinition
from app.llm.gateway import LLMGateway, ModelComponent
from app.llm.journal import Journal
from tests.llm.test_journal import NOON, Model, call

BILLED = [cause for cause in FailureCause if not cause.no_model_worked]
FREE = [cause for cause in FailureCause if cause.no_model_worked]
PAUSE = timedelta(seconds=60)


class Failing(Model):
    """Fails with this cause as long as there is one, and counts."""

    def __init__(self, cause: FailureCause | None) -> None:
        super().__init__()
        self.cause = cause
        self.asked = 0

    async def ask(self, messages: tuple[Message, ...], tools: tuple[ToolDefinition, ...]) -> Answer:
        """One question."""
        self.asked += 1
        if self.cause is not None:
            raise ModelUnavailable("it failed", cause=self.cause)
        return await super().ask(messages, tools)


class World:
    """A gateway at a time of its own."""

    def __init__(self, writer: Writer, cause: FailureCause | None, billed_attempts: int = 3) -> None:
        self.now: datetime = NOON
        self.model = Failing(cause)
        losses = Losses(first_seconds=1, max_seconds=300, attempts=30, billed_attempts=billed_attempts)
        component = ModelComponent("llm", self.model, clock=count(step=100).__next__)  # no 429 is felt for long
        self.gateway = LLMGateway(component, Journal(writer, "w1", lambda: self.now, losses))

    def ask(self, step: str = "e1") -> str:
        """What comes of one attempt: the failure's class and text, or who answered."""
        try:
            return str(asyncio.run(self.gateway.ask(call(execution_id=step))).use.answered_by)
        except (AnswersLost, ModelUnavailable) as error:
            return f"{type(error).__name__}: {error}"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An empty ledger."""
    engine = database.connect(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield engine
    engine.dispose()


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    """Its writer."""
    writer = Writer(engine)
    yield writer
    writer.close()


@pytest.mark.parametrize("cause", BILLED)
def test_a_lost_answer_is_bought_three_times_and_no_more(writer: Writer, engine: Engine, cause: FailureCause) -> None:
    world = World(writer, cause)
    for _ in range(30):
        said = world.ask()
        world.now += timedelta(minutes=5)
    assert world.model.asked == 3
    assert said.startswith("AnswersLost: model component llm: 3 calls brought no result")
    assert f"the last: {cause.value.replace('_', ' ')})" in said
    assert "retries.billed_attempts" in said
    with engine.connect() as connection:
        assert len(connection.execute(select(MODEL_CALLS.c.call_id)).all()) == 3, "what was not asked has no row"
    world.model.cause = None
    assert world.ask("e2") == AnsweredBy.PROVIDER, "a step that a person lets go on counts anew"


@pytest.mark.parametrize("cause", FREE)
def test_what_costs_nothing_is_asked_as_long_as_the_workflow_likes(writer: Writer, cause: FailureCause) -> None:
    world = World(writer, cause)
    for _ in range(30):
        assert world.ask() == "ModelUnavailable: it failed"
    assert world.model.asked == 30
    world.model.cause = None
    assert world.ask() == AnsweredBy.PROVIDER


def test_after_the_second_loss_a_provider_gets_a_minute_to_come_back(writer: Writer) -> None:
    world = World(writer, FailureCause.CONNECTION_LOST)
    assert [world.ask(), world.ask()] == ["ModelUnavailable: it failed"] * 2, "the first repeat comes at once"
    lost = world.now
    for world.now in (lost, lost + PAUSE - timedelta(seconds=1)):
        assert "2 answers to this step were lost and probably billed; it is asked again later" in world.ask()
    assert world.model.asked == 2
    world.now, world.model.cause = lost + PAUSE, None
    assert world.ask() == AnsweredBy.PROVIDER


def test_free_failures_do_not_count_and_other_steps_have_their_own_bound(writer: Writer) -> None:
    world = World(writer, FailureCause.CONNECTION_LOST, billed_attempts=2)
    world.ask()
    world.model.cause = FailureCause.STATUS
    assert [world.ask() for _ in range(10)] == ["ModelUnavailable: it failed"] * 10
    world.model.cause = FailureCause.MALFORMED
    world.ask()
    assert "2 calls brought no result" in world.ask()
    assert world.ask("e2") == "ModelUnavailable: it failed"
