"""The prices that charges were made at, each under a short number."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Connection, Engine, select

from app.domain.money import plain
from app.ledger.store.database import insert_or_ignore
from app.ledger.store.record_tables import PRICES
from app.pricing.charge_kinds import Meter, Mode
from app.pricing.charge_types import Charge


class PriceRow(NamedTuple):
    """All that one line of a price book says of a charge; empty where there is no price."""

    line: str
    book_digest: str
    price_id: str
    mode: str
    currency: str
    unit_price: str
    list_unit_price: str
    provider: str
    component: str
    model: str

    @property
    def money(self) -> tuple[Decimal | None, Decimal | None]:
        """Unit price and list price; None without a price."""
        return _decimal(self.unit_price), _decimal(self.list_unit_price)

    @property
    def kind_of_line(self) -> Meter:
        """What is counted."""
        return Meter(self.line)

    @property
    def bought(self) -> Mode:
        """How it was bought."""
        return Mode(self.mode)


def price_row(charge: Charge) -> PriceRow:
    """The price of a charge."""
    return PriceRow(
        charge.line.value,
        charge.book_digest,
        charge.price_id or "",
        charge.mode.value,
        charge.currency or "",
        _text(charge.unit_price),
        _text(charge.list_unit_price),
        charge.provider,
        charge.component,
        charge.model,
    )


class Prices:
    """Numbers for prices, made where there are none. Thread-safe. Each new price is a transaction of its own: call
    this before, never inside, another one that writes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._numbers: dict[PriceRow, int] = {}
        self._rows: dict[int, PriceRow] = {}
        self._lock = threading.Lock()

    def numbers(self, charges: Iterable[Charge]) -> Mapping[PriceRow, int]:
        """The number of each charge's price, among others."""
        with self._lock:
            missing = {price_row(charge) for charge in charges} - self._numbers.keys()
            if missing:
                self._load()
                missing -= self._numbers.keys()
            if missing:
                self._add(missing)
                self._load()
            return self._numbers

    def row(self, number: int, connection: Connection) -> PriceRow:
        """The price of that number. A price is committed before its first charge: whoever reads a charge finds it, on
        the connection that it has: if readers waited here for a second one, they could take all that there are."""
        if number not in self._rows:
            with self._lock:
                self._read(connection)
        return self._rows[number]

    def _add(self, missing: Iterable[PriceRow]) -> None:
        with self._engine.begin() as connection:
            connection.execute(insert_or_ignore(connection, PRICES), [row._asdict() for row in sorted(missing)])

    def _load(self) -> None:
        with self._engine.connect() as connection:
            self._read(connection)

    def _read(self, connection: Connection) -> None:
        for number, *values in connection.execute(select(PRICES.c.price_no, *_COLUMNS)):
            row = PriceRow(*values)
            self._numbers[row], self._rows[number] = number, row


_COLUMNS = tuple(PRICES.c[name] for name in PriceRow._fields)


@lru_cache(maxsize=1024)  # few prices, many charges; equal prices have equal texts
def _text(price: Decimal | None) -> str:
    return "" if price is None else plain(price)


def _decimal(text: str) -> Decimal | None:
    return Decimal(text) if text else None
