"""Reads `config/prices.yaml`, finance's own prices. Unknown keys, wrong types and lost digits are errors."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from app.config import yaml_file
from app.domain.models import Currency, Frozen
from app.domain.money import plain
from app.pricing.charge_types import Meter

NAME = "prices.yaml"  # the file's name in price ids, wherever the file is


def _decimal(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError(f"write {value} in quotes: YAML rounds an unquoted fraction")
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError(f"{value!r:.40} is not a price; write a number in quotes, as in '0.40'")
    return Decimal(yaml_file.plain_number(value))


def _instant(value: Any) -> Any:
    """An instant in UTC. A day without a time means its midnight in UTC."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"time {value.isoformat()} has no zone; write it with Z, or write the day alone")
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"time {value.isoformat()} is outside the years 1 to 9999 in UTC") from None
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value


# The limits on the digits keep each product of price, discount and quantity exact.
_Exact = PlainSerializer(plain, return_type=str)
Price = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, max_digits=20, decimal_places=12), _Exact]
Percent = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=100, max_digits=10, decimal_places=7), _Exact]
Instant = Annotated[datetime, BeforeValidator(_instant)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Text = Annotated[str, Field(min_length=1, max_length=500)]


class _Strict(Frozen):
    """A part of the file. Unknown keys and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Dated(_Strict):
    """An entry that applies from `from` (inclusive) to `to` (exclusive; without an end if absent). `source` says where
    its prices come from, `checked` when they were last compared with it."""

    id: Name
    from_: Instant = Field(alias="from")
    to: Instant | None = None
    source: Text
    checked: date

    @model_validator(mode="after")
    def _in_order(self) -> _Dated:
        if self.to is not None and self.to <= self.from_:
            raise ValueError(
                f"{self.id} ends ({self.to:%Y-%m-%d %H:%M}) before it begins ({self.from_:%Y-%m-%d %H:%M})"
            )
        return self

    def holds(self, at: datetime) -> bool:
        """Whether the entry applies at an instant."""
        return self.from_ <= at and (self.to is None or at < self.to)


class TokenPrices(_Strict):
    """Prices per million tokens. Cached and cache-written input without its own price costs the same as `input`."""

    input: Price
    output: Price
    cached_input: Price | None = None
    cache_write: Price | None = None


class Tier(_Strict):
    """Prices of the whole request if its input has more than `above_input_tokens`."""

    above_input_tokens: int = Field(gt=0)
    per_million_tokens: TokenPrices


def _ascending(tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
    starts = [tier.above_input_tokens for tier in tiers]
    if sorted(set(starts)) != starts:
        raise ValueError(f"tiers start above {starts}; list each start once, lowest first")
    return tiers


Tiers = Annotated[tuple[Tier, ...], Field(strict=False)]


class _Tariff(_Strict):
    """Prices with their tiers."""

    per_million_tokens: TokenPrices | None = None
    tiers: Tiers = ()

    @model_validator(mode="after")
    def _whole(self) -> _Tariff:
        _ascending(self.tiers)
        if self.tiers and self.per_million_tokens is None:
            raise ValueError("tiers need per_million_tokens, the prices below the first tier")
        return self


class Batch(_Tariff):
    """The prices of batch calls: their own prices, or a discount on the standard ones."""

    discount_percent: Percent | None = None

    @model_validator(mode="after")
    def _either(self) -> Batch:
        if (self.per_million_tokens is None) == (self.discount_percent is None):
            raise ValueError("batch needs either per_million_tokens or discount_percent, and not both")
        return self


class Agreement(_Dated, _Tariff):
    """An agreement with a provider: own prices, a discount on the list prices, or own prices with a discount.

    `provider` is a Dapr component type or a provider id, `model` a model's name; both may contain `*` and `?`.
    """

    provider: Text
    model: Text
    currency: Currency = "USD"
    batch: Batch | None = None
    discount_percent: Percent = Decimal(0)

    @model_validator(mode="after")
    def _says_something(self) -> Agreement:
        if self.per_million_tokens is None and not self.discount_percent:
            raise ValueError(f"{self.id} has neither per_million_tokens nor a discount_percent on the list price")
        if self.per_million_tokens is None and self.currency != "USD":
            raise ValueError(f"{self.id}: a discount on the list price is in USD, like the list, not {self.currency}")
        return self


class Infrastructure(_Dated):
    """Prices of compute and of keeping the record. A GB is 10^9 bytes."""

    currency: Currency = "USD"
    compute_per_second: Price
    writes_per_million: Price
    storage_per_gb_month: Price
    logs_per_gb: Price

    def rate(self, meter: Meter) -> Decimal:
        """The unit price of a meter. Raises KeyError for a kind of token, whose price depends on the model."""
        return {
            Meter.COMPUTE: self.compute_per_second,
            Meter.STEP_WRITES: self.writes_per_million,
            Meter.RETAINED_BYTES: self.storage_per_gb_month,
            Meter.LOG_BYTES: self.logs_per_gb,
        }[meter]


class ModelEntry(_Strict):
    """Facts about models that change no price. `provider` and `model` are as in an agreement; `retires` is the first
    day on which the provider no longer serves the model."""

    provider: Text
    model: Text
    context_tokens: int | None = Field(default=None, gt=0)
    retires: date | Literal["never"] | None = None
    source: Text
    checked: date

    @model_validator(mode="after")
    def _says_something(self) -> ModelEntry:
        if self.context_tokens is None and self.retires is None:
            raise ValueError(f"model {self.model} has neither context_tokens nor retires")
        return self


class CheckedListPrices(_Strict):
    """The version of the published list that finance has checked, and when."""

    version: Text
    checked: date
    source: Text


class PriceFile(_Strict):
    """The content of `config/prices.yaml`. Of several agreements that match a call, the first in the file applies;
    likewise of models."""

    list_prices: CheckedListPrices
    stale_after_days: int = Field(gt=0, le=36_500)
    # How long the record of a task is kept; its bytes are counted to the thousandth of a month.
    retention_months: Annotated[Price, Field(decimal_places=3)]
    agreements: tuple[Agreement, ...] = Field(default=(), strict=False)
    infrastructure: tuple[Infrastructure, ...] = Field(default=(), strict=False)
    models: tuple[ModelEntry, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _unique(self) -> PriceFile:
        names = [dated.id for dated in (*self.agreements, *self.infrastructure)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"id {', '.join(twice)} is used twice; give each price its own id")
        return self

    @property
    def stale_after(self) -> timedelta:
        """The age from which a check of a source is out of date."""
        return timedelta(days=self.stale_after_days)


def read(path: Path) -> yaml_file.Document[PriceFile]:
    """Reads the file. Raises ConfigurationError, which names file, line, key and problem."""
    return yaml_file.read(
        path, PriceFile, remedy="run this in the project's folder, restore it, or set REFUND_AGENT_PRICES_FILE"
    )
