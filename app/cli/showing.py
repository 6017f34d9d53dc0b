"""A task in words: what it waits for, what was decided, and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from app.cli.layout import Column, Kind, figures, name
from app.cli.screen import CsvCell
from app.domain import reasons
from app.domain.models import DecisionView, Question, Refund, TaskStatus, TaskView, TicketView

MAX_LETTER = 1_000  # characters of a customer's text
COLUMNS = [
    *name("task", "status"),
    Column("received (UTC)"),
    *figures("refund"),
    Column("outcome or reason", Kind.PROSE),
]
CSV = (
    *("task", "tenant", "ticket", "status", "created_at", "updated_at", "category", "waiting_for", "reason"),
    *("outcome", "order", "amount", "currency", "error"),
)


def row(view: TaskView) -> tuple[str, ...]:
    """A task in a list."""
    refund = view.result.refund if view.result else view.proposed_refund
    received = moment(view.created_at)[: len("2026-11-30 12:00")]
    return (view.task_id, view.status.value, received, money(refund), what_came_of_it(view))


def what_came_of_it(view: TaskView) -> str:
    """A task's outcome, or what it waits for, or its error."""
    waits = reasons.explain(view.waiting_for).words if view.waiting_for else ""
    return (view.result.outcome.value if view.result else None) or waits or view.error or ""


def money(refund: Refund | None) -> str:
    """A refund's sum for a table."""
    return f"{refund.amount:,} {refund.currency}" if refund else ""


def moment(text: str) -> str:
    """An instant of the API, in UTC, to the second."""
    return text[:19].replace("T", " ")


def csv_row(view: TaskView) -> tuple[CsvCell, ...]:
    """A task in a spreadsheet."""
    result = view.result
    refund = result.refund if result else view.proposed_refund
    return (
        view.task_id,
        view.tenant,
        view.ticket_id,
        view.status.value,
        view.created_at,
        view.updated_at,
        view.category.value if view.category else None,
        view.waiting_for,
        reasons.explain(view.waiting_for).words if view.waiting_for else None,
        result.outcome.value if result else None,
        refund.order_id if refund else None,
        str(refund.amount) if refund else None,
        refund.currency if refund else None,
        view.error,
    )


def facts(view: TaskView) -> list[tuple[str, str]]:
    """All that is known of a task."""
    result, proposed = view.result, view.proposed_refund
    category = (result.category if result else None) or view.category
    return [
        ("task", view.task_id),
        ("status", view.status.value),
        *_waiting(view),
        ("tenant", view.tenant),
        ("ticket", view.ticket_id),
        ("created (UTC)", moment(view.created_at)),
        ("updated (UTC)", moment(view.updated_at or "")),
        ("category", category.value if category else ""),
        ("proposed refund", f"{money(proposed)} for order {proposed.order_id}" if proposed else ""),
        *(_known(view.question, proposed) if view.question else ()),
        ("outcome", result.outcome.value if result else ""),
        ("refund", _paid(view)),
        ("decided by", (result.decided_by or "") if result else ""),
        ("error", view.error or ""),
        ("stuck", view.retrying.words if view.retrying else ""),
        ("but", view.caveat or ""),
        *(("decision" if number == 0 else "", decision_line(each)) for number, each in enumerate(view.decisions)),
    ]


def _waiting(view: TaskView) -> Iterator[tuple[str, str]]:
    if view.waiting_for:
        reason = reasons.explain(view.waiting_for)
        code = f" ({reason.code})" if reason.code != reason.words else ""
        yield "parked because" if view.status is TaskStatus.PARKED else "waits because", f"{reason.words}{code}"


def _known(question: Question, proposed: Refund | None) -> Iterator[tuple[str, str]]:
    """What our books said when the question was asked."""
    order, account = question.order, question.account
    if question.limit is not None and proposed:
        yield "limit", f"{question.limit:,} {proposed.currency}"
    if order:
        given = f"{order.charged:,} {order.currency} charged, {order.refunded:,} refunded, {order.refundable:,} left"
        yield "order", f"{order.order_id}: {given}"
    if account:
        known = f"customer for {account.since_days:,} days, {account.refunds_90d:,} refunds in the last 90"
        yield "account", f"{account.tier}, risk {account.risk}, {known}"
    yield "asked (UTC)", moment(question.asked_at)
    yield "decide by (UTC)", moment(question.expires_at)


def letter(ticket: TicketView) -> Iterator[tuple[str, str]]:
    """What the customer wrote, or its beginning."""
    yield "customer", ticket.customer_id
    yield "subject", " ".join(ticket.subject.split())
    text = " ".join(ticket.text.split())
    yield "text", text if len(text) <= MAX_LETTER else f"{text[:MAX_LETTER]} ... ({len(text):,} characters)"


def next_steps(view: TaskView) -> Iterator[str]:
    """What a person can do: first what to look at, then the commands, each on a line of its own."""
    if view.status is TaskStatus.WAITING:
        order = view.question.order if view.question else None
        named = view.proposed_refund or order
        other = f"--order {named.order_id if named else 'ORDER'} --amount AMOUNT "
        other += f"--currency {named.currency if named else 'CURRENCY'}"
        yield f"next: {reasons.explain(view.waiting_for or '').advice or 'approve or reject'}"
        if view.proposed_refund:
            yield f"  refund-agent task approve {view.task_id}"
        yield f"  refund-agent task approve {view.task_id} {other}"
        yield f"  refund-agent task reject {view.task_id}"
    elif view.status is TaskStatus.PARKED:
        yield "next: mend what it names, then"
        yield f"  refund-agent task resume {view.task_id}"
    elif view.status is TaskStatus.PAUSED:
        yield "next: when it may go on"
        yield f"  refund-agent task resume {view.task_id}"


def decision_line(made: DecisionView) -> str:
    """A decision, or an attempt at one, on one line."""
    wanted = f" {money(made.refund)} for order {made.refund.order_id}" if made.refund else ""
    note = f" ({' '.join(made.note.split())})" if made.note else ""
    return f"{moment(made.at)} {made.by}: {made.verdict}{wanted}{note}: {made.words}"


def _paid(view: TaskView) -> str:
    result = view.result
    if not result or not result.refund:
        return ""
    booked = f", booked as {result.refund_id}" if result.refund_id else ""
    return f"{money(result.refund)} for order {result.refund.order_id}{booked}"
