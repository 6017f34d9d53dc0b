"""The sample data is what it says: valid, consistent with books, policies and guards, varied, nobody's own.

The guards are written out here again, on purpose: the expectations must follow from the rules, not from the
code that is tested with them.
"""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal

import pytest

from app.domain.models import REFUNDABLE, Category, Outcome, TaskStatus, Ticket
from sandbox.data import Expectation, SeedCustomer, SeedOrder, SeedPolicy, load_books, load_expected, load_tickets

TICKETS = {ticket.task_id: ticket for ticket in load_tickets()}
EXPECTED = load_expected()
TENANTS = {tenant.tenant: tenant for tenant in load_books().tenants}
SHOPS = {"acme": ("AC-1", "USD"), "lumen": ("LU-2", "EUR"), "brightly": ("BR-3", "GBP"), "nordwind": ("NW-4", "EUR")}
LIMIT = Decimal("100.00")
CUSTOMERS = {
    (name, customer.customer_id): customer for name, tenant in TENANTS.items() for customer in tenant.customers
}
ORDERS = {(name, order.order_id): order for (name, _), customer in CUSTOMERS.items() for order in customer.orders}
ORDER_ID = re.compile(r"\b(?:AC|LU|BR|NW)-\d+\b")
TEST_CARDS = {"4111111111111111", "4242424242424242", "5555555555554444", "378282246310005"}
TEST_IBANS = ("DE89 3704 0044 0532 0130 00", "GB33 BUKB 2020 1555 5555 55")
TEST_PHONES = re.compile(r"\+1 202 555 01\d\d|\+49 30 23125 \d{3}|020 7946 0\d{3}|01 99 00 \d\d \d\d")


def customer_of(task_id: str) -> SeedCustomer:
    """The account a ticket comes from."""
    ticket = TICKETS[task_id]
    return CUSTOMERS[ticket.tenant, ticket.customer_id]


def policy_of(task_id: str, category: Category) -> SeedPolicy:
    """What the ticket's shop pays back for a category."""
    return next(policy for policy in TENANTS[TICKETS[task_id].tenant].policies if policy.category is category)


def named_orders(ticket: Ticket) -> set[str]:
    """Every order id the customer wrote down."""
    written = set(ORDER_ID.findall(f"{ticket.subject}\n{ticket.text}"))
    return written | ({ticket.order_id} if ticket.order_id else set())


def bound_of(order: SeedOrder, policy: SeedPolicy) -> Decimal:
    """The most that may go back for an order in one category."""
    if policy.category is Category.DOUBLE_CHARGE:
        return min(order.charged - order.refunded, order.charged - order.total)
    return min(order.charged - order.refunded, order.charged * policy.refund_percent / 100)


def days_left(order: SeedOrder, policy: SeedPolicy) -> int:
    """How many days of the window are left; below zero when it is over."""
    since = order.placed_days_ago if policy.counted_from == "order" else order.delivered_days_ago
    assert since is not None, f"order {order.order_id} was never delivered, but its window counts from delivery"
    return policy.window_days - since


def guards_broken(task_id: str, expected: Expectation) -> set[str]:
    """Which of the agent's guards forbid to post the expected refund at once."""
    refund = expected.refund
    assert refund is not None
    customer = customer_of(task_id)
    order = next(order for order in customer.orders if order.order_id == refund.order_id)
    policy = policy_of(task_id, expected.category)
    checks = {
        "amount": 0 < refund.amount <= bound_of(order, policy),
        "window": days_left(order, policy) >= 0,
        "currency": refund.currency == order.currency,
        "limit": refund.amount <= LIMIT,
        "risk": customer.risk == "low",
        "serial": customer.refunds_90d < 5,
        "category": expected.category in REFUNDABLE,
    }
    return {name for name, held in checks.items() if not held}


def cases(status: TaskStatus, outcome: Outcome | None = None) -> list[str]:
    """The task ids whose expected end is this."""
    return sorted(
        task_id for task_id, wanted in EXPECTED.items() if (wanted.status, wanted.outcome) == (status, outcome)
    )


def test_every_ticket_has_one_expectation() -> None:
    assert len(TICKETS) == len(load_tickets()) >= 330
    assert TICKETS.keys() == EXPECTED.keys()


def test_no_two_customers_write_the_same_words() -> None:
    words = [ORDER_ID.sub("", f"{ticket.subject} {ticket.text}").strip() for ticket in TICKETS.values()]
    assert [text for text, count in Counter(words).items() if count > 1 and text] == []


def test_kinds_languages_and_tenants_are_as_promised() -> None:
    share = {key: count / len(EXPECTED) for key, count in Counter(e.kind for e in EXPECTED.values()).items()}
    assert 0.08 <= share["high_value"] <= 0.12
    assert 0.12 <= share["question"] <= 0.17
    assert 0.05 <= share["injection"] <= 0.07
    assert min(share["complaint"], share["fraud"], share["vague"] + share["empty"]) > 0.04
    refunded = cases(TaskStatus.COMPLETED, Outcome.REFUNDED)
    assert 0.42 <= len(refunded) / len(EXPECTED) <= 0.48
    assert {EXPECTED[task_id].category for task_id in refunded} == REFUNDABLE
    assert 0.06 <= len(cases(TaskStatus.COMPLETED, Outcome.DECLINED)) / len(EXPECTED) <= 0.09
    languages = Counter(e.language for e in EXPECTED.values())
    assert set(languages) >= {"en", "de", "fr", "es", "it", "nl", "pt", "pl"}
    assert languages["en"] / len(EXPECTED) <= 0.75
    assert sum(e.clear for e in EXPECTED.values()) / len(EXPECTED) >= 0.70
    assert set(Counter(t.tenant for t in TICKETS.values())) == set(SHOPS)
    assert {e.category for e in EXPECTED.values()} == set(Category)


def test_every_customer_is_known_and_orders_are_whole() -> None:
    assert all((ticket.tenant, ticket.customer_id) in CUSTOMERS for ticket in TICKETS.values())
    assert len(ORDERS) == sum(len(customer.orders) for customer in CUSTOMERS.values())
    for (tenant, order_id), order in ORDERS.items():
        prefix, _ = SHOPS[tenant]
        assert re.fullmatch(rf"{prefix}\d{{4}}", order_id), order_id
        assert (order.status == "delivered") == (order.delivered_days_ago is not None), order_id
        assert order.placed_days_ago >= (order.delivered_days_ago or 0), order_id
        assert order.refunded <= order.charged, order_id


def test_each_tenant_has_a_policy_for_every_refundable_category() -> None:
    for tenant in TENANTS.values():
        assert {policy.category for policy in tenant.policies} == REFUNDABLE, tenant.tenant
        assert len(tenant.policies) == len(REFUNDABLE)


@pytest.mark.parametrize("task_id", cases(TaskStatus.COMPLETED, Outcome.REFUNDED))
def test_a_refunded_ticket_passes_every_guard(task_id: str) -> None:
    expected = EXPECTED[task_id]
    refund = expected.refund
    assert refund is not None
    assert guards_broken(task_id, expected) == set()
    order = ORDERS[TICKETS[task_id].tenant, refund.order_id]
    assert days_left(order, policy_of(task_id, expected.category)) >= 1, "a run over midnight would change it"
    if expected.category is Category.CANCELLATION:
        assert order.status == "processing"


@pytest.mark.parametrize("task_id", [*cases(TaskStatus.COMPLETED, Outcome.REFUNDED), *cases(TaskStatus.WAITING)])
def test_the_order_of_a_refund_can_be_known_from_the_ticket(task_id: str) -> None:
    expected = EXPECTED[task_id]
    if expected.refund is None:
        return
    mine = {order.order_id for order in customer_of(task_id).orders}
    named = named_orders(TICKETS[task_id]) & mine
    assert expected.refund.order_id in (named or mine)
    if expected.kind == "no_order_id":
        assert not named


@pytest.mark.parametrize("task_id", cases(TaskStatus.WAITING))
def test_a_waiting_ticket_needs_a_person(task_id: str) -> None:
    expected = EXPECTED[task_id]
    if expected.refund is None:
        assert expected.kind == "injection" or expected.category is Category.FRAUD
        return
    wanted = {"high_value": {"limit"}, "high_risk": {"risk"}, "serial": {"serial"}}
    assert guards_broken(task_id, expected) == wanted[expected.kind]


@pytest.mark.parametrize("task_id", cases(TaskStatus.COMPLETED, Outcome.DECLINED))
def test_a_declined_ticket_has_a_reason(task_id: str) -> None:
    expected = EXPECTED[task_id]
    (order_id,) = named_orders(TICKETS[task_id])
    order = next(order for order in customer_of(task_id).orders if order.order_id == order_id)
    reasons = {
        "duplicate": order.refunded == order.charged,
        "not_overcharged": order.charged == order.total,
        "cancelled_late": order.status == "shipped",
    }
    if expected.kind == "out_of_window":
        reasons["out_of_window"] = days_left(order, policy_of(task_id, expected.category)) < 0
    assert reasons[expected.kind]
    assert expected.refund is None


@pytest.mark.parametrize("task_id", cases(TaskStatus.COMPLETED, Outcome.ANSWERED))
def test_an_answered_ticket_asks_for_no_money_or_for_an_order_that_is_not_theirs(task_id: str) -> None:
    expected = EXPECTED[task_id]
    assert expected.refund is None
    if expected.category in REFUNDABLE:
        mine = {order.order_id for order in customer_of(task_id).orders}
        assert named_orders(TICKETS[task_id]) - mine == named_orders(TICKETS[task_id]) != set()
    if expected.kind == "foreign_order":
        assert all((TICKETS[task_id].tenant, other) in ORDERS for other in named_orders(TICKETS[task_id]))


def test_no_two_refunds_compete_for_an_order_or_make_a_customer_serial() -> None:
    refunds = {task_id: e.refund for task_id, e in EXPECTED.items() if e.refund is not None}
    assert len({refund.order_id for refund in refunds.values()}) == len(refunds)
    customers = Counter((TICKETS[task_id].tenant, TICKETS[task_id].customer_id) for task_id in refunds)
    assert set(customers.values()) == {1}


def test_huge_tickets_are_huge_and_acceptable() -> None:
    sizes = {len(TICKETS[t].text.encode()) for t, wanted in EXPECTED.items() if wanted.kind == "huge"}
    assert len(sizes) >= 4
    assert min(sizes) >= 20_000
    assert max(sizes) <= 40_000


def test_personal_data_is_there_to_redact_and_is_nobodys() -> None:
    texts = [f"{ticket.subject}\n{ticket.text}" for ticket in TICKETS.values()]
    mails = [mail for text in texts for mail in re.findall(r"[\w.+-]+@[\w.-]+\w", text)]
    assert all(re.search(r"@example\.(com|org|net)$", mail) for mail in mails)
    plain = [TEST_PHONES.sub(" ", re.sub("|".join(TEST_IBANS), " ", text)) for text in texts]
    cards = [re.sub(r"\D", "", card) for text in plain for card in re.findall(r"\b\d[\d -]{13,18}\d\b", text)]
    assert set(cards) <= TEST_CARDS
    phones = [phone for text in texts for phone in TEST_PHONES.findall(text)]
    assert [text for text in plain if re.search(r"\+\d[\d ]{6,}\d", text)] == []
    assert min(len(mails), len(phones), len(cards)) >= 6
