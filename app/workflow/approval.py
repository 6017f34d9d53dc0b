"""The wait for a person, and what it settles. A person may overrule the policy, never the books."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from app.domain.models import (
    AccountFigures,
    DecisionState,
    Figures,
    Frozen,
    OrderFigures,
    Outcome,
    Progress,
    Refund,
    TaskStatus,
)
from app.domain.orders import Order
from app.workflow.activities import guards
from app.workflow.drafting import Findings, held, looked_up
from app.workflow.steps import ANSWERED_BEFORE, Steps, TaskInput

Value = TypeVar("Value", bound=Frozen)
# A task that had a decision refused by version 0.1.0 got a new time limit with each; its history is replayed so.
_ONE_LIMIT = "one-time-limit"


@dataclass(frozen=True)
class Settlement:
    """How a ticket ends. `by` is the person who decided; `reply_digest` the model's letter where it still fits."""

    outcome: Outcome
    refund: Refund | None = None
    by: str | None = None
    reply_digest: str | None = None


def decided(
    steps: Steps, task: TaskInput, findings: Findings, reason: str, proposed: Refund | None
) -> Generator[Any, Any, Settlement]:
    """Waits until a person rejects, approves what the books accept, or the time limit is over: one limit, however many
    decisions are refused. What is approved is held by the books before anything else happens."""
    order, since = findings.order, steps.now()
    while True:
        asked = Progress(status=TaskStatus.WAITING, reason=reason, category=findings.category, refund=proposed)
        decision = yield from steps.decision(asked, _known(task, proposed, order, findings), since)
        if decision is None:
            return Settlement(Outcome.EXPIRED)
        if decision.verdict == "reject":
            steps.settle(decision, DecisionState.ACCEPTED, reason=reason)
            steps.show(None)
            return Settlement(Outcome.REJECTED, by=decision.by)
        refund = decision.refund or proposed
        refusal = "refund_missing"
        found: Order | None = None
        if refund is not None:
            kept = yield from held(steps, task, refund)
            if kept.hold is not None and kept.hold.refund != refund:  # another run of the ticket was faster
                steps.settle(decision, DecisionState.TOO_LATE, ANSWERED_BEFORE, refund=refund, reason=reason)
                steps.show(None)
                return Settlement(Outcome.REFUNDED, kept.hold.refund)
            if kept.refusal is None:
                steps.settle(decision, DecisionState.ACCEPTED, refund=refund, reason=reason)
                steps.show(None)
                return Settlement(Outcome.REFUNDED, refund, by=decision.by)
            refusal = guards.refused(kept.refusal)
            found = yield from looked_up(steps, task, refund.order_id)
        left = {"most": found.refundable, "currency": found.currency} if found else {}
        steps.settle(decision, DecisionState.REFUSED, refusal, refund=refund, reason=reason, **left)
        if not steps.patched(_ONE_LIMIT):
            since = steps.now()
        if refund == proposed or refusal not in guards.OF_THE_REFUND:
            reason = refusal  # another refund than the proposed one, when refused, leaves the task as it was
        if found and (proposed is None or found.order_id == proposed.order_id):
            order = found


def _known(task: TaskInput, proposed: Refund | None, order: Order | None, findings: Findings) -> Figures:
    """What the person is told, in figures."""
    account, exposure = findings.account, findings.exposure
    figures = account.model_dump() | (exposure.model_dump() if exposure else {}) if account else None
    return Figures(
        limit=task.rules.limit(proposed.currency) if proposed else None,
        order=_some(OrderFigures, order.model_dump()) if order else None,
        account=_some(AccountFigures, figures) if figures else None,
    )


def _some(model: type[Value], values: dict[str, Any]) -> Value:
    """The values that are fields of `model`."""
    return model.model_validate({name: value for name, value in values.items() if name in model.model_fields})
