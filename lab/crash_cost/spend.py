"""Sums the sandbox's bill: requests, tokens, and money by the product's price book."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from app.pricing.book import PriceBook
from app.pricing.charge_types import TokenUsage
from app.pricing.formula import CallPrice, price_call
from lab.crash_cost.trace import Digests
from runtime.errors import UserError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Spend:
    """Sums of billed requests. `input_tokens` includes the cached ones. A difference may be negative."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    amount: Decimal = Decimal(0)

    def __add__(self, other: Spend) -> Spend:
        """The sum of both."""
        return Spend(*(mine + theirs for mine, theirs in zip(self._parts(), other._parts(), strict=True)))

    def __sub__(self, other: Spend) -> Spend:
        """The difference."""
        return Spend(*(mine - theirs for mine, theirs in zip(self._parts(), other._parts(), strict=True)))

    @property
    def tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens

    def _parts(self) -> tuple[Any, ...]:
        return (self.requests, self.input_tokens, self.cached_tokens, self.output_tokens, self.amount)


class Prices:
    """Prices rows of the bill as the product prices its calls."""

    def __init__(self, book: PriceBook, provider: str) -> None:
        """`provider` is the type of the Dapr component."""
        self._book = book
        self._provider = provider
        self.currency = ""
        self.price_id = ""

    def spend(self, rows: Iterable[Row]) -> Spend:
        """The sum of the billed rows. Raises UserError for a model without a price."""
        return sum((self._price_row(row) for row in rows if row["billed"]), Spend())

    def by_digest(self, rows: Iterable[Row]) -> dict[str, Spend]:
        """By digest of the request, the cost of its first row."""
        costs: dict[str, Spend] = {}
        for row in rows:
            if row["billed"] and row["request_digest"] not in costs:
                costs[row["request_digest"]] = self._price_row(row)
        return costs

    def _price_row(self, row: Row) -> Spend:
        usage = TokenUsage(
            input_tokens=row["input_tokens"], output_tokens=row["output_tokens"], cached_tokens=row["cached_tokens"]
        )
        at = datetime.fromisoformat(row["at"])
        priced = price_call(self._book, usage, at=at, model=row["model"], provider=self._provider)
        if not isinstance(priced, CallPrice) or priced.contracted_cost is None:
            raise UserError(f"The sandbox's model {row['model']} has no price.", remedy="Restore config/prices.yaml.")
        self.currency, self.price_id = priced.currency, priced.price_id
        return Spend(1, row["input_tokens"], row["cached_tokens"], row["output_tokens"], priced.contracted_cost)


def digests(rows: Iterable[Row]) -> Digests:
    """The number of billed rows by digest of the request."""
    return Counter(row["request_digest"] for row in rows if row["billed"])


def total_cost(requests: Digests, costs: Mapping[str, Spend]) -> Spend:
    """The cost of these requests; `costs` is that of `Prices.by_digest`."""
    return sum((costs[digest] for digest, times in sorted(requests.items()) for _ in range(times)), Spend())
