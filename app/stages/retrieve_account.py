"""Stage 2, a tool: the customer's account, without anything that names the person."""

from __future__ import annotations

from dapr.ext.workflow import WorkflowActivityContext

from app.books import Account
from app.errors import Refused
from app.models import Frozen
from app.stages.services import Activity, Services


class AccountInput(Frozen):
    """Whose account."""

    tenant: str
    customer_id: str


class AccountOutput(Frozen):
    """The account, or the code of why there is none."""

    account: Account | None
    problem: str | None


def retrieve_account(services: Services) -> Activity:
    """Builds the stage."""

    async def retrieve_account(_context: WorkflowActivityContext, question: AccountInput) -> AccountOutput:
        try:
            answer = await services.systems.ask("accounts", "get", question.model_dump())
        except Refused as refusal:
            return AccountOutput(account=None, problem=refusal.code)
        return AccountOutput(account=Account.model_validate(answer["account"]), problem=None)

    return retrieve_account
