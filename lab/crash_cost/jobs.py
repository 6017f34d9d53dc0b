"""The tasks of the experiment: sample tickets, and mailboxes with a given number of letters.

A job has the same name in all runs, so that its requests are the same to the byte. The id of its ticket differs, since
Dapr keeps earlier runs. `Job.mark` tells which request belongs to which job.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.models import Frozen, TaskStatus, Ticket
from app.domain.redaction import redact
from lab.crash_cost.trace import MODEL
from lab.tickets import TENANT, customer_id
from runtime.errors import UserError
from sandbox.data import load_expected, load_tickets

# Characters. Longer letters are shortened in prompts, and a few of them would make half of the bill.
_LONGEST, _SHORTEST = 2_000, 20
_WITH_TICKET_ID = ("cases", "refunds")


class Job(Frozen):
    """One task. `letters`: the indices of the sample tickets in a mailbox; empty for a refund ticket."""

    name: str
    ticket: Ticket
    letters: tuple[int, ...] = ()

    @property
    def task_id(self) -> str:
        """The workflow instance id."""
        return self.ticket.task_id

    def in_run(self, run: str) -> Job:
        """The same job with a ticket id for this run, which is unique over all tenants."""
        ticket_id = f"{self.ticket.ticket_id}-{self.ticket.tenant}-{run}"
        return self.model_copy(update={"ticket": self.ticket.model_copy(update={"ticket_id": ticket_id})})

    def mark(self, target: str, number: int) -> tuple[str, int]:
        """How to recognise the job's request `number` (from 1) to `target`: a text that only requests of this job have,
        and the number of its earlier requests that contain it."""
        if target == MODEL and self.letters:
            return letter_mark(self.name, number, len(self.letters)), 0
        if target == MODEL:
            return redact(self.ticket.text), number - 1
        return (self.ticket.ticket_id if target in _WITH_TICKET_ID else self.ticket.customer_id), number - 1


def letter_mark(job: str, number: int, of: int) -> str:
    """The first line of the prompt for a mailbox's letter."""
    return f"Mailbox: {job}, letter {number} of {of}"


def tickets(seed: int, count: int) -> tuple[Job, ...]:
    """Sample tickets whose tasks end without a person. Raises UserError if there are fewer than `count`."""
    expected = load_expected()
    suitable = [letter for letter in _letters() if expected[letter.task_id].status is TaskStatus.COMPLETED]
    if count > len(suitable):
        raise UserError(
            f"{count} tickets are too many.", remedy=f"There are {len(suitable)}; choose fewer with --tasks."
        )
    chosen = random.Random(f"{seed} tickets").sample(suitable, count)
    return tuple(Job(name=ticket.task_id, ticket=ticket) for ticket in chosen)


def mailboxes(seed: int, count: int, steps: int) -> tuple[Job, ...]:
    """Mailboxes of `steps` letters each. A letter may be in several mailboxes."""
    samples = load_tickets()
    suitable = [samples.index(letter) for letter in _letters()]
    chance = random.Random(f"{seed} mailboxes {steps}")
    return tuple(_mailbox(number, chance.sample(suitable, steps)) for number in range(1, count + 1))


def _letters() -> list[Ticket]:
    """Sample tickets of usual length whose text is not part of another's. Each has its own customer."""
    samples = load_tickets()
    texts = [ticket.text for ticket in samples]
    usual = [ticket for ticket in samples if _SHORTEST <= len(ticket.text) <= _LONGEST]
    return [ticket for ticket in usual if sum(ticket.text in text for text in texts) == 1]


def _mailbox(number: int, letters: Sequence[int]) -> Job:
    name = f"M{len(letters)}-{number:04d}"
    return Job(
        name=name,
        ticket=Ticket(
            tenant=TENANT,
            ticket_id=name,
            # A customer for each mailbox, by which its requests are recognised.
            customer_id=customer_id(len(letters) * 10_000 + number),
            text="Please sort my mailbox.",
        ),
        letters=tuple(letters),
    )


# The loads: kinds of task, their numbers, and the percentages of them that are killed.

STEPS = 47  # "a crash that re-ran forty-seven completed steps"
RATES = (5, 15, 30)
TASKS = 100
QUICK_RATES, QUICK_TASKS = (15, 30), 20
# A mailbox of 47 letters is as much work as twenty tickets, so there are fewer mailboxes.
_TICKETS_FOR_A_MAILBOX = 2.5
_LENGTHS, _TASKS_OF_A_LENGTH = (5, 10, 20), 15
_ALL = 100


@dataclass(frozen=True)
class Load:
    """One kind of task. steps: letters of a mailbox, 0 for tickets. rates: percentages of tasks that are killed once.
    after_model_calls: each task is killed after all its model calls instead."""

    name: str
    title: str
    steps: int
    tasks: int
    rates: tuple[float, ...]
    after_model_calls: bool = False

    def jobs(self, seed: int) -> tuple[Job, ...]:
        """The tasks of the load, chosen by the seed."""
        return mailboxes(seed, self.tasks, self.steps) if self.steps else tickets(seed, self.tasks)


def ticket_load(tasks: int, rates: Sequence[float]) -> Load:
    """The load of refund tickets."""
    return Load("tickets", "refund tickets", 0, tasks, tuple(rates))


def mailbox_loads(tasks: int, rates: Sequence[float], *, quick: bool) -> tuple[Load, ...]:
    """The loads of mailboxes: 47 letters at each rate, one crash after all 47, and, unless quick, other lengths."""
    count = max(1, round(tasks / _TICKETS_FOR_A_MAILBOX))
    long = Load(f"mailboxes_{STEPS}", f"mailboxes of {STEPS} letters", STEPS, count, tuple(rates))
    last = Load("after_step_47", f"one crash after {STEPS} completed steps", STEPS, 1, (_ALL,), after_model_calls=True)
    other_lengths = [
        Load(f"mailboxes_{steps}", f"mailboxes of {steps} letters", steps, _TASKS_OF_A_LENGTH, (_ALL,))
        for steps in _LENGTHS
    ]
    return (long, last, *([] if quick else other_lengths))
