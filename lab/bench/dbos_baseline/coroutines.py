"""The workflow as DBOS coroutines: every stage and every lookup is a durable step with retries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from app.domain.models import Classification, Outcome, Refund, Ticket
from app.domain.orders import Account, Exposure
from app.workflow.activities.tools import ToolCall
from lab.bench.dbos_baseline import work
from lab.bench.dbos_baseline.durable import step, workflow
from lab.bench.dbos_baseline.outside import Coroutines
from lab.bench.dbos_baseline.work import Found, Proposal

Work = Callable[[Ticket], Awaitable[str]]


def make_workflow(outside: Coroutines) -> Work:
    """Registers steps and workflow; returns the workflow."""

    @step
    async def classify(ticket: Ticket) -> Classification:
        return work.classification(await outside.model(work.classify_request(ticket)))

    @step
    async def retrieve_account(ticket: Ticket) -> Account:
        answer = await outside.system("accounts", "get", work.account_request(ticket))
        return Account.model_validate(answer["account"])

    @step
    async def draft_refund(
        ticket: Ticket, found: Classification, account: Account, lookups: tuple[Found, ...], turn: int
    ) -> Proposal | tuple[ToolCall, ...]:
        request = work.draft_request(ticket, found, account, lookups)
        return work.drafted(await outside.model(request), turn)

    @step
    async def look_up(ticket: Ticket, call: ToolCall) -> Found:
        system, body = work.lookup(ticket, call)
        return work.found(call, await outside.system(system, "get", body))

    @step
    async def hold_refund(ticket: Ticket, refund: Refund) -> Exposure:
        answer = await outside.system("refunds", "hold", work.holding(ticket, refund))
        return Exposure.model_validate(answer["exposure"])

    @step
    async def notify_customer(ticket: Ticket, outcome: Outcome, refund: Refund | None, reply: str) -> str:
        if refund is not None:
            await outside.system("refunds", "commit", work.refund_posting(ticket, refund))
        answer = await outside.system("notifications", "send", work.notice(ticket, outcome, refund, reply))
        return str(answer["notification_id"])

    @step
    async def close_case(ticket: Ticket, outcome: Outcome, refund: Refund | None) -> str:
        refund_id = None
        if refund is not None:
            refund_id = (await outside.system("refunds", "post", work.refund_posting(ticket, refund)))["refund_id"]
        answer = await outside.system("cases", "close", work.closing(ticket, outcome, refund_id))
        return str(answer["case_id"])

    @workflow
    async def refund_ticket(ticket: Ticket) -> str:
        found = await classify(ticket)
        account = await retrieve_account(ticket)
        lookups: tuple[Found, ...] = ()
        for turn in range(1, work.RULES.drafting.max_turns + 1):
            answer = await draft_refund(ticket, found, account, lookups, turn)
            if isinstance(answer, Proposal):
                break
            lookups += tuple(await asyncio.gather(*[look_up(ticket, call) for call in answer]))
        else:
            raise work.Unfit("too many turns; the load's tickets must not need a person")
        wanted = work.proposed(answer)
        exposure = await hold_refund(ticket, wanted) if wanted else None
        outcome, refund = work.settled(answer, found, account, lookups, exposure)
        await notify_customer(ticket, outcome, refund, answer.reply)
        await close_case(ticket, outcome, refund)
        return outcome.value

    return refund_ticket
