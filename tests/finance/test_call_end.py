"""The end of a call without a recorded end: the first event after its start that shows it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.finance.call_end import ExecutionTimes, StepTimes, call_end
from tests.records import at, call_record, interrupted_call

LOST = interrupted_call(start=5.0)
SECONDS = st.floats(0, 60).map(lambda seconds: round(seconds, 3))
EXECUTIONS = st.builds(
    lambda worker, began, lasted: ExecutionTimes(worker, at(began), None if lasted is None else at(began + lasted)),
    st.sampled_from(["w-1", "w-2"]),
    SECONDS,
    st.none() | SECONDS,
)
STEPS = st.builds(
    StepTimes,
    calls_started=st.lists(SECONDS.map(at)),
    executions=st.lists(EXECUTIONS),
    attempts_ended=st.lists(SECONDS.map(at)),
    task_ended_at=st.none() | SECONDS.map(at),
)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, None),
        ({"calls_started": [at(5)]}, None),  # its own start
        ({"calls_started": [at(5), at(31)]}, 31),
        ({"task_ended_at": at(70)}, 70),
        ({"attempts_ended": [at(2), at(40)]}, 40),
        ({"executions": [ExecutionTimes("w-1", at(4), None)]}, None),  # its worker may still be running it
        ({"executions": [ExecutionTimes("w-1", at(4), at(10))]}, 10),
        ({"executions": [ExecutionTimes("w-1", at(4), at(4.6))]}, None),  # a heartbeat before the call is ignored
        ({"executions": [ExecutionTimes("w-2", at(4), at(10))]}, None),  # another worker's
        ({"executions": [ExecutionTimes("w-1", at(1), at(8)), ExecutionTimes("w-1", at(4), None)]}, None),
        ({"executions": [ExecutionTimes("w-1", at(4), None), ExecutionTimes("w-2", at(9), None)]}, 9),
    ],
)
def test_the_first_known_event_is_the_end(known: dict[str, Any], expected: float | None) -> None:
    assert call_end(LOST, StepTimes(**{"calls_started": [LOST.started_at]} | known)) == (
        None if expected is None else at(expected)
    )


@given(STEPS)
def test_a_recorded_end_is_the_end(step: StepTimes) -> None:
    assert call_end(call_record(start=5), step) == at(5.3)
    behind = call_record(start=5, ended_at=at(4.9))  # the clock was set back meanwhile
    assert call_end(behind, step) == at(5)


@given(STEPS)
def test_an_end_is_never_before_the_start_and_more_knowledge_never_makes_it_later(step: StepTimes) -> None:
    end = call_end(LOST, step)
    assert end is None or end >= LOST.started_at
    less = [replace(step, calls_started=()), replace(step, attempts_ended=()), replace(step, task_ended_at=None)]
    for known in (call_end(LOST, variant) for variant in less):
        assert known is None or (end is not None and end <= known)
