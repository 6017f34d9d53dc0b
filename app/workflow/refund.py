"""The process: five stages in order, and a durable wait where a person decides.

Deterministic: no I/O, no clock, no chance. `steps` holds what every step shares (slow retries, parking). Here are the
wait for a person, the loop of the third stage, and the stages in order.
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
from app.domain.orders import Account, Effects, Exposure, Hold, Order, RefundPolicy
from app.workflow.activities import guards
from app.workflow.activities.classify import ClassifyInput, ClassifyOutput
from app.workflow.activities.close_case import CloseInput, CloseOutput
from app.workflow.activities.draft_refund import DraftInput, DraftOutput, HoldInput, HoldOutput, Lookup
from app.workflow.activities.notify_customer import NotifyInput, NotifyOutput
from app.workflow.activities.retrieve_account import AccountInput, AccountOutput
from app.workflow.activities.tools import OrderInput, OrderOutput, PolicyInput, PolicyOutput, ToolCall
from app.workflow.steps import ANSWERED_BEFORE, Steps, TaskInput

# The wait for a person, and what it settles. A person may overrule the policy, never the books.

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


# The third stage: a model call a turn, tools between turns, at most as many turns as the rules allow. It ends with the
# books holding the drafted money for the ticket, and the guards' word on it.

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
    order = next((lookup.order for lookup in lookups if lookup.order and lookup.order.order_id == draft.order_id), None)
    policy = next((lookup.policy for lookup in lookups if lookup.policy and lookup.policy.category is category), None)
    return order, policy


NAME = "refund_ticket"

# A letter that the model wrote is sent only where the ticket ends as the model proposed.
_PROPOSED = {
    Action.REFUND: Outcome.REFUNDED,
    Action.DECLINE: Outcome.DECLINED,
    Action.ANSWER: Outcome.ANSWERED,
}


def refund_ticket(context: DaprWorkflowContext, task: TaskInput) -> Generator[Any, Any, dict[str, Any]]:
    """One ticket, from its arrival to its closed case."""
    steps = Steps(context, task.rules)
    classification = yield from _classified(steps, task)
    account, earlier = yield from _account(steps, task, task.again)
    settlement = adopted(earlier)
    if settlement is None:
        findings = yield from _findings(steps, task, classification, account)
        settlement = yield from _settled(steps, task, findings)
    else:
        findings = Findings(classification.category if classification else None, account=account)
    settlement, refund_id = yield from _carried_out(steps, task, findings, settlement)
    output = TaskOutput(
        outcome=settlement.outcome,
        category=findings.category,
        refund=settlement.refund,
        refund_id=refund_id,
        decided_by=settlement.by,
        decisions=steps.decisions,
    )
    return output.model_dump(mode="json", exclude=None if output.decisions else {"decisions"})


def adopted(earlier: Effects) -> Settlement | None:
    """How an earlier run of the ticket has settled it: that cannot be taken back, so a run that starts over carries it
    out. None when the customer was told nothing and no money is promised."""
    if earlier.hold is not None and earlier.hold.final:
        return Settlement(Outcome.REFUNDED, earlier.hold.refund)
    if earlier.told is not None:
        return Settlement(earlier.told.outcome, earlier.told.refund)
    return None


def _classified(steps: Steps, task: TaskInput) -> Generator[Any, Any, Classification | None]:
    """Stage 1, with one corrective turn; None when the model talks nonsense twice."""
    problem = None
    for turn in (1, 2):
        question = ClassifyInput(task_id=task.task_id, turn=turn, problem=problem)
        answer = yield from steps.run("classify", question, ClassifyOutput)
        if answer.classification is not None:
            return answer.classification
        problem = answer.problem
    return None


def _account(steps: Steps, task: TaskInput, again: bool) -> Generator[Any, Any, tuple[Account | None, Effects]]:
    """Stage 2; no account when the books know no such customer."""
    question = AccountInput(tenant=task.tenant, ticket_id=task.ticket_id, customer_id=task.customer_id, again=again)
    answer = yield from steps.run("retrieve_account", question, AccountOutput)
    return answer.account, answer.earlier


def _findings(
    steps: Steps, task: TaskInput, classification: Classification | None, account: Account | None
) -> Generator[Any, Any, Findings]:
    """Stage 3, unless what came before already needs a person."""
    if classification is None:
        return Findings(person_needed="classification_unusable")
    if account is None:
        return Findings(category=classification.category, person_needed="account_unknown")
    return replace((yield from drafted(steps, task, classification, account)), account=account)


def _settled(steps: Steps, task: TaskInput, findings: Findings) -> Generator[Any, Any, Settlement]:
    """As the model proposed where no guard objects; else as a person decides."""
    draft, hold = findings.draft, findings.hold
    if hold is not None and hold.final and hold.refund != findings.refund:  # another run of the ticket was faster
        return Settlement(Outcome.REFUNDED, hold.refund)
    if draft is None or findings.person_needed is not None:
        proposed = guards.proposed(draft, findings.order)
        settlement = yield from decided(steps, task, findings, findings.person_needed or "no_draft", proposed)
    else:
        settlement = Settlement(_PROPOSED[draft.action], findings.refund)
    if draft is None or settlement.refund != findings.refund or settlement.outcome != _PROPOSED.get(draft.action):
        return settlement
    return replace(settlement, reply_digest=draft.reply_digest)


def _carried_out(
    steps: Steps, task: TaskInput, findings: Findings, settlement: Settlement
) -> Generator[Any, Any, tuple[Settlement, str | None]]:
    """Stages 4 and 5. Books that refuse to commit the refund bring the ticket back to a person, untold."""
    while True:
        notice = yield from steps.run("notify_customer", _notice(task, findings, settlement), NotifyOutput)
        if notice.refusal is None:
            break
        _, earlier = yield from _account(steps, task, again=True)
        told = adopted(earlier)
        if told is not None and (told.outcome, told.refund) != (settlement.outcome, settlement.refund):
            settlement = told
            continue
        reason = guards.refused(notice.refusal)
        steps.overturn(reason)
        settlement = yield from decided(steps, task, findings, reason, settlement.refund)
    if settlement.outcome is Outcome.EXPIRED:  # the case stays open with the support desk
        return settlement, None
    closed = yield from steps.run("close_case", _closing(task, settlement), CloseOutput)
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
    """The order that the draft names, if the books know it as the customer's."""
    orders = {order.order_id for order in findings.account.orders} if findings.account else set()
    if findings.order is not None:
        orders.add(findings.order.order_id)
    return findings.draft.order_id if findings.draft and findings.draft.order_id in orders else None


def _closing(task: TaskInput, settlement: Settlement) -> CloseInput:
    return CloseInput(
        tenant=task.tenant,
        ticket_id=task.ticket_id,
        customer_id=task.customer_id,
        outcome=settlement.outcome,
        refund=settlement.refund,
    )
