"""The tickets of the chaos test: the seed mixes them, and each has a known result and its own customer."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from lab.chaos.load import make_tickets
from lab.tickets import CURRENCY, PRICE, Shape
from sandbox.systems.orders import is_visitor, visitor_orders


@given(st.integers(0, 10_000), st.integers(3, 60))
def test_the_seed_alone_makes_the_tickets_and_each_shape_is_there(seed: int, count: int) -> None:
    tickets = make_tickets(seed, count)
    assert tickets == make_tickets(seed, count)
    assert len(tickets) == len({ticket.task_id for ticket in tickets}) == count
    assert len({ticket.ticket.customer_id for ticket in tickets}) == count, "costs are independent"
    assert {ticket.shape for ticket in tickets} == set(Shape)


def test_one_ticket_is_possible() -> None:
    assert len(make_tickets(7, 1)) == 1


def test_most_are_refunds() -> None:
    shapes = [ticket.shape for ticket in make_tickets(7, 500)]
    assert shapes.count(Shape.REFUND) > shapes.count(Shape.QUESTION) > shapes.count(Shape.GREEDY) > 20


def test_a_refund_equals_the_price_of_the_order_in_the_books() -> None:
    for expected in make_tickets(7, 60):
        assert is_visitor(expected.ticket.tenant, expected.ticket.customer_id)
        (order,) = visitor_orders(expected.ticket.tenant, expected.ticket.customer_id, 700_000)
        if expected.refund is not None:
            assert (expected.refund.order_id, expected.refund.currency) == (order.order_id, order.currency)
            assert expected.refund.amount == PRICE == Decimal(order.total) / 100
            assert order.currency == CURRENCY
        assert (expected.refund is not None) == (expected.shape is Shape.REFUND)
