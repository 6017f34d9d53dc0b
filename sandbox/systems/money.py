"""Money in the books is a whole number of its currency's minor units; on the wire it is a decimal string. Pure."""

from __future__ import annotations

from decimal import Decimal

from app.domain.models import in_minor_units, minor_units


def to_minor(amount: Decimal, currency: str) -> int:
    """Turns an amount into minor units: 1.50 EUR gives 150, 150 JPY gives 150. Raises ValueError for finer parts."""
    return int(in_minor_units(amount, currency).scaleb(minor_units(currency)))


def to_text(minor: int, currency: str) -> str:
    """Turns minor units into a decimal string in the currency's places: 1230 USD gives "12.30", 1234 KWD "1.234"."""
    return format(Decimal(minor).scaleb(-minor_units(currency)), "f")
