"""The seed chooses the tasks, and each request can be attributed to its task."""

from __future__ import annotations

import pytest

from app.domain.redaction import redact
from lab.crash_cost import jobs
from lab.crash_cost.jobs import letter_mark, mailboxes, tickets
from lab.crash_cost.trace import MODEL
from runtime.errors import UserError
from sandbox.data import load_expected


def test_the_seed_chooses() -> None:
    assert tickets(7, 20) == tickets(7, 20) != tickets(8, 20)
    assert mailboxes(7, 2, 47) == mailboxes(7, 2, 47) != mailboxes(8, 2, 47)


def test_tickets_end_without_a_person() -> None:
    expected = load_expected()
    assert {expected[job.ticket.task_id].status.value for job in tickets(7, 100)} == {"completed"}


def test_names_are_unique() -> None:
    jobs = [*tickets(7, 100), *mailboxes(7, 40, 47), *mailboxes(7, 6, 5)]
    assert len({job.name for job in jobs}) == len({job.task_id for job in jobs}) == len(jobs)


def test_a_model_request_is_recognised_by_the_text_of_its_ticket() -> None:
    jobs = tickets(7, 100)
    for job in jobs:
        mark, skip = job.mark(MODEL, 2)
        assert skip == 1
        assert [other.name for other in jobs if mark in redact(other.ticket.text)] == [job.name]


@pytest.mark.parametrize("target", ["accounts", "orders", "notifications", "refunds", "cases"])
def test_a_system_request_is_recognised_by_customer_or_ticket(target: str) -> None:
    marks = [job.in_run("resume-5").mark(target, 1)[0] for job in (*tickets(7, 300), *mailboxes(7, 40, 47))]
    assert not [mark for mark in marks if sum(mark in other for other in marks) > 1]


def test_a_letter_is_recognised_by_its_first_line() -> None:
    job = mailboxes(7, 1, 47)[0]
    marks = [job.mark(MODEL, number) for number in range(1, 48)]
    assert marks[0] == (letter_mark(job.name, 1, 47), 0)
    assert not [mark for mark, _ in marks for other, _ in marks if mark != other and mark in other]


def test_another_run_has_other_ids_and_the_same_requests() -> None:
    job = tickets(7, 1)[0]
    again = job.in_run("resume-15")
    assert again.task_id == f"{job.task_id}-{job.ticket.tenant}-resume-15"
    assert (again.name, again.mark(MODEL, 1)) == (job.name, job.mark(MODEL, 1))
    assert again.mark("accounts", 1) == (job.ticket.customer_id, 0)
    assert again.mark("cases", 1) == (again.ticket.ticket_id, 0)


def test_too_many_tickets_are_an_error_with_a_remedy() -> None:
    with pytest.raises(UserError, match=r"10000 tickets are too many.*choose fewer"):
        tickets(7, 10_000)


def test_the_plan_has_the_crash_after_forty_seven_steps_and_is_shorter_when_quick() -> None:
    whole, quick = (jobs.mailbox_loads(100, (5, 15, 30), quick=quick) for quick in (False, True))
    assert [(load.steps, load.tasks, load.after_model_calls) for load in quick] == [(47, 40, False), (47, 1, True)]
    assert [load.steps for load in whole[2:]] == [5, 10, 20]
    assert whole[:2] == quick
    assert [len(job.letters) for job in whole[0].jobs(7)] == [47] * 40
