"""The table below the time line: each charge is in exactly one line, and each line has all known facts."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal

import pytest

from app.dapr.history.causes import Cause
from app.dapr.history.executions import Execution, ExecutionOutcome
from app.dapr.history.model import AttemptOutcome
from app.domain.formatting import NOTHING
from app.domain.models import AnsweredBy, CallState
from app.finance.rollup import rollup
from app.ledger.store.task_record import TaskRecord
from app.web.pages.lines import StepLines, TableLine, make_lines
from app.web.pages.page_texts import record_digits
from tests.records import at, attempt_record, call_record, calls, step_record, steps, task_record


def lines_of(record: TaskRecord) -> tuple[StepLines, ...]:
    return make_lines(record, record_digits(record))


def all_lines(record: TaskRecord) -> list[TableLine]:
    return [line for step in lines_of(record) for line in step.lines]


def with_a_step_that_the_history_lost() -> TaskRecord:
    lost = step_record("draft_refund", 8, attempts=(), active=timedelta(0), writes=0)
    record = task_record()
    late = call_record("e-8", 6, stage="draft_refund")
    changed = task_record(
        steps=(*steps()[:-1], step_record("close_case", 7, 68.1), step_record("draft_refund", 8)),
        calls=(*calls(), late),
    )
    assert changed.charges != record.charges
    return task_record(steps=(*steps(), lost), calls=(*calls(), late), charges=changed.charges)


TRIES = (attempt_record(1, outcome=AttemptOutcome.FAILED), attempt_record(5, number=2))

RECORDS = {
    "a step that was tried twice": task_record(steps=(step_record("lookup_order", attempts=TRIES),), calls=()),
    "whole": task_record(),
    "without calls": task_record(calls=()),
    "calls that the journal lost": task_record(calls=(), charges=task_record().charges),
    "steps that the record lost": task_record(steps=steps()[:3], charges=task_record().charges),
    "a step that the history lost": with_a_step_that_the_history_lost(),
    "nothing charged": task_record(charges=()),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())
def test_every_charge_is_in_exactly_one_line(record: TaskRecord) -> None:
    shown = [charge for line in all_lines(record) for charge in line.charges]
    assert Counter(id(charge) for charge in shown) == Counter(id(charge) for charge in record.charges)


def test_a_step_that_the_history_lost_keeps_its_calls() -> None:
    step, call = lines_of(with_a_step_that_the_history_lost())[7].lines
    assert (step.kind, step.state, step.attempt) == ("step", "not in the history", "")
    assert (call.kind, call.call, call.attempt, call.money.lines) == ("call", "1.1", "", ("0.000458 USD",))


def test_the_lines_sum_to_the_task_to_the_last_digit() -> None:
    record = task_record()
    parts = [rollup(line.charges).total.money for line in all_lines(record)]
    total = sum((money.contracted_cost for part in parts for money in part), Decimal(0))
    assert total == rollup(record.charges).total.money[0].contracted_cost == Decimal("0.003700975")


def test_a_call_follows_its_attempt_with_all_known_facts() -> None:
    settled = all_lines(task_record())[1]
    assert (settled.kind, settled.call, settled.state) == ("call", "1.1", "settled")
    assert (settled.answered_by, settled.model) == ("provider", "sandbox-small")
    assert (settled.input, settled.cached, settled.output) == ("900", "100", "80")
    assert (settled.duration, settled.money.lines) == ("300 ms", ("0.000458 USD",))


def test_a_wasted_call_is_marked_and_estimated() -> None:
    interrupted = all_lines(task_record())[4]
    assert (interrupted.call, interrupted.state, interrupted.wasted) == ("1.1", "interrupted", True)
    assert (interrupted.input, interrupted.cached, interrupted.output) == ("~1,500", "?", "~1,000")
    assert (interrupted.answered_by, interrupted.duration) == (NOTHING, "~4.50 s")
    assert interrupted.money.lines == ("~0.002200 USD",)


def test_calls_follow_the_attempt_that_made_them() -> None:
    tries = (
        attempt_record(1, 1, outcome=AttemptOutcome.FAILED, error="ModelUnavailable: no answer"),
        attempt_record(5, 1, number=2),
    )
    call_records = (
        call_record("e-1", 1.2, state=CallState.FAILED, error="timeout: no answer"),
        call_record("e-1", 5.2, number=2),
    )
    lines = all_lines(task_record(steps=(step_record(attempts=tries),), calls=call_records))
    cells = [(line.attempt, line.call, line.state, line.error) for line in lines[:4]]
    assert cells == [
        ("1", "", "failed", "ModelUnavailable: no answer"),
        ("1", "1.1", "failed", "timeout: no answer"),
        ("2", "", "completed", ""),
        ("2", "1.2", "settled", ""),
    ]
    assert [line.failed for line in lines[:4]] == [True, True, False, False]


def test_an_answer_that_came_from_the_journal_says_so() -> None:
    step = step_record(answered_by=AnsweredBy.JOURNAL)
    lines = all_lines(task_record(steps=(step,), calls=(call_record(),)))
    assert lines[1].answered_by == "provider, then journal"


def test_an_interrupted_execution_is_described_in_its_attempts_line() -> None:
    lost = Execution(1, "w-1", at(1.2), at(3), ExecutionOutcome.INTERRUPTED, Cause.WORKER_GONE)
    completed = Execution(2, "w-2", at(5), at(6), ExecutionOutcome.COMPLETED)
    step = step_record("draft_refund", attempts=(attempt_record(1, 5, executions=(lost, completed)),))
    line = next(line for line in all_lines(task_record(steps=(step,), calls=())) if line.kind == "attempt")
    assert line.error == "execution 1 interrupted (worker gone), taken up again after 2.00 s"
