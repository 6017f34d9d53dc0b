"""What failures cost, of random tasks: another reckoning, from the records themselves and with fractions, agrees."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from app.finance.failures.failure_figures import PREVENTED, FailureScope, Runner, model_money, parts
from app.finance.rollup import Dimension, Group
from tests.finance.failures.crashes import sights, tales
from tests.finance.failures.plain import Figures, facts_of, figures


def tokens(group: Group) -> int:
    """All of them."""
    return int(sum(each.consumed_quantity for each in group.tokens))


def told(runner: Runner, whole: FailureScope) -> tuple[object, ...]:
    """What both reckon, of the product."""
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


def expected(found: Figures) -> tuple[object, ...]:
    """The same of the other reckoning."""
    prevented = {role: {k: v for k, v in sums.items() if v} for role, sums in found.prevented.items()}
    again: dict[str, Fraction] = {}
    for sums in (*found.prevented.values(), found.durable):
        for currency, amount in sums.items():
            again[currency] = again.get(currency, Fraction(0)) + amount
    shares = {name: places(again.get(name, Fraction(0)) / clean) for name, clean in found.clean.items() if clean}
    return (
        (
            found.tasks,
            found.failed,
            found.restarts,
            middle(found.progress),
        ),
        {role: sums for role, sums in prevented.items() if sums},
        {role: count for role, count in found.tokens.items() if count},
        {currency: amount for currency, amount in found.durable.items() if amount},
        {currency: share for currency, share in shares.items() if share},
    )


def middle(progress: Sequence[Fraction]) -> tuple[int, Decimal, Decimal] | None:
    """How many, mean and median."""
    if not progress:
        return None
    ordered, count = sorted(progress), len(progress)
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return count, places(sum(ordered, Fraction(0)) / count), places(median)


def nonzero(sums: Mapping[str, Decimal]) -> dict[str, Fraction]:
    """Without zeros."""
    return {name: Fraction(amount) for name, amount in sums.items() if amount}


def places(figure: Fraction) -> Decimal:
    """To six places."""
    return Decimal(round(figure * 10**6)).scaleb(-6)


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_another_reckoning_comes_to_the_same(seed: int) -> None:
    dice = random.Random(seed)
    records = [list(sights(each, dice))[-1] for each in tales(seed, 12)]
    ended = [record for record in records if record.ended_at is not None]
    facts = facts_of(records)
    (whole,) = parts(facts)
    assert told(whole.every, whole) == expected(figures(ended, crashes_alone=False))
    assert told(whole.crashes, whole) == expected(figures(ended, crashes_alone=True))
    for each in parts(facts, (Dimension.STAGE,)):
        assert told(each.every, each) == expected(figures(ended, crashes_alone=False, stage=each.key[0]))
        assert told(each.crashes, each) == expected(figures(ended, crashes_alone=True, stage=each.key[0]))
