"""The price of a model's tokens: by kind of token and tier, contracted and by the published list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from app.domain.money import discounted
from app.pricing.charge_types import TOKEN_METERS, Meter, Mode

# Ascending pairs (above, price per million tokens). A price applies to the whole request if its input exceeds `above`.
Steps = tuple[tuple[int, Decimal], ...]
Schedule = Mapping[Meter, Steps]
BASE = -1  # every request has more than -1 input tokens


def step_at(steps: Steps, input_tokens: int) -> tuple[int, Decimal]:
    """The step that applies to a request with this many input tokens."""
    applicable = steps[0]
    for step in steps:
        if input_tokens > step[0]:
            applicable = step
    return applicable


def discount_schedule(schedule: Schedule, percent: Decimal) -> Schedule:
    """The schedule with a discount of `percent` on every price."""
    if not percent:
        return schedule
    return {
        meter: tuple((above, discounted(price, percent)) for above, price in steps) for meter, steps in schedule.items()
    }


def tier_starts(schedule: Schedule) -> tuple[int, ...]:
    """The numbers of input tokens above which a tier starts, ascending; the first is BASE."""
    return tuple(sorted({above for steps in schedule.values() for above, _ in steps}))


def rates_at(schedule: Schedule, input_tokens: int) -> dict[Meter, Decimal]:
    """The price per million tokens of each kind in a request with this many input tokens. A kind without its own price
    is left out."""
    return {meter: step_at(schedule[meter], input_tokens)[1] for meter in TOKEN_METERS if meter in schedule}


@dataclass(frozen=True)
class Price:
    """The price of a model's tokens at a time.

    contracted: what is paid. listed: the list price, in the same currency; our own price before discounts if none is
    published. checked: when its source was last checked. where: `file:line` of a price of ours, else empty.
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
    where: str = ""


@dataclass(frozen=True)
class NoPrice:
    """Why a model has no price, and what to do about it."""

    reason: str
    remedy: str
