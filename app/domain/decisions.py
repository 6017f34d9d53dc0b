"""What became of a decision, in words for the person who made it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from app.domain.models import DecisionState, Refund
from app.domain.reasons import explain

# Codes of what never reached the task.
NOT_WAITING, NO_ROLE, NO_REFUND = "not_waiting", "no_role", "refund_missing"
# Codes of what reached it too late.
ANSWERED_BEFORE, ENDED = "answered_before", "ended"

_FIXED = {
    NOT_WAITING: "the task waited for no decision then",
    NO_ROLE: "the token lacks the role approve",
    NO_REFUND: "the task proposes no refund; approve it with order, amount and currency, or reject it",
    ANSWERED_BEFORE: "too late: the question had been answered before",
    ENDED: "too late: the task was over before anything came of it",
}


def words(
    state: DecisionState, code: str, refund: Refund | None, most: Decimal | None = None, currency: str | None = None
) -> str:
    """One sentence without its full stop. `most` is what the order had left, in `currency`; None when not known."""
    if code in _FIXED:
        return _FIXED[code]
    if state is DecisionState.HANDED_OVER:
        return "handed over to the task, which has not said yet what came of it"
    if state is DecisionState.ACCEPTED:
        return (
            f"accepted: {money(refund.amount, refund.currency)} for order {refund.order_id}" if refund else "accepted"
        )
    if refund is not None and code in _REFUSED:
        return _REFUSED[code](refund, most, currency)
    return f"refused: {explain(code).words}" if code else state.value.replace("_", " ")


def words_of(code: str) -> str:
    """The words of a code that needs no figures."""
    return _FIXED[code]


def money(amount: Decimal, currency: str) -> str:
    """An amount for a sentence: `9,999.00 CHF`."""
    return f"{amount:,} {currency}"


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
