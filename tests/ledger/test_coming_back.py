"""A frozen worker or sidecar continues after its task has ended: the record, although final, is made once more if any
of its sources changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from app.dapr.history.executions import GONE_AFTER, StartedExecution, losses_are_certain
from app.dapr.history.parse import parse
from app.domain.errors import FailureCause, ModelUnavailable, Unreachable
from app.ledger.recording import projector as projecting
from app.ledger.recording.projection import Written, project
from app.ledger.recording.sources import Sources
from app.ledger.store.tables import TICKETS
from app.ledger.store.tickets import Tickets
from app.ledger.store.writer import Writer
from app.llm.call import Reserve
from app.llm.conversation import Answer
from app.llm.journal import Journal, SettledCall
from app.pricing.charge_types import TokenUsage
from app.worker import execution_log
from app.worker.execution_log import Executions, Heartbeat, StepAttempt
from tests.dapr.history.told import Told, at
from tests.ledger.kit import NAMING
from tests.ledger.test_interruptions import history
from tests.ledger.test_texts import call
from tests.makers import LOSSES, ticket
from tests.records import price_book

TASK = "acme:T-1"
ANSWER = Answer("x", (), "stop", "m", TokenUsage(input_tokens=5, cached_tokens=0, output_tokens=5, reasoning_tokens=0))
USAGE = TokenUsage(input_tokens=5, cached_tokens=0, output_tokens=5, reasoning_tokens=0)


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    """A writer, and a task whose record is final."""
    opened = Writer(engine)
    Tickets(engine, opened, lambda: at(0)).accept(ticket())
    with engine.begin() as connection:
        connection.execute(update(TICKETS).values(recorded=True, started=True))
    yield opened
    opened.close()


def is_final(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.execute(select(TICKETS.c.recorded)).scalar_one())


def test_an_answer_that_comes_when_the_call_was_given_up_has_the_task_recorded_again(
    engine: Engine, writer: Writer
) -> None:
    asked = call()

    async def ask_twice() -> tuple[SettledCall, SettledCall]:
        frozen, other = (Journal(writer, name, lambda: at(0), LOSSES) for name in ("frozen", "other"))
        first = await frozen.begin(asked, "llm", "", Reserve(1, 1))
        second = await other.begin(asked, "llm", "", Reserve(1, 1))
        assert isinstance(first, str)
        assert isinstance(second, str)
        settled = await other.settle(second, asked, ANSWER, USAGE, "")
        assert is_final(engine), "who settles a call of his own changes nothing that is final"
        return settled, await frozen.settle(first, asked, replace(ANSWER, text="late"), USAGE, "")

    settled, late = asyncio.run(ask_twice())
    assert settled.answer.text == late.answer.text == "x"
    assert not is_final(engine)


@pytest.mark.parametrize("fails", [False, True])
def test_so_has_the_end_of_a_call_that_was_closed_because_its_worker_said_nothing(
    engine: Engine, writer: Writer, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    monkeypatch.setattr(execution_log, "BEAT_SECONDS", 3600.0)
    now, asked = [at(0)], call()
    living = Heartbeat(writer, lambda: now[0])
    living.begin()

    async def stand_still() -> None:
        journal = Journal(writer, "frozen", lambda: now[0], LOSSES)
        begun = await journal.begin(asked, "llm", "", Reserve(1, 1))
        assert isinstance(begun, str)
        assert living.beat() == 1
        assert is_final(engine)
        if fails:
            await journal.fail(begun, ModelUnavailable("cut", cause=FailureCause.CONNECTION_LOST), "")
        else:
            await journal.settle(begun, asked, ANSWER, USAGE, "")

    asyncio.run(stand_still())
    living.end()
    assert not is_final(engine)


def test_so_has_a_step_that_is_handed_out_once_more(engine: Engine, writer: Writer) -> None:
    async def work(name: str) -> None:
        async with Executions(writer, name, lambda: at(0)).start(StepAttempt(TASK, "k1", 1, "classify")):
            pass

    asyncio.run(work("w1"))
    assert is_final(engine)
    asyncio.run(work("w2"))
    assert not is_final(engine)


@pytest.mark.parametrize(("silent", "final"), [(GONE_AFTER - timedelta(seconds=1), True), (GONE_AFTER, False)])
def test_so_has_a_worker_that_was_taken_for_gone(
    engine: Engine, writer: Writer, monkeypatch: pytest.MonkeyPatch, silent: timedelta, *, final: bool
) -> None:
    monkeypatch.setattr(execution_log, "BEAT_SECONDS", 3600.0)
    now = [at(0)]
    frozen = Heartbeat(writer, lambda: now[0])
    frozen.begin()
    frozen.beat()

    async def work() -> None:
        async with Executions(writer, frozen.worker, lambda: now[0]).start(StepAttempt(TASK, "k1", 1, "classify")):
            pass

    asyncio.run(work())
    now[0] += silent
    frozen.beat()
    assert is_final(engine) is final
    frozen.end()


@pytest.mark.parametrize(
    ("changes", "later", "certain"),
    [
        ({"seen_at": at(8)}, 20, False),  # silent when the next one started; it may be frozen
        ({"seen_at": at(8)}, 38, True),  # gone
        ({"seen_at": at(9.5)}, 10, True),  # alive, but its work was given to another worker
        ({"seen_at": at(8), "stopped_at": at(8)}, 20, True),
        ({"seen_at": at(8), "lost_at": at(8)}, 20, True),
        ({}, 20, True),  # no row of it, and there never will be one
    ],
)
def test_a_record_is_final_when_it_is_certain_why_work_was_lost(
    changes: dict[str, datetime], later: float, *, certain: bool
) -> None:
    begun = [
        StartedExecution("k1", 1, 1, "w1", at(1.5), **changes),
        StartedExecution("k1", 1, 2, "w2", at(9), seen_at=at(10)),
    ]
    assert losses_are_certain(begun, at(later)) is certain
    assert losses_are_certain(begun[:1], at(later)), "the last one of an attempt is nobody's loss"
    run = parse(TASK, history().events)
    assert project(run, Written([], begun), price_book(), NAMING, at(later)).final is certain


def test_a_run_that_dapr_never_begins_is_woken(engine: Engine, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pending run is started once it is overdue, and again if that did not help or the sidecar was unreachable."""
    monkeypatch.setattr(projecting, "_PENDING_SECONDS", 0.0)
    woken: list[str] = []
    away = [True]

    def wake(task_id: str) -> None:
        if away:
            away.pop()
            raise Unreachable("the sidecar is away")
        woken.append(task_id)

    told = Told()
    sources = Sources(engine, lambda task_id: parse(task_id, told.events), price_book(), NAMING, lambda: at(90))
    projector = projecting.Projector(sources, writer, begin=wake)
    for _ in range(3):
        projector.record([TASK])
    assert woken == [TASK, TASK]
    assert projector.pending == 1
    told.turn(1).started(0, name="refund_ticket")
    projector.record([TASK])
    assert woken == [TASK, TASK]
    monkeypatch.setattr(projecting, "_PENDING_SECONDS", 3600.0)
    told.events.clear()
    projector.record([TASK])
    assert woken == [TASK, TASK], "one that is not overdue is left alone"
