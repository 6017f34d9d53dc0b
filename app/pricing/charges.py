"""From prices to charges: each line of a call or of a step's work, with all that it is attributed by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from app.pricing.book import PriceBook
from app.pricing.charge_kinds import Mode
from app.pricing.charge_types import ORIGIN_FIELDS, Charge, Origin, TokenUsage, Work
from app.pricing.formula import CallPrice, Priced, Unpriced, price_call, price_work


def charge_call(
    book: PriceBook, usage: TokenUsage, origin: Origin, *, mode: Mode = Mode.STANDARD, rerun: bool = False
) -> tuple[Charge, ...]:
    """The charges of one model call, made at `origin.at` of `origin.model` at `origin.provider`."""
    priced = price_call(book, usage, at=origin.at, model=origin.model, provider=origin.provider, mode=mode)
    return charges_of(origin, priced, mode=mode, rerun=rerun)


def charge_work(book: PriceBook, work: Work, origin: Origin, *, rerun: bool = False) -> tuple[Charge, ...]:
    """The charges of compute and orchestration. They are no model's, so the origin's model and provider are dropped."""
    if origin.model or origin.provider or origin.component:
        origin = replace(origin, model="", provider="", component="")
    return charges_of(origin, price_work(book, work, at=origin.at), rerun=rerun)


def charges_of(
    origin: Origin, priced: CallPrice | Priced | Unpriced, *, mode: Mode = Mode.STANDARD, rerun: bool = False
) -> tuple[Charge, ...]:
    """One charge a line; an unpriced one keeps its quantity and has no amount. What used nothing at all costs nothing
    at any price: without one it is no charge, rather than one that lacks its price."""
    if isinstance(priced, Unpriced) and all(line.quantity == 0 for line in priced.lines):
        return ()
    currency, price_id = (priced.currency, priced.price_id) if isinstance(priced, Priced) else (None, None)
    where = {name: getattr(origin, name) for name in ORIGIN_FIELDS}
    return tuple(
        Charge(
            **where,
            kind=line.line.kind,
            line=line.line,
            quantity=line.quantity,
            unit=line.line.unit,
            known=line.known,
            unit_price=line.unit_price,
            amount=line.amount,
            list_unit_price=line.list_unit_price,
            list_amount=line.list_amount,
            currency=currency,
            price_id=price_id,
            book_digest=priced.book_digest,
            mode=mode,
            rerun=rerun,
        )
        for line in priced.lines
    )


def standing(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """The lines that nothing has taken back, corrections as if they had been booked so at first."""
    found = tuple(charges)
    last: dict[str, int] = {}
    for charge in found:
        if charge.correction:
            first = replace(charge, correction=0).id
            last[first] = max(last.get(first, 0), charge.correction)
    if not last:
        return found
    left = [charge for charge in found if charge.correction == last.get(replace(charge, correction=0).id, 0)]
    return tuple(replace(charge, correction=0) for charge in left if not charge.takes_back)
