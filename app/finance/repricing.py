"""What the same usage would have cost under another price book; nothing that was charged is changed."""

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
    """One row: what was billed and what it would be. With an unknown part on either side, the sums leave it out.
    `key`: the values of the dimensions, in the order asked for."""

    key: tuple[str, ...]
    currency: str
    billed: Decimal
    repriced: Decimal
    billed_known: CostBasis
    repriced_known: CostBasis

    @property
    def change(self) -> Decimal:
        """More (above zero) or less (below) than was billed."""
        return difference(self.repriced, self.billed)


@dataclass(frozen=True)
class Repricing:
    """Both sums, the differences `by` dimensions, and the charges as the other book has them."""

    book_digest: str
    by: tuple[Dimension, ...]
    billed: Group
    repriced: Group
    differences: tuple[PriceDifference, ...]
    charges: tuple[Charge, ...]


def reprice(charges: Iterable[Charge], book: PriceBook, by: Sequence[Dimension] = BY) -> Repricing:
    """Prices the usage of the charges again, each at its own time; usage that was corrected, as it was corrected."""
    billed = tuple(charges)
    again = tuple(chain.from_iterable(_again(call, book) for call in _calls(effective_charges(billed))))
    before, after = rollup(billed, by), rollup(again, by)
    return Repricing(
        book.digest, tuple(by), before.total, after.total, _differences(before.groups, after.groups), again
    )


def usage_of(call: Sequence[Charge]) -> TokenUsage:
    """The usage that the charges of one model call stand for; a kind without a line was not reported."""
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
        basis=_best(charge.usage_basis for charge in call),
    )


def _best(knowns: Iterable[UsageBasis]) -> UsageBasis:
    """Pricing can only make a line worse than what was reported, so the best line is as the call was."""
    return min(knowns, key=list(UsageBasis).index)


def _calls(charges: Iterable[Charge]) -> Iterator[tuple[Charge, ...]]:
    """The charges by what they were charged for together: a model call, or a piece of work.

    A line that comes again under the same origin is another call's, since a call has each line once.
    """
    calls: dict[tuple[Origin, CostKind, Mode, bool, int], list[Charge]] = {}
    seen: Counter[tuple[Origin, CostKind, Mode, bool, Meter]] = Counter()
    for charge in charges:
        together = (_origin(charge), charge.kind, charge.mode, charge.wasted)
        nth = seen[(*together, charge.meter)]
        seen[(*together, charge.meter)] += 1
        calls.setdefault((*together, nth), []).append(charge)
    return map(tuple, calls.values())


def _origin(charge: Charge) -> Origin:
    return Origin(**{name: getattr(charge, name) for name in ORIGIN_FIELDS})


def _again(call: tuple[Charge, ...], book: PriceBook) -> tuple[Charge, ...]:
    first = call[0]
    origin = _origin(first)
    if first.kind is CostKind.MODEL:
        return charge_call(book, usage_of(call), origin, mode=first.mode, wasted=first.wasted)
    # The quantities stay as they were billed, the months that bytes are kept among them.
    work = tuple((charge.meter, Quantity(charge.consumed_quantity, charge.usage_basis)) for charge in call)
    return charges_of(origin, price_quantities(book, work, at=origin.at), wasted=first.wasted)


def _differences(before: Sequence[Group], after: Sequence[Group]) -> tuple[PriceDifference, ...]:
    old, new = {group.key: group for group in before}, {group.key: group for group in after}
    return tuple(row for key in sorted(old | new) for row in _rows(key, old.get(key), new.get(key)))


def _rows(key: tuple[str, ...], old: Group | None, new: Group | None) -> Iterator[PriceDifference]:
    was, is_ = _money(old), _money(new)
    for currency in sorted(was | is_):
        yield PriceDifference(
            key,
            currency,
            was[currency].contracted_cost if currency in was else ZERO,
            is_[currency].contracted_cost if currency in is_ else ZERO,
            old.cost_basis if old else CostBasis.REPORTED,
            new.cost_basis if new else CostBasis.REPORTED,
        )


def _money(group: Group | None) -> dict[str, MoneySum]:
    return {money.currency: money for money in group.money} if group else {}
