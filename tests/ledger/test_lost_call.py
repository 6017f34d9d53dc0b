"""The end of a call whose worker was killed is the same in page, trace, command line, API and reconciliation."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, insert

from app.dapr.history.executions import StartedExecution
from app.dapr.history.parse import parse
from app.domain.models import CallState
from app.finance.reconciliation.bill import claims_of
from app.ledger.reading.comparing import known_ends
from app.ledger.reading.record_schemas import record_view
from app.ledger.recording.projection import Written, project
from app.ledger.store.tables import EXECUTIONS
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import NOT_REPORTED, CallRecord
from app.telemetry.spans import plan
from app.web.pages.lines import make_lines
from app.web.pages.page_texts import record_digits
from app.web.pages.timeline import make_timeline
from tests.dapr.history.told import at
from tests.ledger.kit import NAMING, Ledger
from tests.ledger.test_projection import ASKED, call, one_step
from tests.records import price_book

TASK = "acme:T-1"
# The worker started at 1.1 and called the model at 1.2; its last heartbeat was at 11.2. Another one resumed at 32.
LOST = call(
    start=1.2,
    ended_at=None,
    state=CallState.INTERRUPTED,
    usage=NOT_REPORTED,
    error="the step was executed again",
    worker="w1",
)
AGAIN = call(start=32.2, number=2, call_id="c-2", worker="w2")
BEGUN = [
    StartedExecution("k1", 1, 1, "w1", at(1.1), seen_at=at(11.2)),
    StartedExecution("k1", 1, 2, "w2", at(32), seen_at=at(90)),
]
TEN_SECONDS = timedelta(seconds=10)


@pytest.fixture
def ledger(sqlite_engine: Engine) -> Ledger:
    """A ledger with the task."""
    ledger = Ledger(sqlite_engine)
    ledger.journal([LOST, AGAIN])
    history = one_step()
    history.events.pop()
    run = parse(TASK, history.completed(33, 1, ASKED).turn(34).ended(34).events)
    ledger.save(project(run, Written([LOST, AGAIN], BEGUN), price_book(), NAMING, at(90)))
    rows = [
        {"task_id": TASK, "execution_id": each.execution_id, "event_id": each.event_id, "number": each.number}
        | {"worker": each.worker, "started_at": each.started_at}
        for each in BEGUN
    ]
    with ledger.engine.begin() as connection:
        connection.execute(insert(EXECUTIONS), rows)
    return ledger


@pytest.fixture
def record(ledger: Ledger) -> TaskRecord:
    return ledger.records.record(TASK)


def lost_of(record: TaskRecord) -> CallRecord:
    return next(call for call in record.calls if call.call_id == LOST.call_id)


def test_the_record_knows_when_it_was_over(record: TaskRecord) -> None:
    assert record.end_of(lost_of(record)) == LOST.started_at + TEN_SECONDS


def test_the_page_says_ten_seconds(record: TaskRecord) -> None:
    lines = [line for step in make_lines(record, record_digits(record)) for line in step.lines if line.kind == "call"]
    assert [line.duration for line in lines] == ["~10.0 s", "500 ms"]
    bar, _ = make_timeline(record, record_digits(record)).lanes[0].calls
    assert "(~10.0 s)" in bar.hint


def test_the_trace_says_ten_seconds(record: TaskRecord) -> None:
    span = next(span for span in plan(record) if span.attributes.get("refund_agent.call.end_known") is False)
    assert (span.end - span.start) / 1e9 == 10


def test_the_json_of_the_record_says_ten_seconds(record: TaskRecord) -> None:
    call = next(call for call in record_view(record).calls if call.call_id == LOST.call_id)
    assert call.ended_at is None
    assert call.over_at == LOST.started_at + TEN_SECONDS


def test_reconciliation_says_ten_seconds_and_adds_its_own_bound(ledger: Ledger) -> None:
    calls = ledger.records.calls()
    ends = known_ends(ledger.records, calls)
    assert ends == {LOST.call_id: LOST.started_at + TEN_SECONDS}
    claim, _ = claims_of(calls, ends)
    assert claim.until - claim.since == TEN_SECONDS + timedelta(seconds=2)
    # Without a record, the journal only shows that the call was over when the step called again.
    claim, _ = claims_of(calls)
    assert claim.until == AGAIN.started_at


def test_a_task_without_a_record_leaves_it_to_the_journal(ledger: Ledger) -> None:
    other = replace(LOST, call_id="c-9", task_id="acme:T-9", execution_id="k9")
    assert LOST.call_id in known_ends(ledger.records, [LOST, other])
    assert "c-9" not in known_ends(ledger.records, [LOST, other])
