"""The process: five stages in order, and a durable wait where a person decides.

Deterministic: no I/O, no clock, no chance. `steps` holds what every step shares (slow retries, parking), `approval` the
wait for a person, `drafting` the loop of the third stage.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext

from app.domain.models import Action, Classification, Outcome, TaskOutput
from app.domain.orders import Account, Effects
from app.workflow.activities import guards
from app.workflow.activities.classify import ClassifyInput, ClassifyOutput
from app.workflow.activities.close_case import CloseInput, CloseOutput
from app.workflow.activities.notify_customer import NotifyInput, NotifyOutput
from app.workflow.activities.retrieve_account import AccountInput, AccountOutput
from app.workflow.approval import Settlement, decided
from app.workflow.drafting import Findings, drafted
from app.workflow.steps import Steps, TaskInput

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
    orders = {each.order_id for each in findings.account.orders} if findings.account else set()
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
