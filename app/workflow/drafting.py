"""The third stage: a model call a turn, tools between turns, at most as many turns as the rules allow. It ends with the
books holding the drafted money for the ticket, and the guards' word on it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

from app.domain.models import REFUNDABLE, Action, Category, Classification, Draft, Frozen, Refund
from app.domain.orders import Account, Exposure, Hold, Order, RefundPolicy
from app.workflow.activities import guards
from app.workflow.activities.draft_refund import DraftInput, DraftOutput, Lookup
from app.workflow.activities.hold_refund import HoldInput, HoldOutput
from app.workflow.activities.lookups import OrderInput, OrderOutput, PolicyInput, PolicyOutput
from app.workflow.activities.tools import ToolCall
from app.workflow.steps import Steps, TaskInput

# How much longer the books hold the money than a person may take to decide.
_HOURS_BEYOND = 24


@dataclass(frozen=True)
class Findings:
    """What is known when the ticket is settled. `person_needed` is why a person must decide, as a short code; `hold` is
    what the books keep for the ticket, `exposure` what they said beside it."""

    category: Category | None = None
    draft: Draft | None = None
    order: Order | None = None
    person_needed: str | None = None
    account: Account | None = None
    hold: Hold | None = None
    exposure: Exposure | None = None

    @property
    def refund(self) -> Refund | None:
        """The drafted refund, as it would be posted."""
        draft = self.draft
        if draft is None or draft.action is not Action.REFUND:
            return None
        if draft.order_id is None or not draft.amount or draft.currency is None:
            return None
        return Refund(order_id=draft.order_id, amount=draft.amount, currency=draft.currency)


def drafted(
    steps: Steps, task: TaskInput, classification: Classification, account: Account
) -> Generator[Any, Any, Findings]:
    """Drafts; the books hold the money; then the guards look at the draft with what the books say."""
    category = classification.category
    draft, lookups, problem = yield from _turns(steps, task, classification, account)
    if draft is None:
        return Findings(category, person_needed=problem, account=account)
    order, policy = _looked_at(category, draft, lookups)
    found = Findings(category, draft, order, account=account)
    if draft.action is Action.REFUND and draft.amount == 0:
        return replace(found, person_needed="no_amount")
    if found.refund is None:
        return replace(found, person_needed=guards.objection(draft, category, account, None, policy, task.rules))
    kept = yield from held(steps, task, found.refund)
    if kept.refusal is not None:
        order = order or (yield from looked_up(steps, task, found.refund.order_id))
        return replace(found, order=order, person_needed=guards.refused(kept.refusal))
    if policy is None and category in REFUNDABLE:
        terms = PolicyInput(tenant=task.tenant, category=category)
        policy = (yield from steps.run("lookup_refund_policy", terms, PolicyOutput)).policy
    return replace(
        found,
        order=kept.exposure.order if kept.exposure else order,
        person_needed=guards.objection(draft, category, account, kept.exposure, policy, task.rules),
        hold=kept.hold,
        exposure=kept.exposure,
    )


def held(steps: Steps, task: TaskInput, refund: Refund) -> Generator[Any, Any, HoldOutput]:
    """Asks the books to keep the money for this ticket until a person may have decided, and then some."""
    question = HoldInput(
        tenant=task.tenant,
        ticket_id=task.ticket_id,
        customer_id=task.customer_id,
        refund=refund,
        hours=task.rules.approval.time_limit_hours + _HOURS_BEYOND,
    )
    return (yield from steps.run("hold_refund", question, HoldOutput))


def looked_up(steps: Steps, task: TaskInput, order_id: str) -> Generator[Any, Any, Order | None]:
    """The order as the books know it now, without what is held for this ticket."""
    question = OrderInput(tenant=task.tenant, ticket_id=task.ticket_id, customer_id=task.customer_id, order_id=order_id)
    return (yield from steps.run("lookup_order", question, OrderOutput)).order


def _turns(
    steps: Steps, task: TaskInput, classification: Classification, account: Account
) -> Generator[Any, Any, tuple[Draft | None, tuple[Lookup, ...], str]]:
    lookups: tuple[Lookup, ...] = ()
    problem: str | None = None
    for turn in range(1, task.rules.drafting.max_turns + 1):
        question = DraftInput(
            task_id=task.task_id,
            turn=turn,
            category=classification.category,
            order_id=task.order_id or classification.order_id,
            account=account,
            lookups=lookups,
            problem=problem,
        )
        answer = yield from steps.run("draft_refund", question, DraftOutput)
        if answer.draft is not None:
            return answer.draft, lookups, ""
        if answer.problem is not None and problem is not None:
            return None, lookups, "draft_unusable"
        problem = answer.problem
        lookups += yield from _looked_up(steps, task, turn, answer.tool_calls)
    return None, lookups, "too_many_turns"


def _looked_up(
    steps: Steps, task: TaskInput, turn: int, calls: tuple[ToolCall, ...]
) -> Generator[Any, Any, tuple[Lookup, ...]]:
    """Calls the tools of one turn side by side; each is a step of its own."""
    if not calls:
        return ()
    results = yield from steps.run_all([_question(task, call) for call in calls])
    return tuple(_lookup(turn, call, result) for call, result in zip(calls, results, strict=True))


def _question(task: TaskInput, call: ToolCall) -> tuple[str, Frozen, type[Frozen]]:
    if call.tool == "lookup_order":
        order = OrderInput(
            tenant=task.tenant, ticket_id=task.ticket_id, customer_id=task.customer_id, order_id=call.argument
        )
        return call.tool, order, OrderOutput
    return call.tool, PolicyInput(tenant=task.tenant, category=Category(call.argument)), PolicyOutput


def _lookup(turn: int, call: ToolCall, result: Frozen) -> Lookup:
    if isinstance(result, OrderOutput):
        return Lookup(turn=turn, call=call, order=result.order, problem=result.problem)
    assert isinstance(result, PolicyOutput)  # noqa: S101 - the only other kind of question
    return Lookup(turn=turn, call=call, policy=result.policy, problem=result.problem)


def _looked_at(
    category: Category, draft: Draft, lookups: tuple[Lookup, ...]
) -> tuple[Order | None, RefundPolicy | None]:
    """The draft's order and the policy for it, from the turns in which the model asked for them."""
    order = next((each.order for each in lookups if each.order and each.order.order_id == draft.order_id), None)
    policy = next((each.policy for each in lookups if each.policy and each.policy.category is category), None)
    return order, policy
