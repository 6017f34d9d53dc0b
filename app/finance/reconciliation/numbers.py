"""Numbers and times as bills write them; what may be read in two ways is refused by name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from app.finance.reconciliation.bill import BadBill

# No bill has more tokens in a row; a longer number is a slip, and would be slow to read.
_MOST_DIGITS = 15
_MOST_PLACES = 20
_MOST_MONEY = 12
_SPACES = re.compile(r"[\s'\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{RIGHT SINGLE QUOTATION MARK}]")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:([.,])\d{3})(?:\1\d{3})*")
_BOTH = re.compile(r"\d{1,3}(?:([.,])\d{3})+(?!\1)[.,]\d+")
_ONE_SIGN = re.compile(r"\d+([.,])\d*")
_WORDS = {".": "a point", ",": "a comma"}
_EARLIEST, _LATEST = datetime(2015, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
# How long a whole number is that counts seconds, milliseconds, microseconds, nanoseconds since 1970.
_EPOCH_DIGITS = {10: 1, 13: 1_000, 16: 1_000_000, 19: 1_000_000_000}
_NAMED_UTC = re.compile(r"\s*(?:UTC|GMT|Z)$", re.IGNORECASE)
_FRACTION = re.compile(r"(\.\d{6})\d+")
_DAY_REMEDY = "write it as 2026-11-22"
_TIME_REMEDY = "write it as 2026-11-22T13:05:00Z (ISO 8601), or as seconds since 1970"


@dataclass(frozen=True)
class Signs:
    """Which sign a table uses before decimals; None where no number of it tells."""

    decimal: str | None = None

    def whole(self, text: str) -> int | None:
        """A whole number, with thousands separators or without; None for what is none, or could be another."""
        text = _SPACES.sub("", text)
        if text.isascii() and text.isdigit():
            return int(text) if len(text) <= _MOST_DIGITS else None
        grouped = _GROUPED.fullmatch(text)
        if grouped and len(text) <= _MOST_DIGITS and self._separates(grouped[1], text):
            return int(text.replace(grouped[1], ""))
        fraction = _ONE_SIGN.fullmatch(text)
        if fraction and len(text) <= _MOST_DIGITS and fraction[1] == (self.decimal or ".") and not grouped:
            head, _, tail = text.partition(fraction[1])
            return int(head) if not tail.strip("0") else None
        return None

    def _separates(self, sign: str, text: str) -> bool:
        """Whether the sign stands for thousands: a part of a token does not exist, but 1.000 may be one."""
        if self.decimal is not None:
            return sign != self.decimal
        return sign == "," or not text.endswith(".000") or text.count(sign) > 1

    def exact(self, text: str) -> Decimal | None:
        """A decimal number; None for what is none. Raises Ambiguous for 1,234, unless other numbers tell."""
        text = _SPACES.sub("", text)
        if len(text) > _MOST_DIGITS + _MOST_PLACES:
            return None
        if text.isascii() and text.isdigit():
            return Decimal(text)
        if _BOTH.fullmatch(text):
            decimal = max(".,", key=text.rindex)
            return self._if(decimal, text)
        if _GROUPED.fullmatch(text):
            sign = "," if "," in text else "."
            if text.count(sign) > 1:
                return self._if("." if sign == "," else ",", text)
            if self.decimal is None:
                raise Ambiguous(f"{text!r} may be {text.replace(sign, '')} or {text.replace(sign, '.')}")
            return self._if(self.decimal, text)
        one = _ONE_SIGN.fullmatch(text)
        return self._if(one[1], text) if one else None

    def _if(self, decimal: str, text: str) -> Decimal | None:
        """Read with that sign before decimals, if the table's other numbers do not say otherwise."""
        if self.decimal not in (None, decimal):
            return None
        return Decimal(text.replace("," if decimal == "." else ".", "").replace(decimal, "."))


class Ambiguous(ValueError):
    """A number that may be read in two ways."""


def signs_of(name: str, texts: Iterable[tuple[str, str]]) -> Signs:
    """What numbers, each with its place, tell of the sign before decimals. Raises BadBill when they contradict."""
    found: dict[str, tuple[str, str]] = {}
    for place, text in texts:
        told = _told(_SPACES.sub("", text))
        if told:
            found.setdefault(told, (place, text))
    if len(found) > 1:
        (here, left), (there, right) = found["."], found[","]
        raise BadBill(
            name,
            there,
            f"{right!r} has a comma before its decimals, {left!r} ({here}) a point",
            "write all numbers in one way, with a point before decimals and nothing between thousands",
        )
    return Signs(next(iter(found), None))


def _told(text: str) -> str | None:
    """The sign before decimals, of a number that can be read in one way only."""
    if len(text) > _MOST_DIGITS + _MOST_PLACES:
        return None
    if _BOTH.fullmatch(text):
        return max(".,", key=text.rindex)
    grouped = _GROUPED.fullmatch(text)
    if grouped:
        return ("." if grouped[1] == "," else ",") if text.count(grouped[1]) > 1 else None
    one = _ONE_SIGN.fullmatch(text)
    return one[1] if one else None


def number_of_tokens(name: str, place: str, what: str, text: str, signs: Signs) -> int:
    """A count. Raises BadBill."""
    found = signs.whole(text)
    if found is None:
        remedy = "write a whole number without separators"
        raise BadBill(name, place, f"{what} {text!r:.60} is no number of tokens or requests", remedy)
    return found


def amount_of_money(name: str, place: str, what: str, text: str, signs: Signs) -> Decimal:
    """An amount, which may be below zero (a credit). Raises BadBill."""
    bare = text.strip().strip("$€£").strip()
    negative = bare.startswith("-")
    try:
        found = signs.exact(bare.removeprefix("-"))
    except Ambiguous as error:
        remedy = "write it with a point before decimals and nothing between thousands"
        raise BadBill(name, place, f"{what} {error}", remedy) from None
    if found is None or found.adjusted() >= _MOST_MONEY:
        remedy = "write it as 0.0123, without exponent and without letters"
        raise BadBill(name, place, f"{what} {text!r:.60} is no amount of money", remedy)
    return -found if negative else found


def since_1970(name: str, place: str, what: str, value: int) -> datetime:
    """An instant given as seconds since 1970, or as thousandths, millionths, billionths of them. Raises BadBill."""
    per = _EPOCH_DIGITS.get(len(str(abs(value)))) if abs(value) < 10**20 else None
    at = (
        datetime.fromtimestamp(0, UTC) + timedelta(seconds=value // per, microseconds=value % per * 10**6 // per)
        if per
        else None
    )
    if at is None or not _EARLIEST <= at < _LATEST:
        shown = str(value) if abs(value) < 10**20 else "a number of more than 20 digits"
        raise BadBill(name, place, f"{what} {shown} is no time since 2015 in seconds or milliseconds", _TIME_REMEDY)
    return at


def instant(name: str, place: str, what: str, text: str) -> datetime:
    """An instant in its own zone, UTC when it names none. Raises BadBill."""
    bare = text.strip()
    head, _, tail = bare.partition(".")
    if head.isascii() and head.isdigit() and len(head) >= 9 and (not tail or (tail.isascii() and tail.isdigit())):
        if len(head) > 20:
            raise BadBill(name, place, f"{what} {text!r:.40} is no time", _TIME_REMEDY)
        at = since_1970(name, place, what, int(head))
        return at + timedelta(microseconds=int(tail[:6].ljust(6, "0"))) if tail and len(head) == 10 else at
    try:
        found = datetime.fromisoformat(_FRACTION.sub(r"\1", _NAMED_UTC.sub("+00:00", bare)) if ":" in bare else bare)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        found.astimezone(UTC)
    except (ValueError, OverflowError):
        remedy = _DAY_REMEDY if "date" in what or "day" in what else _TIME_REMEDY
        raise BadBill(name, place, f"{what} {text!r:.60} is no time{_hint(bare)}", remedy) from None
    if not _EARLIEST <= found < _LATEST:
        raise BadBill(name, place, f"{what} {text!r:.60} is no time between 2015 and 2100", _TIME_REMEDY)
    return found


def _hint(text: str) -> str:
    if re.fullmatch(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}.*", text, re.DOTALL):
        return ": it does not begin with the year, so day and month could be taken for each other"
    if re.search(r"\d\s*[A-Z]{2,5}$", text):
        return ": a zone by its letters is not one zone; write its offset, such as +01:00"
    return ""
