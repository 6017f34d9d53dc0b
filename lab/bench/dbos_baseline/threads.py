"""The workflow as DBOS functions, each in a thread: the same steps as in `coroutines.py`, one after another."""

from __future__ import annotations

from collections.abc import Callable

from app.domain.models import Classification, Outcome, Refund, Ticket
from app.domain.orders import Account, Exposure
from app.workflow.activities.tools import ToolCall
from lab.bench.dbos_baseline import work
from lab.bench.dbos_baseline.durable import step, workflow
from lab.bench.dbos_baseline.outside import Threads
from lab.bench.dbos_baseline.work import LookupResult, Proposal

Work = Callable[[Ticket], str]


def make_workflow(outside: Threads) -> Work:
    """Registers the steps and the workflow, and returns the workflow."""

    @step
    def classify(ticket: Ticket) -> Classification:
        return work.read_classification(outside.model(work.classify_request(ticket)))

    @step
    def retrieve_account(ticket: Ticket) -> Account:
        answer = outside.system("accounts", "get", work.account_request(ticket))
        return Account.model_validate(answer["account"])

    @step
    def draft_refund(
        ticket: Ticket, classification: Classification, account: Account, lookups: tuple[LookupResult, ...], turn: int
    ) -> Proposal | tuple[ToolCall, ...]:
        return work.read_draft(outside.model(work.draft_request(ticket, classification, account, lookups)), turn)

    @step
    def look_up(ticket: Ticket, call: ToolCall) -> LookupResult:
        system, body = work.lookup_request(ticket, call)
        return work.read_lookup(call, outside.system(system, "get", body))

    @step
    def hold_refund(ticket: Ticket, refund: Refund) -> Exposure:
        answer = outside.system("refunds", "hold", work.hold_request(ticket, refund))
        return Exposure.model_validate(answer["exposure"])

    @step
    def notify_customer(ticket: Ticket, outcome: Outcome, refund: Refund | None, reply: str) -> str:
        if refund is not None:
            outside.system("refunds", "commit", work.refund_request(ticket, refund))
        answer = outside.system("notifications", "send", work.letter_request(ticket, outcome, refund, reply))
        return str(answer["notification_id"])

    @step
    def close_case(ticket: Ticket, outcome: Outcome, refund: Refund | None) -> str:
        refund_id = None
        if refund is not None:
            refund_id = outside.system("refunds", "post", work.refund_request(ticket, refund))["refund_id"]
        answer = outside.system("cases", "close", work.close_request(ticket, outcome, refund_id))
        return str(answer["case_id"])

    @workflow
    def refund_ticket(ticket: Ticket) -> str:
        classification = classify(ticket)
        account = retrieve_account(ticket)
        lookups: tuple[LookupResult, ...] = ()
        for turn in range(1, work.RULES.drafting.max_turns + 1):
            answer = draft_refund(ticket, classification, account, lookups, turn)
            if isinstance(answer, Proposal):
                break
            lookups += tuple(look_up(ticket, call) for call in answer)
        else:
            raise work.UnexpectedOutcome(
                "the draft has used all its turns; a benchmark's ticket must not need a person"
            )
        proposed = work.proposed_refund(answer)
        exposure = hold_refund(ticket, proposed) if proposed else None
        outcome, refund = work.decide(answer, classification, account, lookups, exposure)
        notify_customer(ticket, outcome, refund, answer.reply)
        close_case(ticket, outcome, refund)
        return outcome.value

    return refund_ticket
