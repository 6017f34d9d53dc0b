"""A resolved price: for each kind of token what it costs below and above each tier, contracted and by the list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from app.domain.money import discounted
from app.pricing.charge_types import TOKEN_LINES, Meter, Mode

# Ascending (above, price per million) pairs: the price of the whole request once its input exceeds `above`.
Steps = tuple[tuple[int, Decimal], ...]
Schedule = Mapping[Meter, Steps]
BASE = -1  # "above -1 tokens" holds for every request


def step_at(steps: Steps, input_tokens: int) -> tuple[int, Decimal]:
    """The step that a request of that many input tokens is on."""
    found = steps[0]
    for step in steps:
        if input_tokens > step[0]:
            found = step
    return found


def less(schedule: Schedule, percent: Decimal) -> Schedule:
    """The schedule with a discount on every price."""
    if not percent:
        return schedule
    return {
        line: tuple((above, discounted(price, percent)) for above, price in steps) for line, steps in schedule.items()
    }


def tier_starts(schedule: Schedule) -> tuple[int, ...]:
    """The token counts at which a tier begins, lowest first, the base first of all."""
    return tuple(sorted({above for steps in schedule.values() for above, _ in steps}))


def rates_at(schedule: Schedule, input_tokens: int) -> dict[Meter, Decimal]:
    """What each kind of token costs in a request of that size; a kind without a price of its own is left out."""
    return {line: step_at(schedule[line], input_tokens)[1] for line in TOKEN_LINES if line in schedule}


@dataclass(frozen=True)
class Price:
    """What a model's tokens cost at some time: `contracted` is paid, `listed` is what others would pay.

    `listed` is in the same currency; without a published price it is our own price before discounts.
    """

    id: str
    provider: str
    model: str
    mode: Mode
    currency: str
    contracted: Schedule
    listed: Schedule
    source: str
    checked: date
    where: str = ""  # file:line when the price is ours


@dataclass(frozen=True)
class NoPrice:
    """Why there is none, and what to do about it."""

    reason: str
    remedy: str
