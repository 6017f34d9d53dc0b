"""Which kinds of task are worked, how many of each, and at which rates they are killed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.crash_cost import jobs
from lab.crash_cost.jobs import Job

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
        return jobs.mailboxes(seed, self.tasks, self.steps) if self.steps else jobs.tickets(seed, self.tasks)


def tickets(tasks: int, rates: Sequence[float]) -> Load:
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
