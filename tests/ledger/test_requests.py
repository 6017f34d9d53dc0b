"""The requests of steps: model calls that were sent to the provider, and repeated executions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, insert

from app.domain.errors import FailureCause, with_code
from app.domain.models import CallState
from app.ledger.reading.counting import RequestCounts, StepRequests, request_counts
from app.ledger.store.tables import EXECUTIONS
from app.pricing.charge_types import CallRecord
from tests.ledger.kit import Ledger
from tests.records import at, attempt_record, call_record, step_record, task_record

NOTHING = RequestCounts({}, {}, {}, {})


def failed(step: str, number: int, cause: FailureCause, seconds: float = 0.05, **changes: Any) -> CallRecord:
    """A failed model call."""
    times = {"started_at": at(number), "ended_at": at(number) + timedelta(seconds=seconds)}
    error = with_code(cause, "model component llm: it is asked again later")
    return call_record(step, number=number, state=CallState.FAILED, model="", error=error, **times | changes)


def execution(engine: Engine, step: str, event_id: int, number: int) -> None:
    """Writes a worker's start on an attempt."""
    row = {"task_id": "acme:T-1", "execution_id": step, "event_id": event_id, "number": number}
    row |= {"worker": "w-1", "started_at": at(number)}
    with engine.begin() as connection:
        connection.execute(insert(EXECUTIONS).values(row))


def test_an_empty_ledger_knows_nothing(engine: Engine) -> None:
    assert request_counts(engine) == NOTHING


def test_a_step_of_a_model_counts_what_left_for_the_provider(ledger: Ledger) -> None:
    ledger.journal(
        [
            call_record("e-1"),
            failed("e-2", 1, FailureCause.STATUS),
            failed("e-2", 2, FailureCause.NO_ANSWER_IN_TIME, 60, reserve_input=12_345),
            call_record("e-2", number=3, model="another"),
            failed("e-3", 1, FailureCause.BREAKER_OPEN),
            failed("e-3", 2, FailureCause.BREAKER_OPEN, seconds=1.1),
            failed("e-3", 3, FailureCause.SIDECAR_GONE),
            failed("e-4", 1, FailureCause.BREAKER_OPEN, component="spare"),
        ]
    )
    counts = request_counts(ledger.engine)
    assert counts.models == {
        "llm": StepRequests(steps=3, requests=1 + 3 + 1, most=3),
        "spare": StepRequests(steps=1, requests=0, most=0),
    }
    assert counts.reserves["llm"] == (12_345, 1_000)
    assert {model for _, model in counts.answered["llm"]} == {call_record().model, "another"}
    assert "spare" not in counts.answered


def test_each_turn_is_a_step_of_its_own(ledger: Ledger) -> None:
    ledger.journal([call_record("e-1"), call_record("e-1", turn=2, call_id="c-2")])
    assert request_counts(ledger.engine).models == {"llm": StepRequests(2, 2, 1)}


def test_other_steps_count_attempts_and_executions_that_did_not_end(ledger: Ledger) -> None:
    twice = (attempt_record(1, event_id=1), attempt_record(2, number=2, event_id=3))
    steps = (
        step_record("retrieve_account", 1, attempts=twice),
        step_record("lookup_order", 2, 3, attempts=(attempt_record(3, event_id=5),)),
        step_record("lookup_order", 3, 4, attempts=(attempt_record(4, event_id=7),)),
    )
    ledger.save(task_record(steps=steps, calls=(), charges=()))
    for step, event_id, number in (("e-1", 1, 1), ("e-1", 3, 1), ("e-2", 5, 1), ("e-2", 5, 2), ("e-2", 5, 3)):
        execution(ledger.engine, step, event_id, number)
    assert request_counts(ledger.engine).steps == {
        "retrieve_account": StepRequests(1, 2, 2),
        "lookup_order": StepRequests(steps=2, requests=4, most=3),
    }


def test_sums_of_kinds_of_steps() -> None:
    assert StepRequests(1, 5, 3) + StepRequests(2, 2, 1) == StepRequests(3, 7, 3)
