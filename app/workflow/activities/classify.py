"""Stage 1, a model call: sorts the ticket into a category."""

from __future__ import annotations

import asyncio

from dapr.ext.workflow import WorkflowActivityContext

from app.domain.models import Classification, Frozen, ModelUse
from app.ledger.store.tickets import StoredTicket
from app.llm.call import ModelCall
from app.llm.conversation import Message
from app.llm.json_answer import InvalidAnswer, json_object, validate
from app.workflow.activities import prompts
from app.workflow.activities.services import Activity, Services, execution_id


class ClassifyInput(Frozen):
    """`problem` says why the previous turn's answer was not usable."""

    task_id: str
    turn: int
    problem: str | None = None


class ClassifyOutput(Frozen):
    """Either a classification, or the problem with the model's answer."""

    classification: Classification | None
    problem: str | None
    use: ModelUse


def classify(services: Services) -> Activity:
    """Makes the activity."""

    async def classify(context: WorkflowActivityContext, question: ClassifyInput) -> ClassifyOutput:
        ticket = await asyncio.to_thread(services.tickets.to_read, question.task_id)
        call = ModelCall(
            tenant=ticket.tenant,
            task_id=question.task_id,
            stage="classify",
            turn=question.turn,
            execution_id=execution_id(context),
            prompt_version=prompts.VERSION,
            messages=_messages(ticket, question.problem),
        )
        answered = await services.gateway.ask(call)
        try:
            classification = validate(Classification, json_object(answered.answer.text))
        except InvalidAnswer as problem:
            return ClassifyOutput(classification=None, problem=str(problem), use=answered.use)
        return ClassifyOutput(classification=classification, problem=None, use=answered.use)

    return classify


def _messages(ticket: StoredTicket, problem: str | None) -> tuple[Message, ...]:
    form = f"Subject: {ticket.subject}\nOrder in the form: {ticket.order_id or 'none'}"
    letter = f"{form}\n{prompts.ticket_block(ticket.text)}"
    messages = (Message("system", prompts.CLASSIFY), Message("user", letter))
    if problem is None:
        return messages
    return (*messages, Message("user", prompts.CORRECTION.format(problem=problem)))
