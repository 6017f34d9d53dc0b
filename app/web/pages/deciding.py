"""Where people decide: the inbox, and the form of a task. Plain HTML forms; each answer says what really happened."""

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
from app.web.pages.edge import PageEdge, caller, page, query_with, seen
from app.web.pages.summary import Fact

# What a person sees of a task before deciding about it: reason, order, account, limit, the customer's words.

# The ages that the inbox can be narrowed to, by their names in the address.
AGES = {"1h": timedelta(hours=1), "4h": timedelta(hours=4), "1d": timedelta(days=1), "2d": timedelta(days=2)}
MAX_NOTE_CHARACTERS = 500


class BadForm(Exception):
    """A form whose fields cannot be taken; the message says which, and how to write it."""


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """What a person is asked. `number` names it, so that an answer cannot be taken for another question's; None for a
    task of a version without numbers. `order_id` and `currency`: what another amount would most likely be for."""

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
class QuestionWithText:
    """A question with what the customer wrote; empty for somebody who may not read it."""

    question: OpenQuestion
    subject: str
    text: str


def make_asked(case: Case, now: datetime, *, reads: bool) -> QuestionWithText:
    """One entry of the inbox."""
    ticket = case.ticket
    question = make_question(case.task, now, customer=ticket.customer_id if reads else "")
    return QuestionWithText(question, ticket.subject if reads else "", ticket.text if reads else "")


def make_question(view: TaskView, now: datetime, customer: str = "") -> OpenQuestion:
    """The question of a waiting task. `customer` is the account's id, where it is to be shown."""
    reason = explain(view.waiting_for or "")
    asked, proposed = view.question, view.proposed_refund
    order = asked.order if asked else None
    left = _at(asked.expires_at) - now if asked else None
    return OpenQuestion(
        task_id=view.task_id,
        tenant=view.tenant,
        number=asked.number if asked else None,
        reason=reason.words,
        advice=reason.advice,
        proposed=proposed,
        facts=tuple(_facts(view, now, customer)),
        order_id=proposed.order_id if proposed else order.order_id if order else "",
        currency=proposed.currency if proposed else order.currency if order else "",
        expiring=left is not None and left < timedelta(hours=12),
    )


def _facts(view: TaskView, now: datetime, customer: str) -> list[Fact]:
    asked, proposed = view.question, view.proposed_refund
    facts = [Fact("Proposed", formatting.refund(proposed) if proposed else "no refund", strong=True)]
    if asked is None:
        return [*facts, Fact("Waiting since", f"{view.updated_at or view.created_at} UTC")]
    if asked.limit is not None and proposed is not None:
        facts.append(Fact("Nobody is asked up to", money(asked.limit, proposed.currency)))
    if order := asked.order:
        facts += [
            Fact(f"Order {order.order_id}", f"{money(order.charged, order.currency)} paid"),
            Fact("Refunded before", money(order.refunded, order.currency)),
            Fact("Left to refund", money(order.refundable, order.currency), strong=True),
        ]
    if account := asked.account:
        before = "1 refund" if account.refunds_90d == 1 else f"{account.refunds_90d} refunds"
        text = f"{account.tier}, risk {account.risk}, customer for {account.since_days:,} days, {before} in 90 days"
        facts.append(Fact(f"Account {customer}".strip(), text))
    if view.category:
        facts.append(Fact("Category", view.category.value.replace("_", " ")))
    since, until = _at(asked.asked_at), _at(asked.expires_at)
    facts.append(Fact("Asked", f"{duration(max(now - since, timedelta(0)))} ago, {instant(since)} UTC"))
    left = f"{duration(until - now)} left" if until > now else "over"
    return [*facts, Fact("Time", f"{left}, until {instant(until)} UTC")]


def read_decision(form: Mapping[str, str], by: str) -> tuple[Decision, str]:
    """The decision that a form holds, and its note. Raises BadForm."""
    verdict, number = form.get("verdict", ""), form.get("question", "")
    if verdict not in ("approve", "approve_other", "reject") or not (number == "" or number.isdecimal()):
        raise BadForm("The form is not one of this agent's; open the task again, and decide there.")
    note = form.get("note", "").strip()
    if len(note) > MAX_NOTE_CHARACTERS:
        raise BadForm(f"The note has {len(note)} characters; {MAX_NOTE_CHARACTERS} are kept. Shorten it.")
    refund = _other(form) if verdict == "approve_other" else None
    question = int(number[:9]) if number else None
    return Decision(
        verdict="reject" if verdict == "reject" else "approve", by=by, refund=refund, question=question
    ), note


def _other(form: Mapping[str, str]) -> Refund:
    """Another refund than the proposed one."""
    amount = form.get("amount", "").strip()
    try:
        return Refund(
            order_id=form.get("order_id", "").strip(),
            amount=amount,  # type: ignore[arg-type]  # pydantic reads a decimal text exactly
            currency=form.get("currency", "").strip().upper(),
        )
    except ValidationError as error:
        wrong = {str(problem["loc"][0]) for problem in error.errors(include_input=False)}
        shown = {
            "order_id": "The order's id has letters, digits, dots, dashes and underscores alone.",
            "amount": "Write an amount above zero, with a point and without other marks, such as 1234.50.",
            "currency": "Write the currency as three letters, such as EUR.",
        }
        first = next((said for field, said in shown.items() if field in wrong), "Give order, amount and currency.")
        raise BadForm(first) from None


@dataclass(frozen=True, slots=True)
class TrailLine:
    """A decision, or an attempt at one. `kind` is its state's word, for the colour."""

    at: datetime
    by: str
    what: str
    note: str
    kind: str
    words: str
    reason: str


def make_trail(trail: tuple[DecisionView, ...]) -> tuple[TrailLine, ...]:
    """Who decided what, oldest first."""
    return tuple(
        TrailLine(
            _at(made.at),
            made.by,
            made.verdict + (f" {formatting.refund(made.refund)}" if made.refund else ""),
            made.note,
            "bad" if made.state in (DecisionState.REFUSED, DecisionState.TOO_LATE) else made.state.value,
            made.words,
            explain(made.reason).words if made.reason else NOTHING,
        )
        for made in trail
    )


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


INBOX = "/pages/inbox"
PAGE_SIZE = 20
_CURSOR = re.compile(r"[0-9]{1,18}")
# Where an answer leads back to: the inbox, as it was narrowed.
_BACK = re.compile(r"/pages/inbox(\?[A-Za-z0-9._~%=&+-]*)?")
_AGE_WORDS = {"1h": "1 hour", "4h": "4 hours", "1d": "1 day", "2d": "2 days"}


def show_inbox(edge: PageEdge) -> Response:
    """The tasks that wait for a person. Who may decide but not read sees no words of a customer."""
    principal = caller(edge)
    if not principal.may(Role.APPROVE):
        principal.require(Role.READ)
    chosen = {name: request.args.get(name, "") for name in ("tenant", "reason", "age")}
    after, now = request.args.get("after", ""), edge.clock()
    cursor = after if _CURSOR.fullmatch(after) else None
    age = AGES.get(chosen["age"])
    tenant = chosen["tenant"] if chosen["tenant"] and principal.sees(chosen["tenant"]) else None
    before = now - age if age else None
    found = edge.service.inbox(principal.tenants, tenant, chosen["reason"] or None, before, PAGE_SIZE, cursor)
    query = query_with(**chosen, after=cursor)
    return page(
        "inbox.html",
        principal=principal,
        asked=[make_asked(case, now, reads=principal.may(Role.READ)) for case in found.cases],
        total=found.total,
        tenants=list(found.tenants.items()),
        reasons=[(code, explain(code).words, count) for code, count in found.reasons.items()],
        ages=list(_AGE_WORDS.items()),
        chosen=chosen,
        narrowed=any(chosen.values()),
        decides=principal.may(Role.APPROVE),
        back=INBOX + query({}),
        query=query,
        more=found.next_after,
        first=cursor is None,
        now=now,
    )


def about_deciding(
    edge: PageEdge, principal: Principal, view: TaskView | None, record: TaskRecord | None
) -> dict[str, Any]:
    """What a task's page shows of decisions: the question, the customer's words, the trail."""
    task_id = view.task_id if view else record.task_id if record else ""
    waits = view is not None and view.status is TaskStatus.WAITING
    try:
        ticket = edge.service.ticket(task_id)
    except (TaskNotFound, Unreachable):  # a task that another ledger took in, or nobody answers
        ticket = None
    return {
        "ticket": ticket,
        "question": make_question(view, edge.clock(), ticket.customer_id if ticket else "") if view and waits else None,
        "decides": principal.may(Role.APPROVE),
        "trail": make_trail(view.decisions if view else record.decisions if record else ()),
        "back": INBOX,
    }


def take_decision(edge: PageEdge, task_id: str) -> Response:
    """A form of ours with a decision."""
    principal = caller(edge)
    seen(principal, task_id)
    given = request.form.get("back", "")
    back = given if _BACK.fullmatch(given) else INBOX
    told: dict[str, Any] = {"principal": principal, "task_id": task_id, "back": back, "good": False}
    if not edge.front.sent_from_here(request):
        return page("decided.html", 403, title="Not taken", detail=edge.front.foreign(request), **told)
    try:
        decision, note = read_decision(request.form, principal.name)
    except BadForm as fault:
        told |= _asked_again(edge, principal, task_id)
        return page("decided.html", 422, title="Not taken", detail=str(fault), **told)
    _let_decide(edge, principal, task_id, decision)
    try:
        view, accepted = edge.service.decide(task_id, decision, note)
    except (NotWaiting, DecisionRefused) as refusal:
        told |= _asked_again(edge, principal, task_id)
        return page("decided.html", refusal.status, title=refusal.title, detail=f"{_sentence(str(refusal))}", **told)
    if not accepted:
        detail = "The decision was handed over, and the task has not taken it yet. Its page shows what comes of it."
        return page("decided.html", 202, title="Handed over", detail=detail, **told | {"good": True})
    return page("decided.html", title=_TITLES[decision.verdict], detail=_done(view, decision), **told | {"good": True})


_TITLES = {"approve": "Approved", "reject": "Rejected"}


def _asked_again(edge: PageEdge, principal: Principal, task_id: str) -> dict[str, Any]:
    """The question as it stands, with what the person wrote: nobody types it twice because of a slip."""
    if not principal.may(Role.APPROVE):
        return {}
    try:
        view = edge.service.get(task_id)
    except Unreachable:
        return {}
    waits = view.status is TaskStatus.WAITING
    return {"question": make_question(view, edge.clock()) if waits else None, "given": request.form}


def _let_decide(edge: PageEdge, principal: Principal, task_id: str, decision: Decision) -> None:
    """Raises AccessDenied; that somebody tried is noted."""
    try:
        principal.require(Role.APPROVE)
    except AccessDenied:
        edge.service.note_denied(task_id, decision)
        raise


def _done(view: TaskView, decision: Decision) -> str:
    said = view.decisions[-1].words if view.decisions else "accepted"
    if decision.verdict == "reject":
        said = "no money moves, and the customer is told"
    return f"{_sentence(said)} The task is {view.status.value}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
