"""The sandbox's bill as spend: requests, tokens, and money as the product's price book has it. Pure."""

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
    """What was billed. `input_tokens` holds the cached ones. A difference of two spends may be below zero."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    amount: Decimal = Decimal(0)

    def __add__(self, other: Spend) -> Spend:
        """Both."""
        return Spend(*(mine + theirs for mine, theirs in zip(self._parts(), other._parts(), strict=True)))

    def __sub__(self, other: Spend) -> Spend:
        """What this is more."""
        return Spend(*(mine - theirs for mine, theirs in zip(self._parts(), other._parts(), strict=True)))

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.input_tokens + self.output_tokens

    def _parts(self) -> tuple[Any, ...]:
        return (self.requests, self.input_tokens, self.cached_tokens, self.output_tokens, self.amount)


class Prices:
    """Prices bill rows by the book, as the product prices its calls."""

    def __init__(self, book: PriceBook, provider: str) -> None:
        """`provider` is the Dapr component's type."""
        self._book = book
        self._provider = provider
        self.currency = ""
        self.price_id = ""

    def spend(self, rows: Iterable[Row]) -> Spend:
        """The sum of what was billed. Raises UserError for a model without a price."""
        return sum((self._one(row) for row in rows if row["billed"]), Spend())

    def by_digest(self, rows: Iterable[Row]) -> dict[str, Spend]:
        """What each model request costs the first time that it stands on the bill."""
        found: dict[str, Spend] = {}
        for row in rows:
            if row["billed"] and row["request_digest"] not in found:
                found[row["request_digest"]] = self._one(row)
        return found

    def _one(self, row: Row) -> Spend:
        usage = TokenUsage(
            input_tokens=row["input_tokens"], output_tokens=row["output_tokens"], cached_tokens=row["cached_tokens"]
        )
        at = datetime.fromisoformat(row["at"])
        priced = price_call(self._book, usage, at=at, model=row["model"], provider=self._provider)
        if not isinstance(priced, CallPrice) or priced.contracted_cost is None:
            raise UserError(f"{row['model']} of the sandbox has no price.", remedy="Restore config/prices.yaml.")
        self.currency, self.price_id = priced.currency, priced.price_id
        return Spend(1, row["input_tokens"], row["cached_tokens"], row["output_tokens"], priced.contracted_cost)


def digests(rows: Iterable[Row]) -> Digests:
    """Which requests were billed, and how often."""
    return Counter(row["request_digest"] for row in rows if row["billed"])


def costing(wanted: Digests, of: Mapping[str, Spend]) -> Spend:
    """What requests cost, each as the first time."""
    return sum((of[digest] for digest, times in sorted(wanted.items()) for _ in range(times)), Spend())
