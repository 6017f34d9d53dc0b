"""The wording of a decision's result: the reason, and the limit if there is one."""

from __future__ import annotations

from decimal import Decimal

import pytest

from app.domain.decision_texts import words
from app.domain.models import DecisionState, Refund

REFUSED = DecisionState.REFUSED


def refund(amount: str, currency: str = "EUR") -> Refund:
    """A refund for order X."""
    return Refund.model_validate({"order_id": "X", "amount": amount, "currency": currency})


@pytest.mark.parametrize(
    ("code", "wanted", "most", "said"),
    [
        ("above_refundable", "9999.00", "59.90", "9,999.00 EUR is more than order X has left: 59.90 EUR at most"),
        ("above_refundable", "9999.00", None, "9,999.00 EUR is more than order X has left"),
        ("above_refundable", "10.00", "0.00", "order X has nothing left to give back"),
        ("order_unknown", "10.00", None, "the books know no order X of this customer"),
        (
            "books_refuse_exceeds_refundable",
            "10.00",
            None,
            "refused: the books refused to post the refund: "
            "the refund is more than what is left to refund on this order",
        ),
        ("held_elsewhere", "10.00", None, "refused: held elsewhere"),
    ],
)
def test_a_refusal_names_the_reason_and_the_limit(code: str, wanted: str, most: str | None, said: str) -> None:
    assert words(REFUSED, code, refund(wanted), Decimal(most) if most else None, "EUR") == said


def test_a_wrong_currency_is_named_with_the_orders_own() -> None:
    said = words(REFUSED, "currency_differs", refund("9.00", "CHF"), Decimal("59.90"), "EUR")
    assert said == "order X was paid in EUR, not in CHF: 59.90 EUR at most"


def test_every_state_has_words() -> None:
    assert words(DecisionState.ACCEPTED, "", refund("59.90")) == "accepted: 59.90 EUR for order X"
    assert words(DecisionState.ACCEPTED, "", None) == "accepted"
    assert words(DecisionState.HANDED_OVER, "", None).startswith("handed over")
    assert words(DecisionState.TOO_LATE, "answered_before", None).startswith("too late")
    for state in DecisionState:
        assert words(state, "", None)
