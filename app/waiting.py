"""The wait for a person, and what it settles. A person may overrule the policy, never the books."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from app.models import Category, Outcome, Progress, Refund, TaskStatus
from app.stages import guards
from app.stages.lookups import OrderInput, OrderOutput
from app.steps import Steps, TaskInput


@dataclass(frozen=True)
class Settlement:
    """How a ticket ends. `by` is the person who decided; `reply_digest` the model's letter where it still fits."""

    outcome: Outcome
    refund: Refund | None = None
    by: str | None = None
    reply_digest: str | None = None


def decided(
    steps: Steps, task: TaskInput, category: Category | None, reason: str, proposed: Refund | None
) -> Generator[Any, Any, Settlement]:
    """Waits until a person rejects, approves what the books allow, or the time limit is over."""
    while True:
        steps.show(Progress(status=TaskStatus.WAITING, reason=reason, category=category, refund=proposed))
        decision = yield from steps.decision()
        steps.show(None)
        if decision is None:
            return Settlement(Outcome.EXPIRED)
        if decision.verdict == "reject":
            return Settlement(Outcome.REJECTED, by=decision.by)
        refund = decision.refund or proposed
        refusal = (yield from _refused(steps, task, refund)) if refund else "refund_missing"
        if refusal is None:
            return Settlement(Outcome.REFUNDED, refund, by=decision.by)
        reason = refusal


def _refused(steps: Steps, task: TaskInput, refund: Refund) -> Generator[Any, Any, str | None]:
    """Looks the order up afresh: it may have been refunded while the task waited."""
    question = OrderInput(tenant=task.tenant, customer_id=task.customer_id, order_id=refund.order_id)
    found = yield from steps.run("lookup_order", question, OrderOutput)
    return guards.refusal(refund, found.order)
