"""Where people decide: the inbox, and the form of a task. Plain HTML forms; each answer says what really happened."""

from __future__ import annotations

import re
from typing import Any

from flask import Response, request

from app.domain.errors import AccessDenied, DecisionRefused, NotWaiting, TaskNotFound, Unreachable
from app.domain.models import Decision, TaskStatus, TaskView
from app.domain.reasons import explain
from app.ledger.store.task_record import TaskRecord
from app.tasks.access import Principal, Role
from app.web.pages.edge import Edge, caller, page, query_with, seen
from app.web.pages.inbox import AGES, BadForm, make_asked, make_question, make_trail, read_decision

INBOX = "/pages/inbox"
PAGE_SIZE = 20
_CURSOR = re.compile(r"[0-9]{1,18}")
# Where an answer leads back to: the inbox, as it was narrowed.
_BACK = re.compile(r"/pages/inbox(\?[A-Za-z0-9._~%=&+-]*)?")
_AGE_WORDS = {"1h": "1 hour", "4h": "4 hours", "1d": "1 day", "2d": "2 days"}


def show_inbox(edge: Edge) -> Response:
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
    found = edge.desk.inbox(principal.tenants, tenant, chosen["reason"] or None, before, PAGE_SIZE, cursor)
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
    edge: Edge, principal: Principal, view: TaskView | None, record: TaskRecord | None
) -> dict[str, Any]:
    """What a task's page shows of decisions: the question, the customer's words, the trail."""
    task_id = view.task_id if view else record.task_id if record else ""
    waits = view is not None and view.status is TaskStatus.WAITING
    try:
        ticket = edge.desk.ticket(task_id)
    except (TaskNotFound, Unreachable):  # a task that another ledger took in, or nobody answers
        ticket = None
    return {
        "ticket": ticket,
        "question": make_question(view, edge.clock(), ticket.customer_id if ticket else "") if view and waits else None,
        "decides": principal.may(Role.APPROVE),
        "trail": make_trail(view.decisions if view else record.decisions if record else ()),
        "back": INBOX,
    }


def take_decision(edge: Edge, task_id: str) -> Response:
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
        view, accepted = edge.desk.decide(task_id, decision, note)
    except (NotWaiting, DecisionRefused) as refusal:
        told |= _asked_again(edge, principal, task_id)
        return page("decided.html", refusal.status, title=refusal.title, detail=f"{_sentence(str(refusal))}", **told)
    if not accepted:
        detail = "The decision was handed over, and the task has not taken it yet. Its page shows what comes of it."
        return page("decided.html", 202, title="Handed over", detail=detail, **told | {"good": True})
    return page("decided.html", title=_TITLES[decision.verdict], detail=_done(view, decision), **told | {"good": True})


_TITLES = {"approve": "Approved", "reject": "Rejected"}


def _asked_again(edge: Edge, principal: Principal, task_id: str) -> dict[str, Any]:
    """The question as it stands, with what the person wrote: nobody types it twice because of a slip."""
    if not principal.may(Role.APPROVE):
        return {}
    try:
        view = edge.desk.get(task_id)
    except Unreachable:
        return {}
    waits = view.status is TaskStatus.WAITING
    return {"question": make_question(view, edge.clock()) if waits else None, "given": request.form}


def _let_decide(edge: Edge, principal: Principal, task_id: str, decision: Decision) -> None:
    """Raises AccessDenied; that somebody tried is noted."""
    try:
        principal.require(Role.APPROVE)
    except AccessDenied:
        edge.desk.denied(task_id, decision)
        raise


def _done(view: TaskView, decision: Decision) -> str:
    said = view.decisions[-1].words if view.decisions else "accepted"
    if decision.verdict == "reject":
        said = "no money moves, and the customer is told"
    return f"{_sentence(said)} The task is {view.status.value}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
