"""What one request may cost: the dearest model that may answer it, at the largest question and answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from app.domain.money import amount_of, total
from app.finance.retry_bounds.worst import Price
from app.pricing.book import PriceBook
from app.pricing.charge_kinds import Meter
from app.pricing.schedule import NoPrice, rates_at

_PER = Decimal(1_000_000)


@dataclass(frozen=True)
class Reserve:
    """Tokens that a request may use, as the journal reserves them before it."""

    input_tokens: int
    output_tokens: int


# The longest letter that a model is shown, in English, with everything around it; and the answer that is reserved.
LONGEST = Reserve(15_000, 1_000)


def dearest(book: PriceBook, models: Iterable[tuple[str, str]], reserve: Reserve, at: datetime) -> Price:
    """For each currency the highest price of a request among these models, each a provider (component type) and a
    name."""
    amounts, unpriced = dict[str, tuple[Decimal, str]](), []
    for provider, model in sorted(set(models)):
        price = book.find(provider, model, at)
        if isinstance(price, NoPrice):
            unpriced.append(model or "(none)")
            continue
        rates = rates_at(price.contracted, reserve.input_tokens)
        used = ((Meter.INPUT, reserve.input_tokens), (Meter.OUTPUT, reserve.output_tokens))
        amount = total(amount_of(Decimal(tokens), rates[line], _PER) for line, tokens in used)
        amounts[price.currency] = max(amounts.get(price.currency, (amount, model)), (amount, model))
    return Price(
        {currency: amount for currency, (amount, _) in amounts.items()},
        tuple(sorted({model for _, model in amounts.values()})),
        tuple(unpriced),
    )
