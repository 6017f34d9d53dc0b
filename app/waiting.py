"""The wait for a person, and what it settles. A person may overrule the policy, never the books."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from app.books import Account, Order
from app.models import (
    AccountFigures,
    Category,
    DecisionState,
    Figures,
    Frozen,
    OrderFigures,
    Outcome,
    Progress,
    Refund,
    TaskStatus,
)
from app.stages import guards
from app.stages.lookups import OrderInput, OrderOutput
from app.steps import Steps, TaskInput

Value = TypeVar("Value", bound=Frozen)


@dataclass(frozen=True)
class Settlement:
    """How a ticket ends. `by` is the person who decided; `reply_digest` the model's letter where it still fits."""

    outcome: Outcome
    refund: Refund | None = None
    by: str | None = None
    reply_digest: str | None = None


def decided(
    steps: Steps,
    task: TaskInput,
    category: Category | None,
    reason: str,
    proposed: Refund | None,
    order: Order | None = None,
    account: Account | None = None,
) -> Generator[Any, Any, Settlement]:
    """Waits until a person rejects, approves what the books allow, or the time limit is over. `order` and `account` are
    what the books said of them last, for the person."""
    while True:
        asked = Progress(status=TaskStatus.WAITING, reason=reason, category=category, refund=proposed)
        decision = yield from steps.decision(asked, _known(task, proposed, order, account))
        if decision is None:
            return Settlement(Outcome.EXPIRED)
        if decision.verdict == "reject":
            steps.settle(decision, DecisionState.ACCEPTED)
            steps.show(None)
            return Settlement(Outcome.REJECTED, by=decision.by)
        refund = decision.refund or proposed
        found = (yield from _looked_up(steps, task, refund)) if refund else None
        refusal = guards.refusal(refund, found) if refund else "refund_missing"
        if refusal is None:
            steps.settle(decision, DecisionState.ACCEPTED, refund=refund)
            steps.show(None)
            return Settlement(Outcome.REFUNDED, refund, by=decision.by)
        left = {"most": found.refundable, "currency": found.currency} if found else {}
        steps.settle(decision, DecisionState.REFUSED, refusal, refund=refund, **left)
        reason = refusal
        if found and (proposed is None or found.order_id == proposed.order_id):
            order = found


def _looked_up(steps: Steps, task: TaskInput, refund: Refund) -> Generator[Any, Any, Order | None]:
    """Looks the order up afresh: it may have been refunded while the task waited."""
    question = OrderInput(tenant=task.tenant, customer_id=task.customer_id, order_id=refund.order_id)
    return (yield from steps.run("lookup_order", question, OrderOutput)).order


def _known(task: TaskInput, proposed: Refund | None, order: Order | None, account: Account | None) -> Figures:
    """What the person is told, in figures."""
    return Figures(
        limit=task.rules.limit(proposed.currency) if proposed else None,
        order=_some(OrderFigures, order) if order else None,
        account=_some(AccountFigures, account) if account else None,
    )


def _some(model: type[Value], whole: Frozen) -> Value:
    """The fields of `whole` that `model` has."""
    return model.model_validate(whole.model_dump(include=set(model.model_fields)))
