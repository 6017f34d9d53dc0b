"""The workflow `refund_ticket`: the five stages of a ticket in order, from top to bottom of this file.

Dapr replays this code, so it is deterministic: no I/O, no clock, no randomness. Everything that acts on the world is an
activity (`app/workflow/activities/`, one file a stage); `Steps` runs an activity, retries it slowly, and parks the task
when retrying does not help. The wait for a person is at the end of the file.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dapr.ext.workflow import DaprWorkflowContext

from app.domain.models import (
    REFUNDABLE,
    AccountFigures,
    Action,
    Category,
    Classification,
    DecisionState,
    Draft,
    Figures,
    Frozen,
    OrderFigures,
    Outcome,
    Progress,
    Refund,
    TaskOutput,
    TaskStatus,
)
from app.domain.orders import Account, Effects, Exposure, Hold, Order
from app.workflow.activities import guards
from app.workflow.activities.classify import ClassifyInput, ClassifyOutput
from app.workflow.activities.close_case import CloseInput, CloseOutput
from app.workflow.activities.draft_refund import DraftInput, DraftOutput, HoldInput, HoldOutput, Lookup
from app.workflow.activities.notify_customer import NotifyInput, NotifyOutput
from app.workflow.activities.retrieve_account import AccountInput, AccountOutput
from app.workflow.activities.tools import OrderInput, OrderOutput, PolicyInput, PolicyOutput, ToolCall
from app.workflow.steps import ANSWERED_BEFORE, Steps, TaskInput

NAME = "refund_ticket"

Value = TypeVar("Value", bound=Frozen)

# The outcome that each proposal of the model asks for. The model's letter is sent only if the ticket ends that way.
_PROPOSED = {
    Action.REFUND: Outcome.REFUNDED,
    Action.DECLINE: Outcome.DECLINED,
    Action.ANSWER: Outcome.ANSWERED,
}
# The refund system holds the money this many hours longer than a person may take to decide.
_HOURS_BEYOND = 24
# Version 0.1.0 restarted the time limit after each refused decision. Histories from then are replayed that way.
_ONE_LIMIT = "one-time-limit"


@dataclass(frozen=True)
class Findings:
    """What is known when the ticket is settled. `person_needed` is the short code of why a person must decide, None
    when no person is needed. `hold` is the money that the refund system keeps for the ticket, `exposure` the order and
    the customer's recent refunds as they were at that moment."""

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


@dataclass(frozen=True)
class Settlement:
    """How a ticket ends. `by` is the person who decided; `reply_digest` names the model's letter, None where it does
    not fit the outcome."""

    outcome: Outcome
    refund: Refund | None = None
    by: str | None = None
    reply_digest: str | None = None


def refund_ticket(context: DaprWorkflowContext, task: TaskInput) -> Generator[Any, Any, dict[str, Any]]:
    """Works on one ticket until its case is closed. Returns a `TaskOutput` as JSON."""
    steps = Steps(context, task.rules)
    classification = yield from _classify(steps, task)
    account, earlier = yield from _retrieve_account(steps, task, task.again)
    settlement = adopt(earlier)
    if settlement is None:
        findings = yield from _draft_refund(steps, task, classification, account)
        settlement = yield from _settle(steps, task, findings)
    else:
        findings = Findings(classification.category if classification else None, account=account)
    settlement, refund_id = yield from _carry_out(steps, task, findings, settlement)
    output = TaskOutput(
        outcome=settlement.outcome,
        category=findings.category,
        refund=settlement.refund,
        refund_id=refund_id,
        decided_by=settlement.by,
        decisions=steps.decisions,
    )
    return output.model_dump(mode="json", exclude=None if output.decisions else {"decisions"})


def adopt(earlier: Effects) -> Settlement | None:
    """The settlement that an earlier run of the ticket has made final: a committed refund, or a letter that was sent.
    A run that starts over carries it out. None when no money is committed and the customer has no letter."""
    if earlier.hold is not None and earlier.hold.final:
        return Settlement(Outcome.REFUNDED, earlier.hold.refund)
    if earlier.told is not None:
        return Settlement(earlier.told.outcome, earlier.told.refund)
    return None


def _classify(steps: Steps, task: TaskInput) -> Generator[Any, Any, Classification | None]:
    """Stage 1, with one corrective turn. None when neither answer was usable."""
    problem = None
    for turn in (1, 2):
        question = ClassifyInput(task_id=task.task_id, turn=turn, problem=problem)
        answer = yield from steps.run("classify", question, ClassifyOutput)
        if answer.classification is not None:
            return answer.classification
        problem = answer.problem
    return None


def _retrieve_account(
    steps: Steps, task: TaskInput, again: bool
) -> Generator[Any, Any, tuple[Account | None, Effects]]:
    """Stage 2: the account, None for an unknown customer, and with `again` what earlier runs of the ticket did."""
    question = AccountInput(tenant=task.tenant, ticket_id=task.ticket_id, customer_id=task.customer_id, again=again)
    answer = yield from steps.run("retrieve_account", question, AccountOutput)
    return answer.account, answer.earlier


def _draft_refund(
    steps: Steps, task: TaskInput, classification: Classification | None, account: Account | None
) -> Generator[Any, Any, Findings]:
    """Stage 3: the model drafts, the refund system holds the drafted money, and the guards check the draft against what
    the refund system knows. Skipped when stage 1 or 2 already needs a person."""
    if classification is None:
        return Findings(person_needed="classification_unusable")
    category = classification.category
    if account is None:
        return Findings(category, person_needed="account_unknown")
    draft, lookups, problem = yield from _ask_for_draft(steps, task, classification, account)
    if draft is None:
        return Findings(category, person_needed=problem, account=account)
    order = next((lookup.order for lookup in lookups if lookup.order and lookup.order.order_id == draft.order_id), None)
    policy = next((lookup.policy for lookup in lookups if lookup.policy and lookup.policy.category is category), None)
    findings = Findings(category, draft, order, account=account)
    if draft.action is Action.REFUND and draft.amount == 0:
        return replace(findings, person_needed="no_amount")
    if findings.refund is None:
        return replace(findings, person_needed=guards.objection(draft, category, account, None, policy, task.rules))
    answer = yield from _hold(steps, task, findings.refund)
    if answer.refusal is not None:
        order = order or (yield from _look_up_order(steps, task, findings.refund.order_id))
        return replace(findings, order=order, person_needed=guards.reason_of(answer.refusal))
    if policy is None and category in REFUNDABLE:
        terms = PolicyInput(tenant=task.tenant, category=category)
        policy = (yield from steps.run("lookup_refund_policy", terms, PolicyOutput)).policy
    return replace(
        findings,
        order=answer.exposure.order if answer.exposure else order,
        person_needed=guards.objection(draft, category, account, answer.exposure, policy, task.rules),
        hold=answer.hold,
        exposure=answer.exposure,
    )


def _ask_for_draft(
    steps: Steps, task: TaskInput, classification: Classification, account: Account
) -> Generator[Any, Any, tuple[Draft | None, tuple[Lookup, ...], str]]:
    """One model call a turn, its tools between turns. Returns the draft and what the tools found; without a draft, the
    code of why: two unusable answers, or more turns than the rules allow."""
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
        if answer.tool_calls:
            results = yield from steps.run_all([_tool_step(task, call) for call in answer.tool_calls])
            lookups += tuple(
                _lookup(turn, call, result) for call, result in zip(answer.tool_calls, results, strict=True)
            )
    return None, lookups, "too_many_turns"


def _tool_step(task: TaskInput, call: ToolCall) -> tuple[str, Frozen, type[Frozen]]:
    """The step that executes a tool call: its name, input and type of output."""
    if call.tool == "lookup_order":
        order = OrderInput(
            tenant=task.tenant, ticket_id=task.ticket_id, customer_id=task.customer_id, order_id=call.argument
        )
        return call.tool, order, OrderOutput
    return call.tool, PolicyInput(tenant=task.tenant, category=Category(call.argument)), PolicyOutput


def _lookup(turn: int, call: ToolCall, result: Frozen) -> Lookup:
    if isinstance(result, OrderOutput):
        return Lookup(turn=turn, call=call, order=result.order, problem=result.problem)
    assert isinstance(result, PolicyOutput)  # noqa: S101 - the only other type of output
    return Lookup(turn=turn, call=call, policy=result.policy, problem=result.problem)


def _hold(steps: Steps, task: TaskInput, refund: Refund) -> Generator[Any, Any, HoldOutput]:
    """Asks the refund system to hold the money for this ticket, a day longer than a person may take to decide."""
    question = HoldInput(
        tenant=task.tenant,
        ticket_id=task.ticket_id,
        customer_id=task.customer_id,
        refund=refund,
        hours=task.rules.approval.time_limit_hours + _HOURS_BEYOND,
    )
    return (yield from steps.run("hold_refund", question, HoldOutput))


def _look_up_order(steps: Steps, task: TaskInput, order_id: str) -> Generator[Any, Any, Order | None]:
    """The order as it is now, without what is held for this ticket."""
    question = OrderInput(tenant=task.tenant, ticket_id=task.ticket_id, customer_id=task.customer_id, order_id=order_id)
    return (yield from steps.run("lookup_order", question, OrderOutput)).order


def _settle(steps: Steps, task: TaskInput, findings: Findings) -> Generator[Any, Any, Settlement]:
    """The settlement that the model proposed if no guard objects, otherwise the one that a person decides."""
    draft, hold = findings.draft, findings.hold
    if hold is not None and hold.final and hold.refund != findings.refund:  # another run of the ticket committed first
        return Settlement(Outcome.REFUNDED, hold.refund)
    if draft is None or findings.person_needed is not None:
        proposed = guards.proposal(draft, findings.order)
        settlement = yield from _await_decision(steps, task, findings, findings.person_needed or "no_draft", proposed)
    else:
        settlement = Settlement(_PROPOSED[draft.action], findings.refund)
    if draft is None or settlement.refund != findings.refund or settlement.outcome != _PROPOSED.get(draft.action):
        return settlement
    return replace(settlement, reply_digest=draft.reply_digest)


def _carry_out(
    steps: Steps, task: TaskInput, findings: Findings, settlement: Settlement
) -> Generator[Any, Any, tuple[Settlement, str | None]]:
    """Stages 4 and 5. If the refund system refuses to commit the refund, the customer gets no letter and the ticket
    goes back to a person. Returns the settlement that was carried out, and the posted refund's id."""
    while True:
        notice = yield from steps.run("notify_customer", _notice(task, findings, settlement), NotifyOutput)
        if notice.refusal is None:
            break
        _, earlier = yield from _retrieve_account(steps, task, again=True)
        adopted = adopt(earlier)
        if adopted is not None and (adopted.outcome, adopted.refund) != (settlement.outcome, settlement.refund):
            settlement = adopted
            continue
        reason = guards.reason_of(notice.refusal)
        steps.overturn(reason)
        settlement = yield from _await_decision(steps, task, findings, reason, settlement.refund)
    if settlement.outcome is Outcome.EXPIRED:  # the case stays open with the support desk
        return settlement, None
    closing = CloseInput(
        tenant=task.tenant,
        ticket_id=task.ticket_id,
        customer_id=task.customer_id,
        outcome=settlement.outcome,
        refund=settlement.refund,
    )
    closed = yield from steps.run("close_case", closing, CloseOutput)
    return settlement, closed.refund_id


def _notice(task: TaskInput, findings: Findings, settlement: Settlement) -> NotifyInput:
    return NotifyInput(
        task_id=task.task_id,
        tenant=task.tenant,
        ticket_id=task.ticket_id,
        customer_id=task.customer_id,
        order_id=_order_of_customer(findings),
        outcome=settlement.outcome,
        refund=settlement.refund,
        reply_digest=settlement.reply_digest,
    )


def _order_of_customer(findings: Findings) -> str | None:
    """The order that the draft names; None unless the internal systems know it as this customer's."""
    orders = {order.order_id for order in findings.account.orders} if findings.account else set()
    if findings.order is not None:
        orders.add(findings.order.order_id)
    return findings.draft.order_id if findings.draft and findings.draft.order_id in orders else None


# The wait for a person, who may overrule the policy but not the refund system.


def _await_decision(
    steps: Steps, task: TaskInput, findings: Findings, reason: str, proposed: Refund | None
) -> Generator[Any, Any, Settlement]:
    """Waits until a person rejects, a person approves a refund that the refund system agrees to hold, or the time limit
    is over. `reason` is the short code of why a person is asked, `proposed` the refund that is shown. A refused
    decision does not extend the time limit."""
    order, since = findings.order, steps.now()
    while True:
        progress = Progress(status=TaskStatus.WAITING, reason=reason, category=findings.category, refund=proposed)
        decision = yield from steps.decision(progress, _figures(task, proposed, order, findings), since)
        if decision is None:
            return Settlement(Outcome.EXPIRED)
        if decision.verdict == "reject":
            steps.settle(decision, DecisionState.ACCEPTED, reason=reason)
            steps.show(None)
            return Settlement(Outcome.REJECTED, by=decision.by)
        refund = decision.refund or proposed
        refusal = "refund_missing"
        current: Order | None = None
        if refund is not None:
            answer = yield from _hold(steps, task, refund)
            if answer.hold is not None and answer.hold.refund != refund:  # another run of the ticket committed first
                steps.settle(decision, DecisionState.TOO_LATE, ANSWERED_BEFORE, refund=refund, reason=reason)
                steps.show(None)
                return Settlement(Outcome.REFUNDED, answer.hold.refund)
            if answer.refusal is None:
                steps.settle(decision, DecisionState.ACCEPTED, refund=refund, reason=reason)
                steps.show(None)
                return Settlement(Outcome.REFUNDED, refund, by=decision.by)
            refusal = guards.reason_of(answer.refusal)
            current = yield from _look_up_order(steps, task, refund.order_id)
        limits = {"most": current.refundable, "currency": current.currency} if current else {}
        steps.settle(decision, DecisionState.REFUSED, refusal, refund=refund, reason=reason, **limits)
        if not steps.patched(_ONE_LIMIT):
            since = steps.now()
        if refund == proposed or refusal not in guards.OF_THE_REFUND:
            reason = refusal  # the refusal of a refund that the person changed leaves the task's own reason
        if current and (proposed is None or current.order_id == proposed.order_id):
            order = current


def _figures(task: TaskInput, proposed: Refund | None, order: Order | None, findings: Findings) -> Figures:
    """The amounts and counts that the person is shown beside the question."""
    account, exposure = findings.account, findings.exposure
    figures = account.model_dump() | (exposure.model_dump() if exposure else {}) if account else None
    return Figures(
        limit=task.rules.limit(proposed.currency) if proposed else None,
        order=_pick_fields(OrderFigures, order.model_dump()) if order else None,
        account=_pick_fields(AccountFigures, figures) if figures else None,
    )


def _pick_fields(model: type[Value], values: dict[str, Any]) -> Value:
    """A `model` made of those values that are its fields."""
    return model.model_validate({name: value for name, value in values.items() if name in model.model_fields})
