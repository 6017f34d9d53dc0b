"""Exact sums of charges by any of their dimensions, each split by how well it is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from app.domain.models import UsageBasis
from app.domain.money import ZERO, add
from app.pricing.charge_types import TOKEN_METERS, Charge, CostBasis, Meter, worst_of

_Key = TypeVar("_Key", bound=Hashable)
WASTED = "wasted"  # the bucket of all charges for work that brought no result, whatever they pay for


class Dimension(StrEnum):
    """A dimension by which charges can be grouped."""

    TENANT = "tenant"
    AGENT = "agent"
    WORKFLOW = "workflow"
    TASK = "task"
    STAGE = "stage"
    STEP = "step"
    TOOL = "tool"
    MODEL = "model"
    PROVIDER = "provider"
    COMPONENT = "component"
    OUTCOME = "outcome"
    DAY = "day"  # in UTC
    PRICE_BOOK = "price-book"
    PRICE = "price"
    KIND = "kind"  # model, compute, orchestration or wasted
    METER = "meter"


def bucket(charge: Charge) -> str:
    """The kind of the charge, or `wasted` if it paid for wasted work."""
    return WASTED if charge.wasted else charge.kind.value


_READ: Mapping[Dimension, Callable[[Charge], str]] = {
    Dimension.TENANT: lambda charge: charge.tenant,
    Dimension.AGENT: lambda charge: charge.agent,
    Dimension.WORKFLOW: lambda charge: charge.workflow,
    Dimension.TASK: lambda charge: charge.task_id,
    Dimension.STAGE: lambda charge: charge.stage,
    Dimension.STEP: lambda charge: charge.step,
    Dimension.TOOL: lambda charge: charge.tool,
    Dimension.MODEL: lambda charge: charge.model,
    Dimension.PROVIDER: lambda charge: charge.provider,
    Dimension.COMPONENT: lambda charge: charge.component,
    Dimension.OUTCOME: lambda charge: charge.outcome,
    Dimension.DAY: lambda charge: charge.at.date().isoformat(),
    Dimension.PRICE_BOOK: lambda charge: charge.book_digest,
    Dimension.PRICE: lambda charge: charge.price_id or "",
    Dimension.KIND: bucket,
    Dimension.METER: lambda charge: charge.meter.value,
}


@dataclass(frozen=True)
class MoneySum:
    """Money of one currency. `by_basis` and `by_kind` each sum to `contracted_cost` exactly."""

    currency: str
    contracted_cost: Decimal
    list_cost: Decimal
    by_basis: Mapping[CostBasis, Decimal]
    by_kind: Mapping[str, Decimal]  # model, compute, orchestration, wasted


@dataclass(frozen=True)
class QuantitySum:
    """A sum of one meter. `by_basis` sums to `consumed_quantity`; `missing` is the number of charges with an unknown
    quantity."""

    meter: Meter
    consumed_quantity: Decimal
    by_basis: Mapping[UsageBasis, Decimal]
    missing: int


@dataclass(frozen=True)
class Group:
    """The sums of all charges with the same values of the dimensions; `key` has these values in the requested order.

    `unreported` and `unpriced` charges are in no sum of `money`; if there are any, the sums are incomplete, and
    `cost_basis` shows it.
    """

    key: tuple[str, ...]
    charges: int
    money: tuple[MoneySum, ...]  # one per currency, in alphabetical order
    quantities: tuple[QuantitySum, ...]  # in the order of `Meter`
    cost_basis: CostBasis
    unreported: int
    unpriced: int

    @property
    def tokens(self) -> tuple[QuantitySum, ...]:
        """The quantities of tokens."""
        return tuple(quantity for quantity in self.quantities if quantity.meter in TOKEN_METERS)


@dataclass(frozen=True)
class Rollup:
    """Groups ordered by key, and their total."""

    by: tuple[Dimension, ...]
    groups: tuple[Group, ...]
    total: Group


@dataclass
class _Sums:
    """The sums of a group while charges are added."""

    charges: int = 0
    money: dict[str, dict[tuple[CostBasis, str], Decimal]] = field(default_factory=dict)
    listed: dict[str, Decimal] = field(default_factory=dict)
    quantities: dict[Meter, dict[UsageBasis, Decimal]] = field(default_factory=dict)
    missing: Counter[Meter] = field(default_factory=Counter)
    knowns: Counter[CostBasis] = field(default_factory=Counter)

    def add_charge(self, charge: Charge, times: int) -> None:
        """Adds a charge that is the sum of `times` charges."""
        self.charges += times
        self.knowns[charge.cost_basis] += times
        if charge.contracted_cost is not None and charge.currency is not None:
            _grow(
                self.money.setdefault(charge.currency, {}), (charge.cost_basis, bucket(charge)), charge.contracted_cost
            )
            _grow(
                self.listed, charge.currency, charge.contracted_cost if charge.list_cost is None else charge.list_cost
            )
        quantities = self.quantities.setdefault(charge.meter, {})
        if charge.consumed_quantity is None:
            self.missing[charge.meter] += times
        else:
            _grow(quantities, charge.usage_basis, charge.consumed_quantity)

    def group(self, key: tuple[str, ...]) -> Group:
        """The group of the charges added so far."""
        return Group(
            key=key,
            charges=self.charges,
            money=tuple(_money(currency, self.money[currency], self.listed) for currency in sorted(self.money)),
            quantities=tuple(_quantity(self, line) for line in Meter if line in self.quantities),
            cost_basis=worst_of(+self.knowns),
            unreported=self.knowns[CostBasis.UNREPORTED],
            unpriced=self.knowns[CostBasis.UNPRICED],
        )


def rollup(charges: Iterable[Charge], by: Sequence[Dimension] = ()) -> Rollup:
    """The sums of the charges for each combination of the dimensions' values, and in total."""
    return rollup_sums(((charge, -1 if charge.takes_back else 1) for charge in charges), by)


def rollup_sums(sums_of: Iterable[tuple[Charge, int]], by: Sequence[Dimension] = ()) -> Rollup:
    """The same as `rollup` for charges that are already sums, each with its number of charges. Such charges are equal
    in everything but quantity and amounts. A charge that takes another back counts as -1."""
    readers = [_READ[dimension] for dimension in by]
    sums: dict[tuple[str, ...], _Sums] = {}
    total = _Sums()
    for charge, times in sums_of:
        key = tuple(reader(charge) for reader in readers)
        sums.setdefault(key, _Sums()).add_charge(charge, times)
        total.add_charge(charge, times)
    return Rollup(tuple(by), tuple(sums[key].group(key) for key in sorted(sums)), total.group(()))


def _grow(sums: dict[_Key, Decimal], key: _Key, amount: Decimal) -> None:
    sums[key] = add(sums.get(key, ZERO), amount)


def _money(currency: str, parts: Mapping[tuple[CostBasis, str], Decimal], listed: Mapping[str, Decimal]) -> MoneySum:
    amount, by_basis, by_kind = ZERO, dict[CostBasis, Decimal](), dict[str, Decimal]()
    for (known, kind), part in parts.items():
        amount = add(amount, part)
        _grow(by_basis, known, part)
        _grow(by_kind, kind, part)
    return MoneySum(currency, amount, listed[currency], by_basis, by_kind)


def _quantity(sums: _Sums, line: Meter) -> QuantitySum:
    parts = sums.quantities[line]
    whole = ZERO
    for part in parts.values():
        whole = add(whole, part)
    return QuantitySum(line, whole, dict(parts), sums.missing[line])
