"""Workflows that run in memory, without Dapr."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from app.domain.models import Category, Frozen
from lab.crash_cost import mailbox
from lab.crash_cost.in_memory import Memory, NeedsPerson, run
from lab.crash_cost.jobs import mailboxes
from tests.makers import USE, task

JOB = mailboxes(7, 1, 3)[0]


def test_a_mailbox_is_sorted_letter_by_letter_and_tallied() -> None:
    inputs: list[Any] = []

    async def sort_letter(context: Any, question: mailbox.LetterInput) -> Frozen:
        inputs.append((question.number, context.get_inner_context().task_execution_id))
        return mailbox.LetterOutput(category=Category.DAMAGED if question.number < 3 else None, use=USE)

    async def send_tally(_context: Any, question: mailbox.TallyInput) -> Frozen:
        inputs.append(question.counts)
        return mailbox.TallyOutput(notification_id="N-1")

    memory = Memory(JOB.task_id)
    process = mailbox.sort_mailbox(cast(Any, memory), mailbox.MailboxInput(job=JOB, rules=task().rules))
    result = asyncio.run(run(process, memory, {"sort_letter": sort_letter, "send_tally": send_tally}))
    assert result == {"counts": {"damaged": 2, "not_sorted": 1}, "notification_id": "N-1"}
    assert inputs == [
        *[(number, f"{JOB.task_id}/{number - 1}") for number in (1, 2, 3)],
        {"damaged": 2, "not_sorted": 1},
    ]


def test_a_failed_step_ends_the_workflow() -> None:
    async def sort_letter(_context: Any, _question: Any) -> Frozen:
        raise ConnectionError("gone")

    memory = Memory(JOB.task_id)
    process = mailbox.sort_mailbox(cast(Any, memory), mailbox.MailboxInput(job=JOB, rules=task().rules))
    with pytest.raises(ConnectionError, match="gone"):
        asyncio.run(run(process, memory, {"sort_letter": sort_letter}))


def test_a_wait_for_a_person_ends_the_workflow() -> None:
    memory = Memory("acme:T-1")
    with pytest.raises(NeedsPerson, match="acme:T-1 waits for decision"):
        memory.wait_for_external_event("decision", timeout=None)
