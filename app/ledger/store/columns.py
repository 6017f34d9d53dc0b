"""What the tables share: their catalogue, and columns for instants and for exact quantities."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, MetaData
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from app.pricing.charge_kinds import Unit

METADATA = MetaData()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# A quantity is kept as a whole number of these, so that a database can sum it exactly: tokens and writes as they are,
# seconds to the microsecond, bytes as what a byte kept for a thousandth of a month is.
_DECIMALS = {Unit.TOKENS: 0, Unit.WRITES: 0, Unit.SECONDS: 6, Unit.GB_MONTHS: 12, Unit.GB: 12}


class Instant(TypeDecorator[datetime]):
    """A time in UTC as microseconds since 1970: the same in every database, and eight bytes."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To the database."""
        return microseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        return None if value is None else instant(int(value))


def instant(kept: int) -> datetime:
    """What `microseconds` kept."""
    return _EPOCH + timedelta(microseconds=kept)


def microseconds(at: datetime | None) -> int | None:
    """An instant as it is kept."""
    return None if at is None else (at - _EPOCH) // _MICROSECOND


def whole(quantity: Decimal, unit: Unit) -> int:
    """A quantity as it is kept. Raises ValueError for one that is finer than its unit is kept."""
    scaled = quantity.scaleb(_DECIMALS[unit])
    if scaled != int(scaled):
        raise ValueError(
            f"quantity {quantity} {unit} is finer than {_DECIMALS[unit]} decimals; round it where it arises"
        )
    return int(scaled)


def quantity(kept: int, unit: Unit) -> Decimal:
    """A kept quantity as it was."""
    return Decimal(kept).scaleb(-_DECIMALS[unit])
