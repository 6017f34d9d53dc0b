"""A workflow of many steps: sorts the letters of a mailbox, one model call each, and notifies its owner.

It runs on the product's packages. Its model calls go through the same gateway and journal, with the prompt of the
agent's first stage. The history has numbers and categories, no text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext, WorkflowActivityContext

from app.config.policy import Rules
from app.domain.models import Category, Classification, Frozen, ModelUse, Outcome, Ticket
from app.domain.redaction import redact
from app.llm.call import ModelCall
from app.llm.conversation import Message
from app.llm.json_answer import InvalidAnswer, json_object, validate
from app.workflow.activities import prompts
from app.workflow.activities.services import Activity, Services, execution_id
from app.workflow.steps import Steps
from lab.crash_cost.jobs import Job, letter_mark
from sandbox.data import load_tickets

NAME = "sort_mailbox"
Process = Generator[Any, Any, dict[str, Any]]


class MailboxInput(Frozen):
    """The input of the workflow."""

    job: Job
    rules: Rules


class LetterInput(Frozen):
    """The input of `sort_letter`. number: place in the mailbox, from 1; letter: index in the samples."""

    task_id: str
    tenant: str
    mailbox: str
    number: int
    of: int
    letter: int


class LetterOutput(Frozen):
    """The letter's category, or None if the model's answer was not usable."""

    category: Category | None
    use: ModelUse


class TallyInput(Frozen):
    """The number of letters by category."""

    tenant: str
    ticket_id: str
    customer_id: str
    counts: dict[str, int]


class TallyOutput(Frozen):
    """The id of the notice."""

    notification_id: str


def sort_mailbox(context: DaprWorkflowContext, task: MailboxInput) -> Process:
    """Sorts one mailbox, from the first letter to the notice."""
    steps = Steps(context, task.rules)
    job, ticket = task.job, task.job.ticket
    categories: Counter[str] = Counter()
    for number, letter in enumerate(job.letters, start=1):
        question = LetterInput(
            task_id=job.task_id,
            tenant=ticket.tenant,
            mailbox=job.name,
            number=number,
            of=len(job.letters),
            letter=letter,
        )
        letter_output = yield from steps.run("sort_letter", question, LetterOutput)
        categories[letter_output.category or "not_sorted"] += 1
    tally = TallyInput(
        tenant=ticket.tenant, ticket_id=ticket.ticket_id, customer_id=ticket.customer_id, counts=dict(categories)
    )
    notice = yield from steps.run("send_tally", tally, TallyOutput)
    return {"counts": tally.counts, "notification_id": notice.notification_id}


def sort_letter(services: Services) -> Activity:
    """Makes the step that sorts a letter with a model call."""
    letters = load_tickets()

    async def sort_letter(context: WorkflowActivityContext, question: LetterInput) -> LetterOutput:
        call = ModelCall(
            tenant=question.tenant,
            task_id=question.task_id,
            stage="sort_letter",
            turn=1,
            execution_id=execution_id(context),
            prompt_version=prompts.VERSION,
            messages=_messages(question, letters[question.letter]),
        )
        answer = await services.gateway.ask(call)
        try:
            classification = validate(Classification, json_object(answer.answer.text))
        except InvalidAnswer:
            return LetterOutput(category=None, use=answer.use)
        return LetterOutput(category=classification.category, use=answer.use)

    return sort_letter


def send_tally(services: Services) -> Activity:
    """Makes the last step, which sends the notice."""

    async def send_tally(_context: WorkflowActivityContext, question: TallyInput) -> TallyOutput:
        notice = {
            "idempotency_key": f"{question.tenant}|{question.ticket_id}|tally",
            "tenant": question.tenant,
            "ticket_id": question.ticket_id,
            "customer_id": question.customer_id,
            "outcome": Outcome.ANSWERED.value,
            "refund": None,
            "text": ", ".join(f"{count} x {category}" for category, count in sorted(question.counts.items())),
        }
        answer = await services.systems.ask("notifications", "send", notice)
        return TallyOutput(notification_id=str(answer["notification_id"]))

    return send_tally


STEPS = (sort_letter, send_tally)


def _messages(question: LetterInput, letter: Ticket) -> tuple[Message, ...]:
    mark = letter_mark(question.mailbox, question.number, question.of)
    form = f"{mark}\nSubject: {redact(letter.subject)}\nOrder in the form: {letter.order_id or 'none'}"
    content = f"{form}\n{prompts.ticket_block(redact(letter.text))}"
    return (Message("system", prompts.CLASSIFY), Message("user", content))
