"""The loop of the third stage: a model call a turn, tools between turns, at most as many turns as the rules allow."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from app.books import Account, Order, RefundPolicy
from app.models import REFUNDABLE, Action, Category, Classification, Draft, Frozen, Refund
from app.stages import guards
from app.stages.draft_refund import DraftInput, DraftOutput, Lookup
from app.stages.lookups import OrderInput, OrderOutput, PolicyInput, PolicyOutput
from app.stages.tools import ToolCall
from app.steps import Steps, TaskInput


@dataclass(frozen=True)
class Findings:
    """What is known when the ticket is settled. `person_needed` is why a person must decide, as a short code."""

    category: Category | None = None
    draft: Draft | None = None
    order: Order | None = None
    person_needed: str | None = None
    account: Account | None = None

    @property
    def refund(self) -> Refund | None:
        """The drafted refund, as it would be posted."""
        draft = self.draft
        if draft is None or draft.action is not Action.REFUND:
            return None
        if draft.order_id is None or draft.amount is None or draft.currency is None:
            return None
        return Refund(order_id=draft.order_id, amount=draft.amount, currency=draft.currency)


def drafted(
    steps: Steps, task: TaskInput, classification: Classification, account: Account
) -> Generator[Any, Any, Findings]:
    """Drafts, then lets the guards look at the draft with what our own books say."""
    category = classification.category
    draft, lookups, problem = yield from _turns(steps, task, classification, account)
    if draft is None:
        return Findings(category, person_needed=problem)
    order, policy = yield from _books(steps, task, category, draft, lookups)
    objection = guards.objection(draft, category, account, order, policy, task.rules)
    return Findings(category, draft, order, objection)


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
        order = OrderInput(tenant=task.tenant, customer_id=task.customer_id, order_id=call.argument)
        return call.tool, order, OrderOutput
    return call.tool, PolicyInput(tenant=task.tenant, category=Category(call.argument)), PolicyOutput


def _lookup(turn: int, call: ToolCall, result: Frozen) -> Lookup:
    if isinstance(result, OrderOutput):
        return Lookup(turn=turn, call=call, order=result.order, problem=result.problem)
    assert isinstance(result, PolicyOutput)  # noqa: S101 - the only other kind of question
    return Lookup(turn=turn, call=call, policy=result.policy, problem=result.problem)


def _books(
    steps: Steps, task: TaskInput, category: Category, draft: Draft, lookups: tuple[Lookup, ...]
) -> Generator[Any, Any, tuple[Order | None, RefundPolicy | None]]:
    """What the guards need: from the turns where the model asked for it, else asked now."""
    order = next((each.order for each in lookups if each.order and each.order.order_id == draft.order_id), None)
    policy = next((each.policy for each in lookups if each.policy and each.policy.category is category), None)
    if draft.action is not Action.REFUND or draft.order_id is None:
        return order, policy
    if order is None:
        question = OrderInput(tenant=task.tenant, customer_id=task.customer_id, order_id=draft.order_id)
        order = (yield from steps.run("lookup_order", question, OrderOutput)).order
    if policy is None and category in REFUNDABLE:
        terms = PolicyInput(tenant=task.tenant, category=category)
        policy = (yield from steps.run("lookup_refund_policy", terms, PolicyOutput)).policy
    return order, policy
