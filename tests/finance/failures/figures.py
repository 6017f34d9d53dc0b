"""Shortcuts to the figures of a few tasks."""

from __future__ import annotations

from decimal import Decimal

from app.finance.failures.failure_figures import CostShare, FailureScope, failure_costs
from app.finance.rollup import Group
from app.ledger.store.task_record import TaskRecord
from tests.finance.failures.plain import facts_of

MODEL = "model"


def part(*records: TaskRecord) -> FailureScope:
    """The figures of these tasks together."""
    (scope,) = failure_costs(facts_of(records))
    return scope


def cents(amount: str) -> Decimal:
    """An amount of money."""
    return Decimal(amount)


def spent(group: Group, kind: str = MODEL) -> Decimal:
    """The dollars of one kind of cost."""
    return next((sum_.by_kind.get(kind, Decimal(0)) for sum_ in group.money if sum_.currency == "USD"), Decimal(0))


def tokens(group: Group) -> Decimal:
    """All tokens of the group."""
    return sum((quantity.consumed_quantity for quantity in group.tokens), Decimal(0))


def value(share: CostShare) -> tuple[str, Decimal, Decimal]:
    """A share without its interval: currency, amount, share."""
    assert share.share is not None
    return share.currency, share.contracted_cost, share.share.value
