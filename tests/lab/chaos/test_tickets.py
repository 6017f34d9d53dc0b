"""The tickets of the chaos test: mixed by the seed, each with a known end and a customer of its own."""

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
    assert len(tickets) == len({each.task_id for each in tickets}) == count
    assert len({each.ticket.customer_id for each in tickets}) == count, "what one costs depends on no other"
    assert {each.shape for each in tickets} == set(Shape)


def test_few_tickets_are_few() -> None:
    assert len(make_tickets(7, 1)) == 1


def test_most_are_refunds() -> None:
    shapes = [each.shape for each in make_tickets(7, 500)]
    assert shapes.count(Shape.REFUND) > shapes.count(Shape.QUESTION) > shapes.count(Shape.GREEDY) > 20


def test_what_goes_back_is_what_the_books_know_of_the_order() -> None:
    for each in make_tickets(7, 60):
        assert is_visitor(each.ticket.tenant, each.ticket.customer_id)
        (order,) = visitor_orders(each.ticket.tenant, each.ticket.customer_id, 700_000)
        if each.refund is not None:
            assert (each.refund.order_id, each.refund.currency) == (order.order_id, order.currency)
            assert each.refund.amount == PRICE == Decimal(order.total) / 100
            assert order.currency == CURRENCY
        assert (each.refund is not None) == (each.shape is Shape.REFUND)
