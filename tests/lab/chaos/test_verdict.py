"""The verdict of the chaos test: a run without faults holds, and each fault is reported by its own check."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.domain.models import CallState
from lab.chaos.checks import count_unsaved_repeats, find_paid_again
from lab.chaos.evidence import Evidence, Execution, ObservedWorker, Restart
from lab.chaos.tokens import Excess
from lab.chaos.verdict import judge, resume_times
from tests.lab.chaos import evidence as samples
from tests.lab.chaos.breaks import (
    BREAKS,
    REFUND,
    add_call,
    add_interrupted_call,
    add_late_execution,
    first_call,
    first_step,
    repeat_call,
    with_books,
    with_step,
    with_task,
)
from tests.records import at


def broken(evidence: Evidence, **options: Any) -> dict[str, int]:
    """The counts of the checks that are not zero, by key."""
    verdict = judge(evidence, samples.evidence().bill, **options)
    assert verdict.held is not any(check.count for check in verdict.checks)
    return {check.key: check.count for check in verdict.broken}


def test_a_run_in_which_nothing_went_wrong_holds() -> None:
    verdict = judge(samples.evidence(), samples.evidence().bill)
    assert verdict.held, verdict.broken
    assert len(verdict.checks) == 21
    assert (verdict.tokens.billed, dict(verdict.tokens.excess)) == (verdict.tokens.clean, {})
    assert verdict.executions == sum(len(ticket.steps) for ticket in samples.TICKETS)


@pytest.mark.parametrize("fault", BREAKS)
def test_each_fault_is_reported_by_its_own_check(fault: str) -> None:
    breaks, expected = BREAKS[fault]
    counts = broken(breaks(samples.evidence()))
    assert counts.keys() == expected.keys(), counts
    assert all(counts[key] == count for key, count in expected.items() if count), counts


def test_a_restarted_task_may_have_fewer_steps_and_calls_but_no_others() -> None:
    """It uses what its first run did, and the calls of that run count as wasted."""
    restarted = replace(samples.evidence(), restarted_tasks=frozenset({REFUND.task_id}))
    fewer = with_step(restarted, completions=0)
    assert broken(fewer) == {}
    assert broken(replace(fewer, restarted_tasks=frozenset())).keys() == {"steps_other"}
    assert broken(with_step(restarted, name="close_case")).keys() == {"steps_other"}, "another step is not allowed"
    first = next(call for call in restarted.calls if call.task_id == REFUND.task_id)
    calls = tuple(replace(call, state=CallState.INTERRUPTED) if call is first else call for call in restarted.calls)
    assert broken(replace(restarted, calls=calls)) == {}
    assert "unnamed_tokens" in broken(replace(restarted, calls=calls, restarted_tasks=frozenset()))


def test_a_check_describes_what_it_counts() -> None:
    late = judge(add_late_execution(samples.evidence(), 2), samples.evidence().bill).check("steps_executed_again")
    assert REFUND.task_id in late.examples[0]
    assert "number 2" in late.examples[0]
    assert "worker w-2" in late.examples[0]


def test_a_lost_task_says_why() -> None:
    run = with_task(samples.evidence(), status="failed", outcome="", steps=(), problem="its history does not verify")
    (example,) = judge(run, samples.evidence().bill).check("tasks_lost").examples
    assert example == f"{REFUND.task_id}: failed without outcome, not completed refunded; its history does not verify"


def test_an_execution_before_the_result_was_saved_is_counted_separately() -> None:
    run = add_late_execution(samples.evidence(), -0.05)  # the result was there 0.1 s before it was saved
    assert broken(run) == {}
    assert count_unsaved_repeats(run) == 1
    assert judge(run, samples.evidence().bill).repeated == 1
    assert count_unsaved_repeats(samples.evidence()) == 0
    assert count_unsaved_repeats(add_late_execution(samples.evidence(), 1)) == 0, (
        "that is a completed step executed again"
    )


def test_a_call_lost_with_its_worker_is_excess_with_a_cause() -> None:
    run = add_interrupted_call(samples.evidence())
    verdict = judge(run, samples.evidence().bill)
    assert verdict.held, verdict.broken
    assert dict(verdict.tokens.excess_requests) == {Excess.INTERRUPTED: 1}
    assert verdict.tokens.excess[Excess.INTERRUPTED] == verdict.tokens.billed - verdict.tokens.clean > 0


def test_without_the_journal_an_answer_paid_again_is_counted_but_allowed() -> None:
    run = add_call(samples.evidence(), repeat_call(samples.evidence(), 1, state=CallState.INTERRUPTED))
    verdict = judge(run, samples.evidence().bill, journal=False)
    assert verdict.held, verdict.broken
    assert dict(verdict.tokens.excess_requests) == {Excess.PAID_AGAIN: 1}
    assert len(find_paid_again(run.calls)) == 1


def test_a_refused_request_that_was_not_billed_needs_no_cause() -> None:
    call = samples.evidence().calls[0]
    refused = samples.row(call, 99, billed=False, status=429, input_tokens=0, output_tokens=0, request_digest="other")
    run = replace(samples.evidence(), bill=[*samples.evidence().bill, refused])
    assert broken(run) == {}
    assert judge(run, samples.evidence().bill).tokens.requests == len(samples.evidence().bill)


def test_an_execution_that_the_journal_answers_is_counted_with_the_tokens_it_saved() -> None:
    saved = first_call(samples.evidence()).usage.input_tokens
    assert saved is not None
    run = add_late_execution(samples.evidence(), -0.05)
    assert judge(run, run.bill).journal_answers == (1, saved + 50)
    assert judge(samples.evidence(), samples.evidence().bill).journal_answers == (0, 0)
    assert judge(run, run.bill, journal=False).journal_answers == (0, 0), "then it was paid again"
    paid = add_call(run, repeat_call(run, 0.3, state=CallState.INTERRUPTED))
    assert judge(paid, run.bill).journal_answers == (1, saved + 50), "the settled call gives the tokens"
    before_the_answer = add_late_execution(samples.evidence(), -0.45)
    assert judge(before_the_answer, run.bill).journal_answers == (0, 0)


def test_two_executions_at_once_are_not_an_answer_paid_again() -> None:
    run = add_call(samples.evidence(), repeat_call(samples.evidence(), -0.25, state=CallState.INTERRUPTED))
    verdict = judge(run, samples.evidence().bill)
    assert verdict.held, verdict.broken
    assert dict(verdict.tokens.excess_requests) == {Excess.SECOND_EXECUTION: 1}


def test_a_new_worker_is_timed_until_its_first_step() -> None:
    step = first_step(samples.evidence())
    steps = (
        Execution(REFUND.task_id, step.execution_id, 1, 2, "w-2", at(105.5)),
        Execution(REFUND.task_id, step.execution_id, 1, 3, "w-2", at(109)),
    )
    workers = (ObservedWorker("w-1", at(0)), ObservedWorker("w-2", at(104)))
    restart = Restart("worker", at(100), at(101), at(105))
    run = replace(samples.evidence(), executions=steps, workers=workers, restarts=(restart,))
    (resume,) = resume_times(run)
    assert (resume.from_start, resume.from_record) == (4.5, 1.5)
    assert judge(run, samples.evidence().bill).resume_seconds == (4.5, 4.5)
    assert judge(run, samples.evidence().bill).killed["worker"] == 1
    assert resume_times(replace(run, restarts=(replace(restart, alone=False),))) == ()
    assert resume_times(replace(run, restarts=(replace(restart, name="daprd"),))) == ()
    assert resume_times(replace(run, executions=())) == ()


def test_an_entry_without_a_ticket_is_wrong() -> None:
    stranger = {"ticket_id": "B-99", "customer_id": "load-99", "text": "..."}
    run = with_books(samples.evidence(), notifications=[*samples.evidence().books.notifications, stranger])
    assert broken(run) == {"notifications_wrong": 1}
