"""What a person sees of a task before deciding about it: reason, order, account, limit, the customer's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from app.domain.decisions import money
from app.domain.models import Case, Decision, DecisionState, DecisionView, Refund, TaskView
from app.domain.reasons import explain
from app.web.pages import page_words as words
from app.web.pages.summary import Fact

# The ages that the inbox can be narrowed to, by their names in the address.
AGES = {"1h": timedelta(hours=1), "4h": timedelta(hours=4), "1d": timedelta(days=1), "2d": timedelta(days=2)}
MAX_NOTE_CHARACTERS = 500


class BadForm(Exception):
    """A form whose fields cannot be taken; the message says which, and how to write it."""


@dataclass(frozen=True, slots=True)
class Question:
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
class Asked:
    """A question with what the customer wrote; empty for somebody who may not read it."""

    question: Question
    subject: str
    text: str


def make_asked(case: Case, now: datetime, *, reads: bool) -> Asked:
    """One entry of the inbox."""
    ticket = case.ticket
    question = make_question(case.task, now, customer=ticket.customer_id if reads else "")
    return Asked(question, ticket.subject if reads else "", ticket.text if reads else "")


def make_question(view: TaskView, now: datetime, customer: str = "") -> Question:
    """The question of a waiting task. `customer` is the account's id, where it is to be shown."""
    reason = explain(view.waiting_for or "")
    asked, proposed = view.question, view.proposed_refund
    order = asked.order if asked else None
    left = _at(asked.expires_at) - now if asked else None
    return Question(
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
    facts = [Fact("Proposed", _refund(proposed) if proposed else "no refund", strong=True)]
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
    facts.append(Fact("Asked", f"{words.length(max(now - since, timedelta(0)))} ago, {words.instant(since)} UTC"))
    left = f"{words.length(until - now)} left" if until > now else "over"
    return [*facts, Fact("Time", f"{left}, until {words.instant(until)} UTC")]


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
        wrong = {str(each["loc"][0]) for each in error.errors(include_input=False)}
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
            made.verdict + (f" {_refund(made.refund)}" if made.refund else ""),
            made.note,
            "bad" if made.state in (DecisionState.REFUSED, DecisionState.TOO_LATE) else made.state.value,
            made.words,
            explain(made.reason).words if made.reason else words.NOTHING,
        )
        for made in trail
    )


def _refund(refund: Refund) -> str:
    return f"{money(refund.amount, refund.currency)} for order {refund.order_id}"


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)
