"""The tasks of the experiment: sample tickets as they are, and mailboxes of as many letters as wanted. Pure.

A job has one name in all runs, so that its requests are the same to the byte; its ticket's id differs from run to run,
since Dapr keeps the runs before. How a request is told to be a job's stands here too.
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

# Longer letters are shortened in prompts, and a handful of them would be half of the bill.
_LONGEST, _SHORTEST = 2_000, 20
_WITH_TICKET_ID = ("cases", "refunds")


class Job(Frozen):
    """One task. `letters`: which sample letters a mailbox holds; empty where the ticket itself is worked."""

    name: str
    ticket: Ticket
    letters: tuple[int, ...] = ()

    @property
    def task_id(self) -> str:
        """The workflow instance id."""
        return self.ticket.task_id

    def in_run(self, run: str) -> Job:
        """The same job under an id of its own, which no other tenant's ticket has either."""
        ticket_id = f"{self.ticket.ticket_id}-{self.ticket.tenant}-{run}"
        return self.model_copy(update={"ticket": self.ticket.model_copy(update={"ticket_id": ticket_id})})

    def mark(self, target: str, number: int) -> tuple[str, int]:
        """What the job's `number`-th request to `target` says that no other job's does, and how many requests of the
        job say it before."""
        if target == MODEL and self.letters:
            return letter_mark(self.name, number, len(self.letters)), 0
        if target == MODEL:
            return redact(self.ticket.text), number - 1
        return (self.ticket.ticket_id if target in _WITH_TICKET_ID else self.ticket.customer_id), number - 1


def letter_mark(job: str, number: int, of: int) -> str:
    """The line that a mailbox's prompt begins with."""
    return f"Mailbox: {job}, letter {number} of {of}"


def tickets(seed: int, count: int) -> tuple[Job, ...]:
    """Sample tickets that end without a person. Raises UserError when there are fewer."""
    expected = load_expected()
    fit = [letter for letter in _letters() if expected[letter.task_id].status is TaskStatus.COMPLETED]
    if count > len(fit):
        raise UserError(f"{count} tickets are too many.", remedy=f"There are {len(fit)}: choose fewer with --tasks.")
    chosen = random.Random(f"{seed} tickets").sample(fit, count)
    return tuple(Job(name=each.task_id, ticket=each) for each in chosen)


def mailboxes(seed: int, count: int, steps: int) -> tuple[Job, ...]:
    """Mailboxes of `steps` letters each; a letter may lie in several of them."""
    everything = load_tickets()
    fit = [everything.index(letter) for letter in _letters()]
    chance = random.Random(f"{seed} mailboxes {steps}")
    return tuple(_mailbox(number, chance.sample(fit, steps)) for number in range(1, count + 1))


def _letters() -> list[Ticket]:
    """Sample tickets of usual length whose text no other holds; each has a customer of its own."""
    everything = load_tickets()
    texts = [each.text for each in everything]
    usual = [each for each in everything if _SHORTEST <= len(each.text) <= _LONGEST]
    return [each for each in usual if sum(each.text in text for text in texts) == 1]


def _mailbox(number: int, letters: Sequence[int]) -> Job:
    name = f"M{len(letters)}-{number:04d}"
    return Job(
        name=name,
        ticket=Ticket(
            tenant=TENANT,
            ticket_id=name,
            # A customer for each mailbox of each length: its requests are recognised by it.
            customer_id=customer_id(len(letters) * 10_000 + number),
            text="Please sort my mailbox.",
        ),
        letters=tuple(letters),
    )


# Which kinds of task are worked, how many of each, and at which rates they are killed.

STEPS = 47  # "a crash that re-ran forty-seven completed steps"
RATES = (5, 15, 30)
TASKS = 100
QUICK_RATES, QUICK_TASKS = (15, 30), 20
# A mailbox of 47 letters is as much work as twenty tickets: fewer of them do.
_TICKETS_FOR_A_MAILBOX = 2.5
_LENGTHS, _TASKS_OF_A_LENGTH = (5, 10, 20), 15
_EACH = 100


@dataclass(frozen=True)
class Load:
    """One kind of task. `steps` is 0 for tickets. `rates`: per cent of the tasks that are killed once. `at_the_end`:
    one task is killed when all its model calls are done, instead."""

    name: str
    title: str
    steps: int
    tasks: int
    rates: tuple[float, ...]
    at_the_end: bool = False

    def jobs(self, seed: int) -> tuple[Job, ...]:
        """Its tasks, by the seed."""
        return mailboxes(seed, self.tasks, self.steps) if self.steps else tickets(seed, self.tasks)


def ticket_load(tasks: int, rates: Sequence[float]) -> Load:
    """The agent's own task."""
    return Load("tickets", "refund tickets", 0, tasks, tuple(rates))


def mailbox_loads(tasks: int, rates: Sequence[float], *, quick: bool) -> tuple[Load, ...]:
    """The long tasks: 47 steps at each rate, the one crash after all of them, and the lengths between."""
    many = max(1, round(tasks / _TICKETS_FOR_A_MAILBOX))
    long = Load(f"mailboxes_{STEPS}", f"mailboxes of {STEPS} letters", STEPS, many, tuple(rates))
    last = Load("after_step_47", f"one crash after {STEPS} completed steps", STEPS, 1, (_EACH,), at_the_end=True)
    between = [
        Load(f"mailboxes_{steps}", f"mailboxes of {steps} letters", steps, _TASKS_OF_A_LENGTH, (_EACH,))
        for steps in _LENGTHS
    ]
    return (long, last, *([] if quick else between))
