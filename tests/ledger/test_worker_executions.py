"""The execution log: the row before each execution, and when a step is no longer executed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from app.domain.errors import AttemptAlreadyFailed, StepSetAside, Unreachable
from app.ledger.store.tables import EXECUTIONS, WORKERS
from app.ledger.store.writer import Writer
from app.worker import execution_log
from app.worker.execution_log import SET_ASIDE_AFTER, SUSPECT_AFTER, Executions, Heartbeat, StepAttempt

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
STEP = StepAttempt("acme:T-1", "e-1", 3, "draft_refund")


@pytest.fixture
def writer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    """The ledger's writer, without heartbeat threads: those of workers killed here would continue."""
    monkeypatch.setattr(execution_log, "BEAT_SECONDS", 3600.0)
    writer = Writer(engine)
    yield writer
    writer.close()


def worker(
    writer: Writer,
    clock: Callable[[], datetime] = lambda: NOON,
    *,
    stops: bool = False,
    completed: Callable[[StepAttempt], str | None] = lambda _: None,
    sidecar: str = "",
) -> Executions:
    """A new worker process, which either stops in order or is killed. `completed`: the results in Dapr's history."""
    heartbeat = Heartbeat(writer, clock, sidecar)
    heartbeat.begin()
    if stops:
        heartbeat.end()
    return Executions(writer, heartbeat.worker, clock, completed)


def rows(engine: Engine) -> list[dict[str, Any]]:
    """The rows of the execution log, in order."""
    with engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(select(EXECUTIONS).order_by(*EXECUTIONS.primary_key))]


async def work(executions: Executions, attempt: StepAttempt = STEP) -> None:
    async with executions.start(attempt):
        pass


def killed_at(writer: Writer, attempt: StepAttempt = STEP, *, times: int = 1, stops: bool = False) -> None:
    """Workers that started an attempt and were never seen again."""
    for _ in range(times):

        async def begin() -> None:
            entered = worker(writer, stops=stops).start(attempt)
            await entered.__aenter__()

        asyncio.run(begin())


def test_it_is_written_before_the_work_begins(engine: Engine, writer: Writer) -> None:
    async def story() -> None:
        async with worker(writer).start(STEP):
            (row,) = rows(engine)
            assert (row["task_id"], row["execution_id"], row["event_id"], row["number"]) == ("acme:T-1", "e-1", 3, 1)
            assert (row["started_at"], row["lost_at"]) == (NOON, None)

    asyncio.run(story())
    assert len(rows(engine)) == 1


def test_each_execution_of_an_attempt_has_a_number_and_another_attempt_its_own(engine: Engine, writer: Writer) -> None:
    again = StepAttempt(STEP.task_id, STEP.execution_id, 9, STEP.step)
    for attempt in (STEP, STEP, again):
        asyncio.run(work(worker(writer), attempt))
    assert [(row["event_id"], row["number"]) for row in rows(engine)] == [(3, 1), (3, 2), (9, 1)]


def test_the_history_is_asked_before_a_second_execution_and_a_result_leaves_nothing_to_work(
    engine: Engine, writer: Writer
) -> None:
    asked: list[StepAttempt] = []

    def completed(attempt: StepAttempt) -> str | None:
        asked.append(attempt)
        return '"refunded"' if len(asked) == 2 else None

    async def story() -> list[str | None]:
        found = []
        for _ in range(4):
            async with worker(writer, completed=completed).start(STEP) as result:
                found.append(result)
        return found

    assert asyncio.run(story()) == [None, None, '"refunded"', None]
    assert asked == [STEP] * 3, "not before the first one"
    assert [row["number"] for row in rows(engine)] == [1, 2, 3], "what was not worked was not begun"


def test_a_step_that_a_living_worker_beside_another_sidecar_is_at_is_waited_for(engine: Engine, writer: Writer) -> None:
    """When a worker joins, Dapr hands steps over to it, but the previous worker still delivers its result."""
    asked: list[StepAttempt] = []

    def completed(attempt: StepAttempt) -> str | None:
        asked.append(attempt)
        return '"refunded"' if len(asked) == 3 else None

    async def story() -> str | None:
        one, two = worker(writer, sidecar="one"), worker(writer, sidecar="two", completed=completed)
        async with one.start(STEP), two.start(STEP) as result:
            return result

    assert asyncio.run(story()) == '"refunded"'
    assert [row["number"] for row in rows(engine)] == [1], "what was not worked was not begun"


@pytest.mark.parametrize("why", ["silent", "stopped", "lost", "beside the same sidecar"])
def test_a_step_whose_worker_can_bring_no_result_is_not_waited_for(engine: Engine, writer: Writer, why: str) -> None:
    async def story() -> None:
        first = worker(writer, sidecar="one", stops=why == "stopped")
        async with first.start(STEP):
            if why == "lost":
                await first.lose()
            later = NOON + timedelta(seconds=4 if why == "silent" else 1)
            second = worker(writer, lambda: later, sidecar="one" if "same" in why else "two")
            async with asyncio.timeout(5), second.start(STEP) as result:
                assert result is None

    asyncio.run(story())
    assert [row["number"] for row in rows(engine)] == [1, 2]


def test_a_worker_that_lives_and_brings_nothing_is_not_waited_for_for_ever(
    engine: Engine, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution_log, "_WAIT_SECONDS", 0.1)

    async def story() -> None:
        async with worker(writer, sidecar="one").start(STEP), asyncio.timeout(5):
            await work(worker(writer, sidecar="two"))

    asyncio.run(story())
    assert [row["number"] for row in rows(engine)] == [1, 2]


def test_an_attempt_that_has_failed_elsewhere_is_not_begun_again(engine: Engine, writer: Writer) -> None:
    def over(_attempt: StepAttempt) -> str | None:
        raise AttemptAlreadyFailed("it has failed")

    asyncio.run(work(worker(writer)))
    with pytest.raises(AttemptAlreadyFailed):
        asyncio.run(work(worker(writer, completed=over)))
    assert [row["number"] for row in rows(engine)] == [1]


def test_a_history_that_cannot_be_read_holds_no_step_up(engine: Engine, writer: Writer) -> None:
    def away(_attempt: StepAttempt) -> str | None:
        raise Unreachable("the sidecar does not answer")

    for _ in range(2):
        asyncio.run(work(worker(writer, completed=away)))
    assert [row["number"] for row in rows(engine)] == [1, 2]


def test_what_runs_when_the_sidecar_goes_is_noted_as_lost(engine: Engine, writer: Writer) -> None:
    now = NOON

    async def story() -> None:
        nonlocal now
        executions = worker(writer, lambda: now)
        await work(executions, StepAttempt("acme:T-2", "e-2", 1, "classify"))
        async with executions.start(STEP):
            now += timedelta(seconds=2)
            await executions.lose()

    asyncio.run(story())
    assert {row["task_id"]: row["lost_at"] for row in rows(engine)} == {
        "acme:T-1": NOON + timedelta(seconds=2),
        "acme:T-2": None,
    }


def test_an_execution_that_nobody_waits_for_does_not_disturb_the_next_attempt(engine: Engine, writer: Writer) -> None:
    """The sidecar was lost, another execution failed the attempt, and the first execution is still running."""
    again = StepAttempt(STEP.task_id, STEP.execution_id, 9, STEP.step)

    async def story() -> None:
        executions = worker(writer)
        async with executions.start(STEP):
            await executions.lose()
            async with executions.start(again):
                pass
            await executions.lose()

    asyncio.run(story())
    assert [(row["event_id"], row["lost_at"]) for row in rows(engine)] == [(3, NOON), (9, None)]


def test_a_step_that_some_workers_died_at_is_begun_again(engine: Engine, writer: Writer) -> None:
    killed_at(writer, times=SET_ASIDE_AFTER - 1)
    asyncio.run(work(worker(writer)))
    assert len(rows(engine)) == SET_ASIDE_AFTER


def test_a_step_that_costs_every_worker_its_life_is_set_aside(engine: Engine, writer: Writer) -> None:
    killed_at(writer, times=SET_ASIDE_AFTER)
    with pytest.raises(StepSetAside, match=r"step draft_refund is set aside: 5 workers .* `task resume acme:T-1`"):
        asyncio.run(work(worker(writer)))
    assert len(rows(engine)) == SET_ASIDE_AFTER, "nobody began it again"


def test_after_a_resume_it_is_another_attempt_and_begun_afresh(writer: Writer) -> None:
    killed_at(writer, times=SET_ASIDE_AFTER)
    asyncio.run(work(worker(writer), StepAttempt(STEP.task_id, STEP.execution_id, 12, STEP.step)))


def test_workers_that_were_stopped_and_sidecars_that_went_prove_nothing(engine: Engine, writer: Writer) -> None:
    killed_at(writer, times=SET_ASIDE_AFTER, stops=True)
    executions = worker(writer)
    for _ in range(SET_ASIDE_AFTER):
        asyncio.run(work(executions))
    with engine.begin() as connection:
        connection.execute(update(WORKERS).values(stopped_at=None))
        connection.execute(update(EXECUTIONS).values(lost_at=NOON))
    asyncio.run(work(worker(writer)))


def test_suspects_are_worked_one_at_a_time_and_do_not_look_begun_before(engine: Engine, writer: Writer) -> None:
    others = [StepAttempt(f"acme:T-{number}", f"e-{number}", 1, "classify") for number in range(3)]
    for attempt in others:
        killed_at(writer, attempt, times=SUSPECT_AFTER)
    at_once: list[int] = []

    async def suspect(executions: Executions, attempt: StepAttempt) -> None:
        async with executions.start(attempt):
            at_once.append(sum(row["number"] > SUSPECT_AFTER for row in rows(engine)))
            await asyncio.sleep(0)

    async def story() -> None:
        executions = worker(writer)
        await asyncio.gather(*(suspect(executions, attempt) for attempt in others))

    asyncio.run(story())
    assert at_once == [1, 2, 3], "each was begun after the one before had ended"


def test_the_innocent_get_through_beside_one_that_kills(engine: Engine, writer: Writer) -> None:
    """Each worker starts all steps and dies when it executes the one that kills."""
    steps = {f"acme:T-{number}": StepAttempt(f"acme:T-{number}", f"e-{number}", 1, "classify") for number in range(6)}
    poison, done, aside, lives = "acme:T-3", set[str](), set[str](), 0

    async def one(executions: Executions, name: str, died: asyncio.Event) -> None:
        try:
            async with executions.start(steps[name]):
                if name == poison:
                    died.set()
                    await asyncio.Event().wait()
                await asyncio.sleep(0.05)  # so that the others take longer than the one that kills
                done.add(name)
        except StepSetAside:
            aside.add(name)

    async def life() -> None:
        died, executions = asyncio.Event(), worker(writer)
        left = [name for name in steps if name not in done | aside]
        running = [asyncio.ensure_future(one(executions, name, died)) for name in left]
        end = asyncio.ensure_future(died.wait())
        await asyncio.wait([end, asyncio.ensure_future(asyncio.wait(running))], return_when=asyncio.FIRST_COMPLETED)

    while len(done | aside) < len(steps):
        asyncio.run(life())
        lives += 1
        assert lives < 20
    assert (aside, len(done)) == ({poison}, 5)
    assert lives <= SET_ASIDE_AFTER + 2
