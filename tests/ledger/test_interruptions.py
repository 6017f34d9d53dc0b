"""Work that was lost with its worker is in the record with its cause and cost, and is read back as it was saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, Engine, insert

from app.dapr.history.causes import Cause
from app.dapr.history.executions import StartedExecution
from app.dapr.history.parse import parse
from app.dapr.history.times import TimePart
from app.domain.models import CallState
from app.ledger.recording.failures import cause_of_call
from app.ledger.recording.projection import Written, project
from app.ledger.recording.sources import Sources
from app.ledger.store.tables import EXECUTIONS, WORKERS
from app.ledger.store.task_record import FailureKind, TaskRecord
from app.pricing.charge_types import NOT_REPORTED, Meter
from tests.dapr.history.told import Told, at
from tests.ledger.kit import NAMING, Ledger
from tests.records import call_record, price_book

TASK = "acme:T-1"
ASKED = '{"use": {"answered_by": "journal"}}'
WORKERS_SEEN = {"w1": (at(4), None), "w2": (at(100), None)}
# The first execution's worker was last seen at 4; another worker started the step again at 9.
LOST = [
    StartedExecution("k1", 1, 1, "w1", at(1.5), seen_at=at(4)),
    StartedExecution("k1", 1, 2, "w2", at(9), seen_at=at(100)),
]
AGAIN = [
    StartedExecution("k2", 2, 1, "w2", at(11.5), seen_at=at(100)),
    StartedExecution("k2", 5, 1, "w2", at(17), seen_at=at(100)),
]


def history() -> Told:
    """A model's step from 1 to 10 that was interrupted, and a tool's from 11 to 20 whose first attempt failed."""
    told = Told().turn(1).started(0, name="refund_ticket").scheduled(1, 1, "classify", "k1")
    told.turn(11).completed(10, 1, ASKED).scheduled(11, 2, "retrieve_account", "k2")
    told.turn(13).failed(12, 2, "SystemUnavailable", "accounts/get: status 500; it is tried again later")
    told.pauses(13, 3, due=16, key="k2").turn(16.5).fired(16, 3).scheduled(16.5, 5, "retrieve_account", "k2")
    return told.turn(21).completed(20, 5).ended(21)


def record(*begun: StartedExecution) -> TaskRecord:
    call = call_record(
        "k1", task_id=TASK, state=CallState.INTERRUPTED, usage=NOT_REPORTED, ended_at=None, started_at=at(2)
    )
    return project(parse(TASK, history().events), Written([call], begun), price_book(), NAMING, at(60))


def seconds(lengths: Sequence[timedelta]) -> list[float]:
    return [length.total_seconds() for length in lengths]


def test_what_was_lost_and_what_failed_is_named_with_its_cause() -> None:
    found = record(*LOST, *AGAIN)
    assert [(each.step, each.attempt, each.kind, each.cause, each.at, each.resumed_at) for each in found.failures] == [
        (1, 1, FailureKind.INTERRUPTED, Cause.WORKER_GONE, at(4), at(9)),
        (2, 1, FailureKind.FAILED, Cause.TOOL_ERROR, at(12), at(17)),
    ]
    assert found.workers == ("w1", "w2")


def test_waiting_for_the_restart_is_no_work() -> None:
    found = record(*LOST, *AGAIN)
    assert found.parts[TimePart.RESTART] == timedelta(seconds=5)
    assert [(span.started_at, span.ended_at) for span in found.pauses if span.part is TimePart.RESTART] == [
        (at(4), at(9))
    ]
    assert seconds([step.active for step in found.steps]) == [4, 4.5]
    assert seconds([step.lost for step in found.steps]) == [3, 1]
    assert record().parts[TimePart.ACTIVE] - found.parts[TimePart.ACTIVE] == timedelta(seconds=5)


def test_what_came_to_nothing_is_charged_as_rerun() -> None:
    charges = record(*LOST, *AGAIN).charges
    worked = {
        (each.step, each.wasted): each.consumed_quantity
        for each in charges
        if each.meter is Meter.COMPUTE and each.step
    }
    assert worked == {
        ("classify", False): Decimal(1),
        ("classify", True): Decimal(3),
        ("retrieve_account", False): Decimal("3.5"),
        ("retrieve_account", True): Decimal(1),
    }
    writes = {
        (each.step, each.wasted): each.consumed_quantity
        for each in charges
        if each.meter is Meter.STEP_WRITES and each.step
    }
    assert writes[("retrieve_account", True)] == writes[("retrieve_account", False)] == 2
    assert writes[("classify", True)] == 0, "an interrupted execution leaves nothing in the history"


def test_without_what_workers_wrote_ahead_nothing_is_made_up() -> None:
    found = record()
    assert [each.kind for each in found.failures] == [FailureKind.FAILED]
    assert (found.workers, found.parts.get(TimePart.RESTART)) == ((), None)
    assert seconds([step.lost for step in found.steps]) == [0, 1]


def test_it_is_read_as_it_was_saved(ledger: Ledger) -> None:
    saved = record(*LOST, *AGAIN)
    write(ledger.engine, [*LOST, *AGAIN])
    ledger.save(saved)
    read = ledger.records.record(TASK)
    assert (read.steps, read.failures, read.workers, read.pauses) == (
        saved.steps,
        saved.failures,
        saved.workers,
        saved.pauses,
    )


def test_the_sources_hold_what_was_written_ahead_with_what_is_known_of_the_workers(ledger: Ledger) -> None:
    write(ledger.engine, [*LOST, *AGAIN])
    sources = Sources(ledger.engine, lambda _: parse(TASK, history().events), price_book(), NAMING, lambda: at(60))
    assert sorted(sources.written([TASK])[TASK].begun, key=lambda each: each.started_at) == [*LOST, *AGAIN]


def write(engine: Engine, begun: Sequence[StartedExecution]) -> None:
    """Writes executions as workers do."""
    with engine.begin() as connection:
        connection.execute(insert(EXECUTIONS), [_row(each) for each in begun])
        _workers(connection)


def _row(each: StartedExecution) -> dict[str, object]:
    names = ("execution_id", "event_id", "number", "worker", "started_at", "lost_at")
    return {"task_id": TASK} | {name: getattr(each, name) for name in names}


def _workers(connection: Connection) -> None:
    rows: list[dict[str, datetime | str | None]] = [
        {"worker": name, "started_at": at(0), "seen_at": seen, "stopped_at": stopped}
        for name, (seen, stopped) in WORKERS_SEEN.items()
    ]
    connection.execute(insert(WORKERS), rows)


def test_a_call_that_came_to_nothing_has_the_cause_of_its_execution() -> None:
    found = record(*LOST, *AGAIN)
    (lost,) = found.calls
    theirs = replace(lost, worker="w1")
    assert cause_of_call(found, theirs) is Cause.WORKER_GONE
    assert cause_of_call(found, replace(theirs, worker="w9")) is Cause.UNKNOWN
    assert cause_of_call(found, replace(theirs, started_at=at(5))) is Cause.UNKNOWN, "the execution was lost before"
    limited = replace(theirs, state=CallState.FAILED, error="rate_limit: the provider answers with status 429")
    assert cause_of_call(found, limited) is Cause.RATE_LIMIT
    assert cause_of_call(found, replace(theirs, state=CallState.SETTLED)) is None
