"""The workflow as plain DBOS functions, a thread each: the same steps as in `coroutines.py`, one after another."""

from __future__ import annotations

from collections.abc import Callable

from app.domain.models import Classification, Outcome, Refund, Ticket
from app.domain.orders import Account, Exposure
from app.workflow.activities.tools import ToolCall
from lab.bench.dbos_baseline import work
from lab.bench.dbos_baseline.durable import step, workflow
from lab.bench.dbos_baseline.outside import Threads
from lab.bench.dbos_baseline.work import Found, Proposal

Work = Callable[[Ticket], str]


def make_workflow(outside: Threads) -> Work:
    """Registers steps and workflow; returns the workflow."""

    @step
    def classify(ticket: Ticket) -> Classification:
        return work.classification(outside.model(work.classify_request(ticket)))

    @step
    def retrieve_account(ticket: Ticket) -> Account:
        answer = outside.system("accounts", "get", work.account_request(ticket))
        return Account.model_validate(answer["account"])

    @step
    def draft_refund(
        ticket: Ticket, found: Classification, account: Account, lookups: tuple[Found, ...], turn: int
    ) -> Proposal | tuple[ToolCall, ...]:
        return work.drafted(outside.model(work.draft_request(ticket, found, account, lookups)), turn)

    @step
    def look_up(ticket: Ticket, call: ToolCall) -> Found:
        system, body = work.lookup(ticket, call)
        return work.found(call, outside.system(system, "get", body))

    @step
    def hold_refund(ticket: Ticket, refund: Refund) -> Exposure:
        answer = outside.system("refunds", "hold", work.holding(ticket, refund))
        return Exposure.model_validate(answer["exposure"])

    @step
    def notify_customer(ticket: Ticket, outcome: Outcome, refund: Refund | None, reply: str) -> str:
        if refund is not None:
            outside.system("refunds", "commit", work.refund_posting(ticket, refund))
        answer = outside.system("notifications", "send", work.notice(ticket, outcome, refund, reply))
        return str(answer["notification_id"])

    @step
    def close_case(ticket: Ticket, outcome: Outcome, refund: Refund | None) -> str:
        refund_id = None
        if refund is not None:
            refund_id = outside.system("refunds", "post", work.refund_posting(ticket, refund))["refund_id"]
        answer = outside.system("cases", "close", work.closing(ticket, outcome, refund_id))
        return str(answer["case_id"])

    @workflow
    def refund_ticket(ticket: Ticket) -> str:
        found = classify(ticket)
        account = retrieve_account(ticket)
        lookups: tuple[Found, ...] = ()
        for turn in range(1, work.RULES.drafting.max_turns + 1):
            answer = draft_refund(ticket, found, account, lookups, turn)
            if isinstance(answer, Proposal):
                break
            lookups += tuple(look_up(ticket, call) for call in answer)
        else:
            raise work.Unfit("too many turns; the load's tickets must not need a person")
        wanted = work.proposed(answer)
        exposure = hold_refund(ticket, wanted) if wanted else None
        outcome, refund = work.settled(answer, found, account, lookups, exposure)
        notify_customer(ticket, outcome, refund, answer.reply)
        close_case(ticket, outcome, refund)
        return outcome.value

    return refund_ticket
