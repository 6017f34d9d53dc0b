"""The workflow as DBOS coroutines. Each stage and each lookup is a durable step with retries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from app.domain.models import Classification, Outcome, Refund, Ticket
from app.domain.orders import Account, Exposure
from app.workflow.activities.tools import ToolCall
from lab.bench.dbos_baseline import work
from lab.bench.dbos_baseline.durable import step, workflow
from lab.bench.dbos_baseline.outside import Coroutines
from lab.bench.dbos_baseline.work import LookupResult, Proposal

Work = Callable[[Ticket], Awaitable[str]]


def make_workflow(outside: Coroutines) -> Work:
    """Registers the steps and the workflow, and returns the workflow."""

    @step
    async def classify(ticket: Ticket) -> Classification:
        return work.read_classification(await outside.model(work.classify_request(ticket)))

    @step
    async def retrieve_account(ticket: Ticket) -> Account:
        answer = await outside.system("accounts", "get", work.account_request(ticket))
        return Account.model_validate(answer["account"])

    @step
    async def draft_refund(
        ticket: Ticket, classification: Classification, account: Account, lookups: tuple[LookupResult, ...], turn: int
    ) -> Proposal | tuple[ToolCall, ...]:
        request = work.draft_request(ticket, classification, account, lookups)
        return work.read_draft(await outside.model(request), turn)

    @step
    async def look_up(ticket: Ticket, call: ToolCall) -> LookupResult:
        system, body = work.lookup_request(ticket, call)
        return work.read_lookup(call, await outside.system(system, "get", body))

    @step
    async def hold_refund(ticket: Ticket, refund: Refund) -> Exposure:
        answer = await outside.system("refunds", "hold", work.hold_request(ticket, refund))
        return Exposure.model_validate(answer["exposure"])

    @step
    async def notify_customer(ticket: Ticket, outcome: Outcome, refund: Refund | None, reply: str) -> str:
        if refund is not None:
            await outside.system("refunds", "commit", work.refund_request(ticket, refund))
        answer = await outside.system("notifications", "send", work.letter_request(ticket, outcome, refund, reply))
        return str(answer["notification_id"])

    @step
    async def close_case(ticket: Ticket, outcome: Outcome, refund: Refund | None) -> str:
        refund_id = None
        if refund is not None:
            refund_id = (await outside.system("refunds", "post", work.refund_request(ticket, refund)))["refund_id"]
        answer = await outside.system("cases", "close", work.close_request(ticket, outcome, refund_id))
        return str(answer["case_id"])

    @workflow
    async def refund_ticket(ticket: Ticket) -> str:
        classification = await classify(ticket)
        account = await retrieve_account(ticket)
        lookups: tuple[LookupResult, ...] = ()
        for turn in range(1, work.RULES.drafting.max_turns + 1):
            answer = await draft_refund(ticket, classification, account, lookups, turn)
            if isinstance(answer, Proposal):
                break
            lookups += tuple(await asyncio.gather(*[look_up(ticket, call) for call in answer]))
        else:
            raise work.UnexpectedOutcome(
                "the draft has used all its turns; a benchmark's ticket must not need a person"
            )
        proposed = work.proposed_refund(answer)
        exposure = await hold_refund(ticket, proposed) if proposed else None
        outcome, refund = work.decide(answer, classification, account, lookups, exposure)
        await notify_customer(ticket, outcome, refund, answer.reply)
        await close_case(ticket, outcome, refund)
        return outcome.value

    return refund_ticket
