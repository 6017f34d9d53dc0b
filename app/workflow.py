"""The process: five stages in order, and a durable wait where a person decides.

Deterministic: no I/O, no clock, no chance. `app/steps.py` holds what every step shares (slow retries, parking),
`app/waiting.py` the wait for a person, `app/drafting.py` the loop of the third stage.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext

from app.books import Account
from app.drafting import Findings, drafted
from app.models import Action, Classification, Outcome, TaskOutput
from app.stages import guards
from app.stages.classify import ClassifyInput, ClassifyOutput
from app.stages.close_case import CloseInput, CloseOutput
from app.stages.notify_customer import NotifyInput, NotifyOutput
from app.stages.retrieve_account import AccountInput, AccountOutput
from app.steps import Steps, TaskInput
from app.waiting import Settlement, decided

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
    account = yield from _account(steps, task)
    findings = yield from _findings(steps, task, classification, account)
    settlement = yield from _settled(steps, task, findings)
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


def _account(steps: Steps, task: TaskInput) -> Generator[Any, Any, Account | None]:
    """Stage 2; None when the books know no such customer."""
    question = AccountInput(tenant=task.tenant, customer_id=task.customer_id)
    answer = yield from steps.run("retrieve_account", question, AccountOutput)
    return answer.account


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
    draft = findings.draft
    if draft is None or findings.person_needed is not None:
        proposed = guards.proposed(draft, findings.order)
        reason = findings.person_needed or "no_draft"
        known = findings.order, findings.account
        settlement = yield from decided(steps, task, findings.category, reason, proposed, *known)
    else:
        settlement = Settlement(_PROPOSED[draft.action], findings.refund)
    if draft is None or settlement.refund != findings.refund or settlement.outcome != _PROPOSED.get(draft.action):
        return settlement
    return Settlement(settlement.outcome, settlement.refund, settlement.by, draft.reply_digest)


def _carried_out(
    steps: Steps, task: TaskInput, findings: Findings, settlement: Settlement
) -> Generator[Any, Any, tuple[Settlement, str | None]]:
    """Stages 4 and 5. Books that refuse the refund at the last moment bring the ticket back to a person."""
    while True:
        yield from steps.run("notify_customer", _notice(task, settlement), NotifyOutput)
        if settlement.outcome is Outcome.EXPIRED:  # the case stays open with the support desk
            return settlement, None
        closed = yield from steps.run("close_case", _closing(task, settlement), CloseOutput)
        if closed.refusal is None:
            return settlement, closed.refund_id
        reason = f"books_refuse_{closed.refusal}"
        steps.overturn(reason)
        known = findings.order, findings.account
        settlement = yield from decided(steps, task, findings.category, reason, settlement.refund, *known)


def _notice(task: TaskInput, settlement: Settlement) -> NotifyInput:
    return NotifyInput(
        task_id=task.task_id,
        tenant=task.tenant,
        ticket_id=task.ticket_id,
        customer_id=task.customer_id,
        outcome=settlement.outcome,
        refund=settlement.refund,
        reply_digest=settlement.reply_digest,
    )


def _closing(task: TaskInput, settlement: Settlement) -> CloseInput:
    return CloseInput(
        tenant=task.tenant,
        ticket_id=task.ticket_id,
        customer_id=task.customer_id,
        outcome=settlement.outcome,
        refund=settlement.refund,
    )
