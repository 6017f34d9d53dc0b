"""The time line: a lane for each step, bars for attempts and model calls, bands for pauses."""

from __future__ import annotations

import pytest

from app.dapr.history.causes import Cause
from app.dapr.history.executions import Execution, ExecutionOutcome
from app.dapr.history.model import AttemptOutcome
from app.dapr.history.times import Span, TimePart
from app.domain.models import CallState
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import NOT_REPORTED
from app.web.pages.page_texts import record_digits
from app.web.pages.timeline import Timeline, make_timeline
from tests.records import at, attempt_record, call_record, calls, step_record, steps, task_record


def timeline_of(record: TaskRecord) -> Timeline:
    return make_timeline(record, record_digits(record))


def test_each_step_has_a_lane_with_its_bars() -> None:
    drawing = timeline_of(task_record())
    assert [lane.name for lane in drawing.lanes] == [f"{step.step} {step.name}" for step in steps()]
    assert [len(lane.calls) for lane in drawing.lanes] == [1, 0, 2, 0, 1, 0, 0]
    assert all(len(lane.attempts) == 1 for lane in drawing.lanes)
    assert [lane.top for lane in drawing.lanes] == [drawing.top + 42 * number for number in range(7)]


def test_bars_lie_inside_the_drawing_and_calls_inside_their_attempt() -> None:
    for lane in timeline_of(task_record()).lanes:
        (attempt,) = lane.attempts
        for bar in (attempt, *lane.calls):
            assert 0 <= bar.left < bar.left + bar.width <= 100.001
        for bar in lane.calls:
            assert attempt.left <= bar.left
            assert bar.left + bar.width <= attempt.left + attempt.width + 0.01


def test_an_interrupted_call_is_wasted_and_ends_at_the_steps_next_call() -> None:
    interrupted, settled = timeline_of(task_record()).lanes[2].calls
    assert (interrupted.wasted, settled.wasted) == (True, False)
    assert interrupted.left + interrupted.width == pytest.approx(settled.left, abs=0.01)


def test_very_short_work_is_still_visible() -> None:
    step = step_record(attempts=(attempt_record(69.999999, 0),))
    (lane,) = timeline_of(task_record(steps=(step,), calls=(), pauses=())).lanes
    assert lane.attempts[0].width >= 0.5
    assert lane.attempts[0].left + lane.attempts[0].width <= 100


def test_the_long_wait_is_a_break_with_its_length() -> None:
    (band,) = timeline_of(task_record()).bands
    assert band.shortened
    assert (band.label, band.row) == ("1 min 0 s", 0)
    assert band.hint.startswith("waiting for a person's decision, 12:00:07.400 to 12:01:07.400 UTC")
    assert band.hint.endswith("shortened")


def test_labels_of_pauses_near_to_each_other_are_written_below_each_other() -> None:
    pauses = tuple(Span(TimePart.BACK_OFF, at(10 + 20 * n), at(29 + 20 * n)) for n in range(5))
    bands = timeline_of(task_record(ended_at=at(110), pauses=pauses)).bands
    assert [band.row for band in bands][:3] == [0, 1, 2]
    assert len(bands) == 5


def test_a_step_that_still_runs_reaches_to_the_time_of_the_record() -> None:
    step = step_record(attempts=(attempt_record(5, ended_at=None, outcome=AttemptOutcome.OPEN),))
    call = call_record(
        "e-1",
        6,
        state=CallState.STARTED,
        ended_at=None,
        usage=NOT_REPORTED,
    )
    record = task_record(ended_at=None, projected_at=at(10), steps=(step,), calls=(call,), pauses=())
    (lane,) = timeline_of(record).lanes
    assert [(bar.left, bar.left + bar.width) for bar in (*lane.attempts, *lane.calls)] == [(50, 100), (60, 100)]
    assert lane.calls[0].state == "started"


def test_the_drawing_has_a_description() -> None:
    description = timeline_of(task_record()).description
    assert description.startswith(
        "7 steps in 1 min 10 s, 4 model calls, 1 of them wasted. Pauses: waiting for a person"
    )


def test_an_interrupted_execution_has_a_separate_bar_and_the_restart_is_a_pause() -> None:
    lost = Execution(1, "w-1", at(1.2), at(3), ExecutionOutcome.INTERRUPTED, Cause.WORKER_GONE)
    completed = Execution(2, "w-2", at(5), at(6), ExecutionOutcome.COMPLETED)
    step = step_record("draft_refund", attempts=(attempt_record(1, 5, executions=(lost, completed)),))
    pauses = (Span(TimePart.RESTART, at(3), at(5)),)
    drawing = timeline_of(task_record(steps=(step,), calls=(), pauses=pauses, ended_at=at(10)))
    first, second = drawing.lanes[0].attempts
    assert [(bar.state, bar.wasted) for bar in (first, second)] == [("interrupted", True), ("completed", False)]
    assert [first.left, first.width, second.left] == pytest.approx([12, 18, 50])
    assert drawing.bands[0].hint.startswith("waiting for the restart, ")


def test_a_call_that_was_lost_with_its_worker_ends_with_its_execution() -> None:
    lost = Execution(1, "w-1", at(1.2), at(3), ExecutionOutcome.INTERRUPTED, Cause.WORKER_GONE)
    completed = Execution(2, "w-2", at(5), at(6.2), ExecutionOutcome.COMPLETED)
    step = step_record("draft_refund", 3, attempts=(attempt_record(1.2, 5, executions=(lost, completed)),))
    drawing = timeline_of(task_record(steps=(step,), calls=calls()[1:3], pauses=(), ended_at=at(10)))
    interrupted, settled = drawing.lanes[0].calls
    assert [interrupted.left + interrupted.width, settled.left] == pytest.approx([30, 58])
