"""The cost of the same usage under another price book; the charges themselves are not changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain

from app.domain.models import UsageBasis
from app.domain.money import ZERO, difference
from app.finance.rollup import Dimension, Group, MoneySum, rollup
from app.pricing.book import PriceBook
from app.pricing.charge_types import (
    ORIGIN_FIELDS,
    Charge,
    CostBasis,
    CostKind,
    Meter,
    Mode,
    Origin,
    Quantity,
    TokenUsage,
)
from app.pricing.formula import charge_call, charges_of, effective_charges, price_quantities

BY = (Dimension.KIND, Dimension.PROVIDER, Dimension.MODEL)


@dataclass(frozen=True)
class PriceDifference:
    """The billed and the repriced cost of one group in one currency. `key`: the values of the dimensions, in the
    requested order. Each sum leaves out charges with unknown costs; `billed_known` and `repriced_known` show that."""

    key: tuple[str, ...]
    currency: str
    billed: Decimal
    repriced: Decimal
    billed_known: CostBasis
    repriced_known: CostBasis

    @property
    def change(self) -> Decimal:
        """Repriced minus billed cost."""
        return difference(self.repriced, self.billed)


@dataclass(frozen=True)
class Repricing:
    """Both sums, the differences `by` dimensions, and the charges at the prices of the other book."""

    book_digest: str
    by: tuple[Dimension, ...]
    billed: Group
    repriced: Group
    differences: tuple[PriceDifference, ...]
    charges: tuple[Charge, ...]


def reprice(charges: Iterable[Charge], book: PriceBook, by: Sequence[Dimension] = BY) -> Repricing:
    """Prices the usage of the charges by another book, each at its own time, with all corrections applied."""
    billed = tuple(charges)
    repriced = tuple(chain.from_iterable(_reprice_call(call, book) for call in _calls(effective_charges(billed))))
    before, after = rollup(billed, by), rollup(repriced, by)
    differences = _differences(before.groups, after.groups)
    return Repricing(book.digest, tuple(by), before.total, after.total, differences, repriced)


def usage_of(call: Sequence[Charge]) -> TokenUsage:
    """The usage of one model call, from its charges; a kind of token without a charge was not reported."""
    counts = {
        charge.meter: None if charge.consumed_quantity is None else int(charge.consumed_quantity) for charge in call
    }
    cached, written = counts.get(Meter.CACHED_INPUT), counts.get(Meter.CACHE_WRITE)
    plain = counts.get(Meter.INPUT)
    return TokenUsage(
        input_tokens=None if plain is None else plain + (cached or 0) + (written or 0),
        output_tokens=counts.get(Meter.OUTPUT),
        cached_tokens=cached,
        cache_write_tokens=written,
        # Pricing can only lower the basis of a charge, so the best one is that of the call.
        basis=min((charge.usage_basis for charge in call), key=list(UsageBasis).index),
    )


def _calls(charges: Iterable[Charge]) -> Iterator[tuple[Charge, ...]]:
    """The charges grouped by model call or piece of work.

    A call has each meter once: a repeated meter of the same origin belongs to another call.
    """
    calls: dict[tuple[Origin, CostKind, Mode, bool, int], list[Charge]] = {}
    seen: Counter[tuple[Origin, CostKind, Mode, bool, Meter]] = Counter()
    for charge in charges:
        key = (_origin(charge), charge.kind, charge.mode, charge.wasted)
        number = seen[(*key, charge.meter)]
        seen[(*key, charge.meter)] += 1
        calls.setdefault((*key, number), []).append(charge)
    return map(tuple, calls.values())


def _origin(charge: Charge) -> Origin:
    return Origin(**{name: getattr(charge, name) for name in ORIGIN_FIELDS})


def _reprice_call(call: tuple[Charge, ...], book: PriceBook) -> tuple[Charge, ...]:
    first = call[0]
    origin = _origin(first)
    if first.kind is CostKind.MODEL:
        return charge_call(book, usage_of(call), origin, mode=first.mode, wasted=first.wasted)
    # The quantities stay as billed, including the months for which bytes are kept.
    work = tuple((charge.meter, Quantity(charge.consumed_quantity, charge.usage_basis)) for charge in call)
    return charges_of(origin, price_quantities(book, work, at=origin.at), wasted=first.wasted)


def _differences(before: Sequence[Group], after: Sequence[Group]) -> tuple[PriceDifference, ...]:
    old, new = {group.key: group for group in before}, {group.key: group for group in after}
    return tuple(row for key in sorted(old | new) for row in _rows(key, old.get(key), new.get(key)))


def _rows(key: tuple[str, ...], old: Group | None, new: Group | None) -> Iterator[PriceDifference]:
    billed, repriced = _money(old), _money(new)
    for currency in sorted(billed | repriced):
        yield PriceDifference(
            key,
            currency,
            billed[currency].contracted_cost if currency in billed else ZERO,
            repriced[currency].contracted_cost if currency in repriced else ZERO,
            old.cost_basis if old else CostBasis.REPORTED,
            new.cost_basis if new else CostBasis.REPORTED,
        )


def _money(group: Group | None) -> dict[str, MoneySum]:
    return {money.currency: money for money in group.money} if group else {}
