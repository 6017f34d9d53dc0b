"""No model's word moves money: each guard objects to what it is there for, and money never exceeds the books."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.models import Category, Draft
from app.domain.orders import Exposure
from app.workflow.activities import guards
from tests.makers import RULES, account, draft, order, refund_policy


def objection(**parts: Any) -> str | None:
    """The objection to the good case with some parts exchanged."""
    given_parts: dict[str, Any] = {
        "draft": draft(),
        "category": Category.DAMAGED,
        "account": account(),
        "order": order(),
        "refunds_90d": 0,
        "refunded_90d": Decimal("0.00"),
        "policy": refund_policy(),
        "rules": RULES,
    } | parts
    known = {name: given_parts.pop(name) for name in ("order", "refunds_90d", "refunded_90d")}
    exposure = Exposure(**known) if known["order"] else None
    return guards.objection(exposure=exposure, **given_parts)


def test_a_refund_that_books_and_rules_allow_goes_on_by_itself() -> None:
    assert objection() is None


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"draft": draft(action="escalate")}, "model_unsure"),
        ({"category": Category.FRAUD}, "fraud_reported"),
        ({"order": None}, "order_unknown"),
        ({"order": order(order_id="AC-99999")}, "order_unknown"),
        ({"policy": None}, "no_policy"),
        ({"policy": refund_policy(category=Category.CHANGED_MIND)}, "no_policy"),
        ({"draft": draft(currency="USD")}, "currency_differs"),
        ({"draft": draft(amount="0.00")}, "no_amount"),
        ({"draft": draft(amount="49.91")}, "above_refundable"),
        ({"order": order(refunded="20.00", refundable="29.90")}, "above_refundable"),
        ({"policy": refund_policy(refund_percent=50)}, "above_policy"),
        ({"policy": refund_policy(window_days=3)}, "out_of_window"),
        ({"policy": refund_policy(counted_from="order", window_days=8)}, "out_of_window"),
        ({"draft": draft(confidence="0.69")}, "low_confidence"),
        ({"account": account(risk="high")}, "account_at_risk"),
        ({"refunds_90d": 5}, "many_refunds"),
        ({"refunded_90d": Decimal("50.11")}, "above_limit"),
        ({"order": order(refunded="20.00", held="10.00", refundable="49.90")}, "above_policy"),
    ],
)
def test_each_guard_objects(parts: dict[str, Any], code: str) -> None:
    assert objection(**parts) == code


@pytest.mark.parametrize(("amount", "code"), [("100.00", None), ("100.01", "above_limit")])
def test_the_approval_limit_holds_on_both_sides_of_its_boundary(amount: str, code: str | None) -> None:
    costly = order(total="500.00", charged="500.00", refundable="500.00")
    assert objection(draft=draft(amount=amount), order=costly) == code


def test_a_currency_without_a_limit_always_asks() -> None:
    foreign = order(currency="JPY")
    assert objection(draft=draft(currency="JPY", amount="1.00"), order=foreign) == "above_limit"


@pytest.mark.parametrize("action", ["answer", "decline"])
def test_what_moves_no_money_needs_no_person(action: str) -> None:
    assert objection(draft=draft(action=action, amount=None, currency=None), order=None, policy=None) is None


def test_after_a_double_charge_only_the_surplus_goes_back() -> None:
    twice = order(charged="99.80", refundable="99.80")
    terms = refund_policy(category=Category.DOUBLE_CHARGE, window_days=365)
    parts: dict[str, Any] = {"category": Category.DOUBLE_CHARGE, "order": twice, "policy": terms}
    assert objection(**parts) is None
    assert objection(**parts, draft=draft(amount="49.91")) == "above_policy"


@pytest.mark.parametrize(
    ("category", "status", "code"),
    [
        (Category.CANCELLATION, "processing", None),
        (Category.CANCELLATION, "shipped", "out_of_window"),
        (Category.DAMAGED, "processing", "not_delivered"),
        (Category.DAMAGED, "shipped", "not_delivered"),
        (Category.WRONG_ITEM, "cancelled", "not_delivered"),
        (Category.CHANGED_MIND, "processing", "not_delivered"),
        (Category.NOT_RECEIVED, "processing", "not_sent"),
        (Category.NOT_RECEIVED, "cancelled", "not_sent"),
        (Category.NOT_RECEIVED, "shipped", None),
    ],
)
def test_what_a_ticket_says_fits_where_the_order_is(category: Category, status: str, code: str | None) -> None:
    early = order(status=status, delivered_days_ago=None, placed_days_ago=1)
    terms = refund_policy(category=category, counted_from="order", window_days=14)
    assert objection(category=category, order=early, policy=terms) == code


def test_a_second_ticket_sees_the_first_ones_money() -> None:
    twice = order(charged="99.80", held="49.90", refundable="49.90")
    terms = refund_policy(category=Category.DOUBLE_CHARGE, window_days=365)
    assert objection(category=Category.DOUBLE_CHARGE, order=twice, policy=terms) == "above_policy"


cents = st.integers(min_value=0, max_value=1_000_000).map(lambda value: Decimal(value) / 100)


@given(amount=cents, charged=cents, refunded=cents, percent=st.integers(0, 100), confidence=st.integers(0, 100))
def test_whatever_the_model_says_no_more_than_the_books_allow_is_posted(
    amount: Decimal, charged: Decimal, refunded: Decimal, percent: int, confidence: int
) -> None:
    refunded = min(refunded, charged)
    bought = order(total=charged, charged=charged, refunded=refunded, refundable=charged - refunded)
    terms = refund_policy(refund_percent=percent)
    wish = draft(amount=amount, confidence=Decimal(confidence) / 100)
    if objection(draft=wish, order=bought, policy=terms) is None:
        assert 0 < amount <= charged - refunded
        assert amount * 100 <= charged * percent
        assert amount <= RULES.approval.limits["EUR"]
        assert confidence >= 70


@given(amount=cents, refundable=cents)
def test_a_person_is_never_shown_more_than_is_refundable(amount: Decimal, refundable: Decimal) -> None:
    bought = order(total="20000.00", charged="20000.00", refundable=refundable)
    shown = guards.proposal(draft(amount=amount), bought)
    if shown is not None:
        assert shown.amount == min(amount, refundable) > 0
    else:
        assert min(amount, refundable) == 0


def test_nothing_is_proposed_without_a_refund_in_the_draft() -> None:
    answered: Draft = draft(action="answer")
    assert guards.proposal(answered, order()) is None
    assert guards.proposal(None, order()) is None
    assert guards.proposal(draft(order_id="AC-00001"), order()) is None


def test_what_the_books_refuse_has_the_guards_words_or_their_own() -> None:
    assert guards.reason_of("exceeds_refundable") == "above_refundable"
    assert guards.reason_of("ticket_voided") == "books_refuse_ticket_voided"
