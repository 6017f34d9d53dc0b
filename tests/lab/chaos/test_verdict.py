"""The verdict of the chaos test: a good run holds, and each thing that goes wrong is found under its own name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.domain.models import CallState
from lab.chaos.checks import handed_out_twice, paid_again
from lab.chaos.evidence import Evidence, Execution, Restart, WorkerSeen
from lab.chaos.tokens import Excess
from lab.chaos.verdict import judge, resumed
from tests.lab.chaos import evidence as made
from tests.lab.chaos.breaks import (
    BREAKS,
    REFUND,
    again,
    begun_late,
    first_call,
    first_step,
    interrupted,
    repeated,
    with_books,
    with_step,
    with_task,
)
from tests.records import at


def broken(found: Evidence, **options: Any) -> dict[str, int]:
    """What the verdict finds, by its key."""
    verdict = judge(found, made.evidence().bill, **options)
    assert verdict.held is not any(check.count for check in verdict.checks)
    return {check.key: check.count for check in verdict.broken}


def test_a_run_in_which_nothing_went_wrong_holds() -> None:
    verdict = judge(made.evidence(), made.evidence().bill)
    assert verdict.held, verdict.broken
    assert len(verdict.checks) == 21
    assert (verdict.tokens.billed, dict(verdict.tokens.excess)) == (verdict.tokens.clean, {})
    assert verdict.executions == sum(len(each.steps) for each in made.TICKETS)


@pytest.mark.parametrize("what", BREAKS)
def test_each_thing_that_goes_wrong_is_found_under_its_name(what: str) -> None:
    breaks, expected = BREAKS[what]
    found = broken(breaks(made.evidence()))
    assert found.keys() == expected.keys(), found
    assert all(found[key] == count for key, count in expected.items() if count), found


def test_a_task_that_was_begun_again_may_be_left_with_fewer_steps_and_calls_and_no_others() -> None:
    """What its first run did is found, and the calls of that run are named as in vain."""
    again = replace(made.evidence(), begun_again=frozenset({REFUND.task_id}))
    fewer = with_step(again, completions=0)
    assert broken(fewer) == {}
    assert broken(replace(fewer, begun_again=frozenset())).keys() == {"steps_other"}
    assert broken(with_step(again, name="close_case")).keys() == {"steps_other"}, "another step is another step"
    first = next(call for call in again.calls if call.task_id == REFUND.task_id)
    spared = tuple(replace(each, state=CallState.INTERRUPTED) if each is first else each for each in again.calls)
    assert broken(replace(again, calls=spared)) == {}
    assert "unnamed_tokens" in broken(replace(again, calls=spared, begun_again=frozenset()))


def test_what_was_found_is_named() -> None:
    late = judge(begun_late(made.evidence(), 2), made.evidence().bill).check("steps_executed_again")
    assert REFUND.task_id in late.found[0]
    assert "number 2" in late.found[0]
    assert "worker w-2" in late.found[0]


def test_a_lost_task_says_why() -> None:
    found = with_task(made.evidence(), status="failed", outcome="", steps=(), problem="its history does not verify")
    (told,) = judge(found, made.evidence().bill).check("tasks_lost").found
    assert told == f"{REFUND.task_id}: failed without outcome, not completed refunded; its history does not verify"


def test_what_was_handed_out_before_its_result_was_saved_is_counted_apart() -> None:
    found = begun_late(made.evidence(), -0.05)  # the result was there 0.1 s before it was saved
    assert broken(found) == {}
    assert handed_out_twice(found) == 1
    assert judge(found, made.evidence().bill).repeated == 1
    assert handed_out_twice(made.evidence()) == 0
    assert handed_out_twice(begun_late(made.evidence(), 1)) == 0, "that is a completed step executed again"


def test_a_call_lost_with_its_worker_is_excess_with_a_name() -> None:
    found = interrupted(made.evidence())
    verdict = judge(found, made.evidence().bill)
    assert verdict.held, verdict.broken
    assert dict(verdict.tokens.excess_requests) == {Excess.INTERRUPTED: 1}
    assert verdict.tokens.excess[Excess.INTERRUPTED] == verdict.tokens.billed - verdict.tokens.clean > 0


def test_without_the_journal_an_answer_paid_again_is_counted_and_not_demanded() -> None:
    found = repeated(made.evidence(), again(made.evidence(), 1, state=CallState.INTERRUPTED))
    verdict = judge(found, made.evidence().bill, journal=False)
    assert verdict.held, verdict.broken
    assert dict(verdict.tokens.excess_requests) == {Excess.PAID_AGAIN: 1}
    assert len(paid_again(found.calls)) == 1


def test_a_request_that_was_refused_and_not_billed_is_nothing_to_explain() -> None:
    call = made.evidence().calls[0]
    refused = made.row(call, 99, billed=False, status=429, input_tokens=0, output_tokens=0, request_digest="other")
    found = replace(made.evidence(), bill=[*made.evidence().bill, refused])
    assert broken(found) == {}
    assert judge(found, made.evidence().bill).tokens.requests == len(made.evidence().bill)


def test_an_execution_that_finds_its_answer_in_the_journal_is_counted_with_what_it_saved() -> None:
    saved = first_call(made.evidence()).usage.input_tokens
    assert saved is not None
    found = begun_late(made.evidence(), -0.05)
    assert judge(found, found.bill).journal_answers == (1, saved + 50)
    assert judge(made.evidence(), made.evidence().bill).journal_answers == (0, 0)
    assert judge(found, found.bill, journal=False).journal_answers == (0, 0), "then it was paid again"
    paid = repeated(found, again(found, 0.3, state=CallState.INTERRUPTED))
    assert judge(paid, found.bill).journal_answers == (1, saved + 50), "what settled the step is what it had cost"
    before_the_answer = begun_late(made.evidence(), -0.45)
    assert judge(before_the_answer, found.bill).journal_answers == (0, 0)


def test_two_executions_at_once_are_not_an_answer_paid_again() -> None:
    found = repeated(made.evidence(), again(made.evidence(), -0.25, state=CallState.INTERRUPTED))
    verdict = judge(found, made.evidence().bill)
    assert verdict.held, verdict.broken
    assert dict(verdict.tokens.excess_requests) == {Excess.OVERTAKEN: 1}


def test_a_new_worker_is_timed_until_its_first_step() -> None:
    step = first_step(made.evidence())
    steps = (
        Execution(REFUND.task_id, step.execution_id, 1, 2, "w-2", at(105.5)),
        Execution(REFUND.task_id, step.execution_id, 1, 3, "w-2", at(109)),
    )
    workers = (WorkerSeen("w-1", at(0)), WorkerSeen("w-2", at(104)))
    dead = Restart("worker", at(100), at(101), at(105))
    found = replace(made.evidence(), executions=steps, workers=workers, restarts=(dead,))
    (seen,) = resumed(found)
    assert (seen.from_start, seen.from_record) == (4.5, 1.5)
    assert judge(found, made.evidence().bill).resume_seconds == (4.5, 4.5)
    assert judge(found, made.evidence().bill).killed["worker"] == 1
    assert resumed(replace(found, restarts=(replace(dead, alone=False),))) == ()
    assert resumed(replace(found, restarts=(replace(dead, name="daprd"),))) == ()
    assert resumed(replace(found, executions=())) == ()


def test_books_hold_nothing_of_nobody() -> None:
    stranger = {"ticket_id": "B-99", "customer_id": "load-99", "text": "..."}
    found = with_books(made.evidence(), notifications=[*made.evidence().books.notifications, stranger])
    assert broken(found) == {"notifications_wrong": 1}
