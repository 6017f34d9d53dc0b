"""The inbox and the decision forms, where people approve, correct or reject refunds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import Response, request
from pydantic import ValidationError

from app.domain import formatting
from app.domain.decision_texts import explain
from app.domain.errors import AccessDenied, DecisionRefused, NotWaiting, TaskNotFound, Unreachable
from app.domain.formatting import NOTHING, duration, instant, money
from app.domain.models import Case, Decision, DecisionState, DecisionView, Refund, TaskStatus, TaskView
from app.ledger.store.task_record import TaskRecord
from app.tasks.access import Principal, Role
from app.web.pages.edge import PageEdge, caller, page, query_with, require_visible
from app.web.pages.summary import Fact

# The minimum ages by which the inbox can be filtered, by their names in the query string.
AGES = {"1h": timedelta(hours=1), "4h": timedelta(hours=4), "1d": timedelta(days=1), "2d": timedelta(days=2)}
MAX_NOTE_CHARACTERS = 500


class BadForm(Exception):
    """A form with a wrong field; the message names the field and the correct format."""


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """The question of a waiting task, as the pages show it.

    `number` identifies the question, so that an answer cannot apply to a later one; None for tasks of an older version.
    `order_id` and `currency` prefill the form for another amount. `expiring`: less than 12 hours are left.
    """

    task_id: str
    tenant: str
    number: int | None
    reason: str
    advice: str
    proposed: Refund | None
    facts: tuple[Fact, ...]
    order_id: str
    currency: str
    expiring: bool


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """A question with the customer's text, which is empty if the user may not read it."""

    question: OpenQuestion
    subject: str
    text: str


def make_entry(case: Case, now: datetime, *, reads: bool) -> InboxEntry:
    """The inbox entry of a case; `reads` says whether the user may read the customer's text."""
    ticket = case.ticket
    question = make_question(case.task, now, customer=ticket.customer_id if reads else "")
    return InboxEntry(question, ticket.subject if reads else "", ticket.text if reads else "")


def make_question(view: TaskView, now: datetime, customer: str = "") -> OpenQuestion:
    """The question of a waiting task. `customer` is the account's id, empty if it must not be shown."""
    reason = explain(view.waiting_for or "")
    question, proposed = view.question, view.proposed_refund
    order = question.order if question else None
    left = datetime.fromisoformat(question.expires_at) - now if question else None
    return OpenQuestion(
        task_id=view.task_id,
        tenant=view.tenant,
        number=question.number if question else None,
        reason=reason.words,
        advice=reason.advice,
        proposed=proposed,
        facts=tuple(_facts(view, now, customer)),
        order_id=proposed.order_id if proposed else order.order_id if order else "",
        currency=proposed.currency if proposed else order.currency if order else "",
        expiring=left is not None and left < timedelta(hours=12),
    )


def _facts(view: TaskView, now: datetime, customer: str) -> list[Fact]:
    question, proposed = view.question, view.proposed_refund
    facts = [Fact("Proposed", formatting.refund(proposed) if proposed else "no refund", strong=True)]
    if question is None:
        return [*facts, Fact("Waiting since", f"{view.updated_at or view.created_at} UTC")]
    if question.limit is not None and proposed is not None:
        facts.append(Fact("No approval needed up to", money(question.limit, proposed.currency)))
    if order := question.order:
        facts += [
            Fact(f"Order {order.order_id}", f"{money(order.charged, order.currency)} paid"),
            Fact("Refunded before", money(order.refunded, order.currency)),
            Fact("Left to refund", money(order.refundable, order.currency), strong=True),
        ]
    if account := question.account:
        refunds = "1 refund" if account.refunds_90d == 1 else f"{account.refunds_90d} refunds"
        text = f"{account.tier}, risk {account.risk}, customer for {account.since_days:,} days, {refunds} in 90 days"
        facts.append(Fact(f"Account {customer}".strip(), text))
    if view.category:
        facts.append(Fact("Category", view.category.value.replace("_", " ")))
    since, until = datetime.fromisoformat(question.asked_at), datetime.fromisoformat(question.expires_at)
    facts.append(Fact("Asked", f"{duration(max(now - since, timedelta(0)))} ago, {instant(since)} UTC"))
    time_left = f"{duration(until - now)} left" if until > now else "over"
    return [*facts, Fact("Time", f"{time_left}, until {instant(until)} UTC")]


def read_decision(form: Mapping[str, str], by: str) -> tuple[Decision, str]:
    """The decision in a form, made by the token `by`, and its note. Raises BadForm."""
    verdict, number = form.get("verdict", ""), form.get("question", "")
    if verdict not in ("approve", "approve_other", "reject") or not (number == "" or number.isdecimal()):
        raise BadForm("This is not a form of this agent. Open the task again and decide there.")
    note = form.get("note", "").strip()
    if len(note) > MAX_NOTE_CHARACTERS:
        raise BadForm(f"The note has {len(note)} characters; at most {MAX_NOTE_CHARACTERS} are allowed. Shorten it.")
    refund = _read_refund(form) if verdict == "approve_other" else None
    question = int(number[:9]) if number else None
    return Decision(
        verdict="reject" if verdict == "reject" else "approve", by=by, refund=refund, question=question
    ), note


def _read_refund(form: Mapping[str, str]) -> Refund:
    amount = form.get("amount", "").strip()
    try:
        return Refund(
            order_id=form.get("order_id", "").strip(),
            amount=amount,  # type: ignore[arg-type]  # pydantic reads a decimal text exactly
            currency=form.get("currency", "").strip().upper(),
        )
    except ValidationError as error:
        wrong = {str(problem["loc"][0]) for problem in error.errors(include_input=False)}
        remedies = {
            "order_id": "The order's id may contain only letters, digits, dots, dashes and underscores.",
            "amount": "Write an amount above zero, with a decimal point and no other marks, such as 1234.50.",
            "currency": "Write the currency as three letters, such as EUR.",
        }
        remedy = next((text for field, text in remedies.items() if field in wrong), "Give order, amount and currency.")
        raise BadForm(remedy) from None


@dataclass(frozen=True, slots=True)
class TrailLine:
    """A decision or a refused attempt at one. `kind` is the CSS class of its state, `reason` why the task waited."""

    at: datetime
    by: str
    what: str
    note: str
    kind: str
    words: str
    reason: str


def make_trail(trail: tuple[DecisionView, ...]) -> tuple[TrailLine, ...]:
    """The decisions as lines of the task's page, in the given order."""
    return tuple(
        TrailLine(
            datetime.fromisoformat(decision.at),
            decision.by,
            decision.verdict + (f" {formatting.refund(decision.refund)}" if decision.refund else ""),
            decision.note,
            "bad" if decision.state in (DecisionState.REFUSED, DecisionState.TOO_LATE) else decision.state.value,
            decision.words,
            explain(decision.reason).words if decision.reason else NOTHING,
        )
        for decision in trail
    )


INBOX = "/pages/inbox"
PAGE_SIZE = 20
_CURSOR = re.compile(r"[0-9]{1,18}")
# The address of "Back to the inbox", with the filter that the user had chosen.
_BACK = re.compile(r"/pages/inbox(\?[A-Za-z0-9._~%=&+-]*)?")
_AGE_WORDS = {"1h": "1 hour", "4h": "4 hours", "1d": "1 day", "2d": "2 days"}


def show_inbox(edge: PageEdge) -> Response:
    """The page of tasks that wait for a person. Users who may decide but not read do not see customers' texts."""
    principal = caller(edge)
    if not principal.may(Role.APPROVE):
        principal.require(Role.READ)
    chosen = {name: request.args.get(name, "") for name in ("tenant", "reason", "age")}
    after, now = request.args.get("after", ""), edge.clock()
    cursor = after if _CURSOR.fullmatch(after) else None
    age = AGES.get(chosen["age"])
    tenant = chosen["tenant"] if chosen["tenant"] and principal.sees(chosen["tenant"]) else None
    asked_before = now - age if age else None
    inbox = edge.service.inbox(principal.tenants, tenant, chosen["reason"] or None, asked_before, PAGE_SIZE, cursor)
    query = query_with(**chosen, after=cursor)
    return page(
        "inbox.html",
        principal=principal,
        entries=[make_entry(case, now, reads=principal.may(Role.READ)) for case in inbox.cases],
        total=inbox.total,
        tenants=list(inbox.tenants.items()),
        reasons=[(code, explain(code).words, count) for code, count in inbox.reasons.items()],
        ages=list(_AGE_WORDS.items()),
        chosen=chosen,
        filtered=any(chosen.values()),
        decides=principal.may(Role.APPROVE),
        back=INBOX + query({}),
        query=query,
        more=inbox.next_after,
        first=cursor is None,
        now=now,
    )


def decision_values(
    edge: PageEdge, principal: Principal, view: TaskView | None, record: TaskRecord | None
) -> dict[str, Any]:
    """The template values of a task's page for deciding: question, customer's text, past decisions."""
    task_id = view.task_id if view else record.task_id if record else ""
    waits = view is not None and view.status is TaskStatus.WAITING
    try:
        ticket = edge.service.ticket(task_id)
    except (TaskNotFound, Unreachable):  # another ledger has the ticket, or the ledger does not answer
        ticket = None
    return {
        "ticket": ticket,
        "question": make_question(view, edge.clock(), ticket.customer_id if ticket else "") if view and waits else None,
        "decides": principal.may(Role.APPROVE),
        "trail": make_trail(view.decisions if view else record.decisions if record else ()),
        "back": INBOX,
    }


def take_decision(edge: PageEdge, task_id: str) -> Response:
    """Handles a decision form, and shows what became of the decision."""
    principal = caller(edge)
    require_visible(principal, task_id)
    wanted = request.form.get("back", "")
    back = wanted if _BACK.fullmatch(wanted) else INBOX
    values: dict[str, Any] = {"principal": principal, "task_id": task_id, "back": back, "good": False}
    if not edge.front.is_same_origin(request):
        detail = edge.front.foreign_form_detail(request)
        return page("decided.html", 403, title="Not accepted", detail=detail, **values)
    try:
        decision, note = read_decision(request.form, principal.name)
    except BadForm as error:
        values |= _form_values(edge, principal, task_id)
        return page("decided.html", 422, title="Not accepted", detail=str(error), **values)
    _require_approver(edge, principal, task_id, decision)
    try:
        view, accepted = edge.service.decide(task_id, decision, note)
    except (NotWaiting, DecisionRefused) as error:
        values |= _form_values(edge, principal, task_id)
        return page("decided.html", error.status, title=error.title, detail=_sentence(str(error)), **values)
    values["good"] = True
    if not accepted:
        detail = "The decision was handed over. The task has not answered yet; its page will show the result."
        return page("decided.html", 202, title="Handed over", detail=detail, **values)
    return page("decided.html", title=_TITLES[decision.verdict], detail=_accepted_detail(view, decision), **values)


_TITLES = {"approve": "Approved", "reject": "Rejected"}


def _form_values(edge: PageEdge, principal: Principal, task_id: str) -> dict[str, Any]:
    """The template values that show the form again, with the user's input."""
    if not principal.may(Role.APPROVE):
        return {}
    try:
        view = edge.service.get(task_id)
    except Unreachable:
        return {}
    waits = view.status is TaskStatus.WAITING
    return {"question": make_question(view, edge.clock()) if waits else None, "given": request.form}


def _require_approver(edge: PageEdge, principal: Principal, task_id: str, decision: Decision) -> None:
    """Raises AccessDenied if the user may not decide, and notes the attempt at the task."""
    try:
        principal.require(Role.APPROVE)
    except AccessDenied:
        edge.service.note_denied(task_id, decision)
        raise


def _accepted_detail(view: TaskView, decision: Decision) -> str:
    text = view.decisions[-1].words if view.decisions else "accepted"
    if decision.verdict == "reject":
        text = "no money moves, and the customer is informed"
    return f"{_sentence(text)} The task is {view.status.value}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
