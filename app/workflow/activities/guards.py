"""The rules that a refund must pass, from our own books alone: no model's word moves money. Pure.

They are asked once the books hold the money, with what the books said in that moment. So two tickets of one order or
one customer cannot both miss each other: the second sees the first.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

from app.config.policy import Rules
from app.domain.decision_texts import BOOKS_REFUSE
from app.domain.models import Action, Category, Draft, Refund, minor_units
from app.domain.orders import Account, Exposure, Order, RefundPolicy

# The books' own words for what the guards call otherwise.
_BOOKS_WORDS = {
    "order_not_found": "order_unknown",
    "currency_mismatch": "currency_differs",
    "exceeds_refundable": "above_refundable",
}
# These speak of the refund that was given, not of the ticket: another one may be accepted.
OF_THE_REFUND = frozenset({*_BOOKS_WORDS.values(), "refund_missing"})
# What must have happened to an order before somebody can say so of it: other claims need a person.
_STATUSES = {
    Category.DAMAGED: ({"delivered"}, "not_delivered"),
    Category.WRONG_ITEM: ({"delivered"}, "not_delivered"),
    Category.CHANGED_MIND: ({"delivered"}, "not_delivered"),
    Category.NOT_RECEIVED: ({"shipped", "delivered"}, "not_sent"),
    Category.CANCELLATION: ({"processing"}, "out_of_window"),
}


def objection(
    draft: Draft,
    category: Category,
    account: Account,
    exposure: Exposure | None,
    policy: RefundPolicy | None,
    rules: Rules,
) -> str | None:
    """Why a person must decide about the draft, as a short code; None when it may go on by itself."""
    if draft.action is Action.ESCALATE:
        return "model_unsure"
    if draft.action is not Action.REFUND:
        return None
    if category is Category.FRAUD:
        return "fraud_reported"
    if exposure is None or exposure.order.order_id != draft.order_id:
        return "order_unknown"
    if policy is None or policy.category is not category:
        return "no_policy"
    return _against_books(draft, exposure.order, policy) or _against_rules(draft, account, exposure, rules)


def _against_books(draft: Draft, order: Order, policy: RefundPolicy) -> str | None:
    amount = draft.amount or Decimal(0)
    if draft.currency != order.currency:
        return "currency_differs"
    if amount <= 0:
        return "no_amount"
    if amount > order.refundable:
        return "above_refundable"
    if amount > allowed(order, policy):
        return "above_policy"
    if (status := against_status(order, policy.category)) is not None:
        return status
    if not in_window(order, policy):
        return "out_of_window"
    return None


def _against_rules(draft: Draft, account: Account, exposure: Exposure, rules: Rules) -> str | None:
    if (draft.amount or Decimal(0)) + exposure.refunded_90d > rules.limit(draft.currency or ""):
        return "above_limit"
    if draft.confidence < rules.approval.min_confidence:
        return "low_confidence"
    if account.risk != "low":
        return "account_at_risk"
    if exposure.refunds_90d >= rules.approval.serial_refunds:
        return "many_refunds"
    return None


def allowed(order: Order, policy: RefundPolicy) -> Decimal:
    """The most that the policy still lets go back for the order, after what was given back or is in flight. After a
    double charge that is what was charged too much."""
    if policy.category is Category.DOUBLE_CHARGE:
        share = order.charged - order.total
    else:
        share = order.charged * policy.refund_percent / 100
    left = max(share - order.refunded - order.held, Decimal(0))
    return left.quantize(Decimal(1).scaleb(-minor_units(order.currency)), rounding=ROUND_DOWN)


def against_status(order: Order, category: Category) -> str | None:
    """Why the order cannot be what the ticket says of it: nothing arrives broken that was not delivered."""
    statuses, code = _STATUSES.get(category, ({order.status}, ""))
    return None if order.status in statuses else code


def in_window(order: Order, policy: RefundPolicy) -> bool:
    """Whether the policy still covers the order; before delivery, days since delivery have not begun."""
    if policy.counted_from == "order":
        return order.placed_days_ago <= policy.window_days
    return order.delivered_days_ago is None or order.delivered_days_ago <= policy.window_days


def proposed(draft: Draft | None, order: Order | None) -> Refund | None:
    """What a person is shown for approval: the draft's refund, never above what the books allow."""
    if draft is None or draft.action is not Action.REFUND or order is None or order.order_id != draft.order_id:
        return None
    amount = min(draft.amount or Decimal(0), order.refundable)
    if amount <= 0 or draft.currency != order.currency:
        return None
    return Refund(order_id=order.order_id, amount=amount, currency=order.currency)


def refused(code: str) -> str:
    """The books' reason for not keeping a refund, as the short code that a person is shown. Not even a person's word
    overrules the books."""
    return _BOOKS_WORDS.get(code, BOOKS_REFUSE + code)
