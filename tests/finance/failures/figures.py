"""Figures of a few tasks, taken apart."""

from __future__ import annotations

from decimal import Decimal

from app.finance.failures.failure_figures import CostShare, FailureScope, parts
from app.finance.rollup import Group
from app.ledger.store.task_record import TaskRecord
from tests.finance.failures.plain import facts_of

MODEL = "model"


def part(*records: TaskRecord) -> FailureScope:
    """The figures of all of them."""
    (found,) = parts(facts_of(records))
    return found


def cents(amount: str) -> Decimal:
    """An amount."""
    return Decimal(amount)


def spent(group: Group, kind: str = MODEL) -> Decimal:
    """Dollars of a kind."""
    return next((sum_.by_kind.get(kind, Decimal(0)) for sum_ in group.money if sum_.currency == "USD"), Decimal(0))


def tokens(group: Group) -> Decimal:
    """All of them."""
    return sum((each.consumed_quantity for each in group.tokens), Decimal(0))


def value(share: CostShare) -> tuple[str, Decimal, Decimal]:
    """Without its interval."""
    assert share.share is not None
    return share.currency, share.contracted_cost, share.share.value
