"""Money in the books is whole hundredths; on the wire it is a decimal string. Pure, never float."""

from __future__ import annotations

from decimal import Decimal


def to_cents(amount: Decimal) -> int:
    """Turns an amount into hundredths. Raises ValueError when it has finer parts than that."""
    cents = amount * 100
    if cents != cents.to_integral_value():
        raise ValueError(f"amount {amount} has more than two decimal places; round it first")
    return int(cents)


def to_text(cents: int) -> str:
    """Turns hundredths into a decimal string with two places: 1230 gives "12.30"."""
    return f"{cents // 100}.{cents % 100:02d}"
