"""Stage 2, a tool: fetches the customer's account (without anything that names the person) and, for a task that starts
over, what earlier runs of the ticket did."""

from __future__ import annotations

from dapr.ext.workflow import WorkflowActivityContext

from app.domain.errors import Refused
from app.domain.models import Frozen
from app.domain.orders import Account, Effects
from app.workflow.activities.services import Activity, Services


class AccountInput(Frozen):
    """The customer and the ticket. `again` asks for the effects of earlier runs of the ticket."""

    tenant: str
    ticket_id: str
    customer_id: str
    again: bool = False


class AccountOutput(Frozen):
    """The account, or the code of why there is none. `earlier` is empty unless `again` asked for it."""

    account: Account | None
    problem: str | None
    earlier: Effects = Effects()


def retrieve_account(services: Services) -> Activity:
    """Makes the activity."""

    async def retrieve_account(_context: WorkflowActivityContext, question: AccountInput) -> AccountOutput:
        account, problem = await _account(services, question)
        effects = await _effects(services, question) if question.again else Effects()
        return AccountOutput(account=account, problem=problem, earlier=effects)

    return retrieve_account


async def _account(services: Services, question: AccountInput) -> tuple[Account | None, str | None]:
    body = {"tenant": question.tenant, "customer_id": question.customer_id}
    try:
        answer = await services.systems.ask("accounts", "get", body)
    except Refused as refusal:
        return None, refusal.reason
    return Account.model_validate(answer["account"]), None


async def _effects(services: Services, question: AccountInput) -> Effects:
    body = {"tenant": question.tenant, "ticket_id": question.ticket_id}
    return Effects.model_validate((await services.systems.ask("cases", "get", body))["effects"])
