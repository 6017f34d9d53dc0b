"""Which step of the workflow asks whom, and how many such steps a task may have. Pure.

Each decision of a person has one more hold, and a look at the order where the books refuse it. A parked step that a
person resumes begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from app.config.policy import Retries, Rules

MODEL = ""  # in the place of a system's name: the model
CLASSIFY_TURNS = 2  # the second corrects the first
LOOKUPS_A_TURN = 4
# Each task's first pause is its own, up to this much longer.
_SPREAD = 2


@dataclass(frozen=True)
class StepCalls:
    """One kind of step. asks: the systems that it asks one after another in each attempt, or the model."""

    step: str
    asks: tuple[str, ...]
    per_task: int


def askings(rules: Rules) -> tuple[StepCalls, ...]:
    """All steps that ask anybody, at their most."""
    turns = rules.drafting.max_turns
    return (
        StepCalls("classify", (MODEL,), CLASSIFY_TURNS),
        StepCalls("retrieve_account", ("accounts", "cases"), 1),  # cases only where the ticket is worked again
        StepCalls("draft_refund", (MODEL,), turns),
        StepCalls("lookup_order", ("orders",), turns * LOOKUPS_A_TURN),
        StepCalls("lookup_refund_policy", ("policies",), turns * LOOKUPS_A_TURN),
        StepCalls("hold_refund", ("refunds",), 1),
        StepCalls("notify_customer", ("refunds", "notifications"), 1),
        StepCalls("close_case", ("refunds", "cases"), 1),
    )


def pauses(retries: Retries) -> timedelta:
    """All of the workflow's pauses between the attempts of one step, each at its longest."""
    first = retries.first_seconds * _SPREAD
    each = (min(first * 2**number, retries.max_seconds) for number in range(retries.attempts - 1))
    return timedelta(seconds=sum(each))
