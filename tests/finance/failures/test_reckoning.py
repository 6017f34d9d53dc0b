"""What failures cost, of random tasks: an independent computation from the records, with fractions, agrees."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from app.finance.failures.failure_figures import PREVENTED, FailureScope, Runner, failure_costs, model_money
from app.finance.rollup import Dimension, Group
from tests.finance.failures.crashes import records_of, tales
from tests.finance.failures.plain import Figures, facts_of, figures


def tokens(group: Group) -> int:
    """All tokens of the group."""
    return int(sum(quantity.consumed_quantity for quantity in group.tokens))


def product_figures(runner: Runner, whole: FailureScope) -> tuple[object, ...]:
    """The product's figures that both compute."""
    progress = runner.progress and (runner.progress.count, runner.progress.mean, runner.progress.median)
    prevented = {role: nonzero(model_money(runner.prevented[role])) for role in PREVENTED}
    shares = {share.currency: share.share and share.share.value for share in runner.repeated}
    return (
        (whole.tasks, runner.failed, runner.restarts, progress),
        {role: sums for role, sums in prevented.items() if sums},
        {role: count for role in PREVENTED if (count := tokens(runner.prevented[role]))},
        nonzero({share.currency: share.contracted_cost for share in whole.durable}),
        {currency: share for currency, share in shares.items() if share},
    )


def expected(plain_figures: Figures) -> tuple[object, ...]:
    """The same figures of the independent computation."""
    prevented = {role: {k: v for k, v in sums.items() if v} for role, sums in plain_figures.prevented.items()}
    again: dict[str, Fraction] = {}
    for sums in (*plain_figures.prevented.values(), plain_figures.durable):
        for currency, amount in sums.items():
            again[currency] = again.get(currency, Fraction(0)) + amount
    shares = {
        name: places(again.get(name, Fraction(0)) / clean) for name, clean in plain_figures.clean.items() if clean
    }
    return (
        (
            plain_figures.tasks,
            plain_figures.failed,
            plain_figures.restarts,
            middle(plain_figures.progress),
        ),
        {role: sums for role, sums in prevented.items() if sums},
        {role: count for role, count in plain_figures.tokens.items() if count},
        {currency: amount for currency, amount in plain_figures.durable.items() if amount},
        {currency: share for currency, share in shares.items() if share},
    )


def middle(progress: Sequence[Fraction]) -> tuple[int, Decimal, Decimal] | None:
    """Number, mean and median."""
    if not progress:
        return None
    ordered, count = sorted(progress), len(progress)
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return count, places(sum(ordered, Fraction(0)) / count), places(median)


def nonzero(sums: Mapping[str, Decimal]) -> dict[str, Fraction]:
    """The sums without zeros."""
    return {name: Fraction(amount) for name, amount in sums.items() if amount}


def places(figure: Fraction) -> Decimal:
    """The figure rounded to six places."""
    return Decimal(round(figure * 10**6)).scaleb(-6)


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_an_independent_computation_agrees(seed: int) -> None:
    dice = random.Random(seed)
    records = [list(records_of(tale, dice))[-1] for tale in tales(seed, 12)]
    ended = [record for record in records if record.ended_at is not None]
    facts = facts_of(records)
    (whole,) = failure_costs(facts)
    assert product_figures(whole.every, whole) == expected(figures(ended, crashes_alone=False))
    assert product_figures(whole.crashes, whole) == expected(figures(ended, crashes_alone=True))
    for scope in failure_costs(facts, (Dimension.STAGE,)):
        assert product_figures(scope.every, scope) == expected(figures(ended, crashes_alone=False, stage=scope.key[0]))
        assert product_figures(scope.crashes, scope) == expected(figures(ended, crashes_alone=True, stage=scope.key[0]))
