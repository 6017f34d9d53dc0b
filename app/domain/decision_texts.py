"""The wording of decisions, and of the reasons why a task waits for a person: one table for command line and pages.

The codes are stable and travel in the workflow's history; the wording may change with any version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from app.domain import formatting
from app.domain.formatting import money
from app.domain.models import DecisionState, Refund

# The wording of a decision's result.

# Codes of decisions that never reached the task.
NOT_WAITING, NO_ROLE, NO_REFUND = "not_waiting", "no_role", "refund_missing"
# Codes of decisions that reached it too late.
ANSWERED_BEFORE, ENDED = "answered_before", "ended"

_FIXED = {
    NOT_WAITING: "the task was not waiting for a decision",
    NO_ROLE: "the token lacks the role approve",
    NO_REFUND: "the task proposes no refund; approve it with order, amount and currency, or reject it",
    ANSWERED_BEFORE: "too late: the question had been answered before",
    ENDED: "too late: the task had ended before",
}


def words(
    state: DecisionState, code: str, refund: Refund | None, most: Decimal | None = None, currency: str | None = None
) -> str:
    """The result of a decision as one sentence without its full stop. `most` is what was left to refund on the order,
    in `currency`; None if unknown."""
    if code in _FIXED:
        return _FIXED[code]
    if state is DecisionState.HANDED_OVER:
        return "handed over to the task, which has not answered yet"
    if state is DecisionState.ACCEPTED:
        return f"accepted: {formatting.refund(refund)}" if refund else "accepted"
    if refund is not None and code in _REFUSED:
        return _REFUSED[code](refund, most, currency)
    return f"refused: {explain(code).words}" if code else state.value.replace("_", " ")


def words_of(code: str) -> str:
    """The wording of a code that needs no figures."""
    return _FIXED[code]


def _above(refund: Refund, most: Decimal | None, currency: str | None) -> str:
    if most is not None and most <= 0:
        return f"order {refund.order_id} has nothing left to give back"
    wanted = money(refund.amount, refund.currency)
    return f"{wanted} is more than order {refund.order_id} has left{_limit(most, currency)}"


def _currency(refund: Refund, most: Decimal | None, currency: str | None) -> str:
    paid = f"in {currency}, not in {refund.currency}" if currency else f"not in {refund.currency}"
    return f"order {refund.order_id} was paid {paid}{_limit(most, currency)}"


def _unknown(refund: Refund, _most: Decimal | None, _currency: str | None) -> str:
    return f"the books know no order {refund.order_id} of this customer"


def _limit(most: Decimal | None, currency: str | None) -> str:
    return f": {money(most, currency)} at most" if most is not None and currency else ""


_REFUSED: dict[str, Callable[[Refund, Decimal | None, str | None], str]] = {
    "above_refundable": _above,
    "currency_differs": _currency,
    "order_unknown": _unknown,
}


# The beginning of the reason that the worker gives for broken workflow code (`app/worker/turns.py`).
BROKEN = "workflow: its code"
BOOKS_REFUSE = "books_refuse_"  # prefix of the refund system's code if it refused to post a refund


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason why a task waits. `words` follow "waits because"; `advice` says what to check before deciding."""

    code: str
    words: str
    advice: str


_OWN_REFUND = "look the ticket up; approve with the right refund (order, amount, currency), or reject"
_REASONS = {
    code: Reason(code, words, advice)
    for code, words, advice in (
        (
            "above_limit",
            "the refund plus what the customer received in 90 days is above the limit for refunds without approval",
            "check the order, the proposed amount and the earlier refunds, then approve or reject",
        ),
        ("above_policy", "the refund is more than the refund policy allows for this order", _OWN_REFUND),
        (
            "above_refundable",
            "the refund is more than what is left to refund on this order",
            "see what was refunded before; approve a smaller amount, or reject",
        ),
        (
            "account_at_risk",
            "the customer's account is marked as a risk",
            "check the account and its other orders, then approve or reject",
        ),
        (
            "account_unknown",
            "the books know no such customer",
            "check the ticket's customer id; approve with the refund of the right order, or reject",
        ),
        (
            "account_not_found",
            "the books know no such customer",
            "check the ticket's customer id; approve with the refund of the right order, or reject",
        ),
        (
            "already_committed",
            "the customer has already been promised another refund for this ticket",
            "compare it with the refund in the books; reject, since a ticket gets no second one",
        ),
        (
            "already_told",
            "the customer has already received a letter about this ticket that says something else",
            "compare the decision with the letter in the books, and decide as the letter says",
        ),
        ("classification_unusable", "the model's classification could not be used, twice", _OWN_REFUND),
        ("currency_differs", "the refund is in another currency than the order", _OWN_REFUND),
        ("currency_mismatch", "the refund is in another currency than the order", _OWN_REFUND),
        ("draft_unusable", "the model's draft could not be used, twice", _OWN_REFUND),
        (
            "exceeds_refundable",
            "the refund is more than what is left to refund on this order",
            "see what was refunded before; approve a smaller amount, or reject",
        ),
        (
            "fraud_reported",
            "the ticket reports a fraud",
            "hand it to the people who handle fraud; approve or reject when they have decided",
        ),
        (
            "idempotency_conflict",
            "this ticket has had another refund already",
            "compare it with the refund in the books; reject, since a ticket gets no second one",
        ),
        (
            "low_confidence",
            "the model is not sure enough of its draft",
            "compare the draft with the ticket, then approve or reject",
        ),
        (
            "many_refunds",
            "the customer has had many refunds in the last 90 days",
            "check the account's earlier refunds, then approve or reject",
        ),
        ("model_unsure", "the model leaves the decision to a person", _OWN_REFUND),
        ("no_amount", "the draft names no amount to refund", _OWN_REFUND),
        ("no_draft", "there is no draft", _OWN_REFUND),
        ("no_policy", "no refund policy covers this kind of ticket", _OWN_REFUND),
        (
            "not_delivered",
            "the order is not delivered yet",
            "check where the parcel is, then approve or reject",
        ),
        (
            "not_sent",
            "the order has not been sent yet, so it cannot be lost",
            "check when it is sent, then approve or reject",
        ),
        ("order_not_found", "the books know no such order of this customer", _OWN_REFUND),
        ("order_unknown", "the books know no such order of this customer", _OWN_REFUND),
        (
            "out_of_window",
            "the time in which the refund policy covers this order is over",
            "approve it as an exception, or reject",
        ),
        ("refund_missing", "it was approved without a refund, and the draft proposes none", _OWN_REFUND),
        (
            "ticket_already_refunded",
            "this ticket has had its refund already",
            "compare it with the refund in the books; reject, since a ticket gets no second one",
        ),
        (
            "ticket_voided",
            "the ticket has already ended without a refund, so the books hold no money for it",
            "reject, or send the customer's request again under a new ticket id",
        ),
        ("too_many_turns", "the model produced no draft within its limit of turns", _OWN_REFUND),
    )
}
CODES = frozenset(_REASONS)


def explain(code: str) -> Reason:
    """The reason for a code. An unknown code (the books may have others) is shown with spaces for underscores, and a
    sentence, as parked tasks have, is shown as it is."""
    if code in _REASONS:
        return _REASONS[code]
    if code.startswith(BOOKS_REFUSE):
        inner = explain(code.removeprefix(BOOKS_REFUSE))
        return Reason(code, f"the books refused to post the refund: {inner.words}", inner.advice or _OWN_REFUND)
    return Reason(code, code if " " in code else code.replace("_", " "), "")
