"""A provider's bill as values, whatever it was read from: requests, or sums of a model over a stretch of time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from app.domain import texts as text_files
from app.domain.errors import RefundAgentError
from app.pricing.charge_types import TokenUsage

# Numbers and times as bills write them; what may be read in two ways is refused by name.

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


# Requests and tokens side by side, as a bill and our record both count them; a difference may be negative.


@dataclass(frozen=True, slots=True)
class Count:
    """`input_tokens` includes `cached_tokens`. None: not known, which is not zero; so is a sum that it is in."""

    requests: int | None = 0
    input_tokens: int = 0
    cached_tokens: int | None = 0
    output_tokens: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            _plus(self.requests, other.requests),
            self.input_tokens + other.input_tokens,
            _plus(self.cached_tokens, other.cached_tokens),
            self.output_tokens + other.output_tokens,
        )

    def __neg__(self) -> Count:
        return Count(_minus(self.requests), -self.input_tokens, _minus(self.cached_tokens), -self.output_tokens)

    def __sub__(self, other: Count) -> Count:
        return self + -other

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    @property
    def lines(self) -> tuple[int, ...]:
        """The tokens of each price: plain input, cached input, output; input as one where its parts are not known."""
        if self.cached_tokens is None:
            return self.input_tokens, self.output_tokens
        return self.input_tokens - self.cached_tokens, self.cached_tokens, self.output_tokens

    @property
    def magnitude(self) -> int:
        """How many tokens stand in another line than they should, for a difference: a plus and a minus never cancel."""
        return sum(map(abs, self.lines))


NONE = Count()


def total(counts: Iterable[Count]) -> Count:
    """All together."""
    sum_of = NONE
    for count in counts:
        sum_of += count
    return sum_of


def counted(usage: TokenUsage, requests: int = 1) -> Count:
    """What a call used; tokens that nobody knows count as none, since they are in no sum of the record either."""
    cached = usage.cached_tokens if usage.input_tokens else 0
    return Count(requests, usage.input_tokens or 0, cached, usage.output_tokens or 0)


def _plus(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


def _minus(value: int | None) -> int | None:
    return None if value is None else -value


class BadBill(RefundAgentError):
    """A bill that cannot be read as it is; the message names the file, the place in it, the value and the remedy."""

    status = 422
    title = "Bill not readable"

    def __init__(self, name: str, place: str, problem: str, remedy: str) -> None:
        super().__init__(f"bill {name}{', ' if place else ''}{place}: {problem}; {remedy}")


class BillFormat(StrEnum):
    """What a bill was read from."""

    SANDBOX = "sandbox"
    OPENAI_USAGE = "openai-usage"
    OPENAI_COSTS = "openai-costs"
    ANTHROPIC_USAGE = "anthropic-usage"
    ANTHROPIC_COSTS = "anthropic-costs"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class BillRow:
    """One row that costs something. `place` says where it stands in the bill.

    since, until: UTC; equal for a single request, else the stretch that the row sums up, `until` not in it.
    provider: our id for who bills it; empty when the bill does not say. written: of its input, what was written to the
    provider's cache; 0 where the bill does not tell.
    """

    place: str
    model: str
    since: datetime
    until: datetime
    count: Count
    provider: str = ""
    written: int = 0

    @property
    def one_request(self) -> bool:
        """Whether the row is one request at one instant."""
        return self.since == self.until


@dataclass(frozen=True, slots=True)
class Amount:
    """One amount of money on a bill, for a model in a stretch of time; below zero when it is given back.

    model: empty for all models together; else as the bill names what it is for. currency: ISO 4217.
    """

    place: str
    model: str
    since: datetime
    until: datetime
    money: Decimal
    currency: str
    provider: str = ""


@dataclass(frozen=True)
class Bill:
    """A bill. `since` and `until` say which time it covers, None where it does not say; `until` is not in it.

    unbilled: requests that stand on it and cost nothing. unread: columns that were not looked at.
    further: columns that hold a quantity which the record does not keep, with their sums.
    elsewhen: rows and amounts of another time than what is asked for, left out.
    providers: our ids for whose bill it is; empty when it does not say.
    amounts: its money, where it names any. counts: whether it names tokens at all.
    """

    name: str
    format: BillFormat
    rows: tuple[BillRow, ...]
    since: datetime | None = None
    until: datetime | None = None
    unbilled: int = 0
    unread: tuple[str, ...] = ()
    providers: frozenset[str] = frozenset()
    amounts: tuple[Amount, ...] = ()
    counts: bool = True
    further: tuple[str, ...] = ()
    elsewhen: int = 0

    @property
    def by_request(self) -> bool:
        """Whether every row is a request of its own."""
        return all(row.one_request for row in self.rows) and self.format in (BillFormat.SANDBOX, BillFormat.CSV)

    def within(self, since: datetime | None, until: datetime | None) -> Bill:
        """The bill of that time alone. Raises BadBill when one of its sums lies on both sides of an edge."""
        kept = tuple(row for row in self.rows if _inside(row, since, until))
        amounts = tuple(amount for amount in self.amounts if _inside(amount, since, until))
        dated: list[BillRow | Amount] = [*self.rows, *self.amounts]
        for row in dated:
            for edge in (since, until):
                if edge is not None and row.since < edge < row.until:
                    raise BadBill(
                        self.name,
                        row.place,
                        f"it sums up {row.since.isoformat()} to {row.until.isoformat()}, and {edge.isoformat()} "
                        "cuts it in two",
                        "begin and end where a row of the bill begins and ends",
                    )
        latest, earliest = _latest(self.since, since), _earliest(self.until, until)
        left_out = self.elsewhen + len(dated) - len(kept) - len(amounts)
        return replace(self, rows=kept, amounts=amounts, since=latest, until=earliest, elsewhen=left_out)


def refuse_overlaps(name: str, rows: Iterable[BillRow]) -> None:
    """Raises BadBill when two sums of one model cover some time twice without covering the same."""
    spans: defaultdict[tuple[str, str], list[BillRow]] = defaultdict(list)
    for row in rows:
        spans[row.provider, row.model].append(row)
    for of_model in spans.values():
        ordered = sorted(of_model, key=lambda row: (row.since, row.until))
        for left, right in pairwise(ordered):
            if left.until > right.since and (left.since, left.until) != (right.since, right.until):
                raise BadBill(
                    name,
                    right.place,
                    f"its time, {right.since.isoformat()} to {right.until.isoformat()}, overlaps that of {left.place}",
                    "give each stretch of time once, in buckets of one width",
                )


def _inside(row: BillRow | Amount, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or row.since >= since) and (until is None or row.since < until)


def _latest(*times: datetime | None) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def _earliest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


# Values of a bill in JSON against their shape; what does not fit is named with its place.

# More than any bill has in a row: longer numbers are slips.
Tokens = Annotated[int, Field(ge=0, lt=10**15, strict=True)]
_Model = TypeVar("_Model", bound=BaseModel)


def checked(name: str, place: str, model: type[_Model], value: Any) -> _Model:
    """`value` as `model`. Raises BadBill."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        found = "" if first["type"] == "missing" else f", not {shown(first['input'])}"
        raise BadBill(name, f"{place}{path}", f"{first['msg']}{found}", "mend it, or export the bill again") from None


def shown(value: Any) -> str:
    """A value for a message, not longer than it is read."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def part(name: str, place: str, inside: int | None, whole: int) -> int | None:
    """Cached tokens, which are inside the input. Raises BadBill when they are more than it."""
    if inside is not None and inside > whole:
        problem = f"{inside} cached tokens are more than {whole} of input"
        raise BadBill(name, place, problem, "mend it, or export the bill again")
    return inside


# The text of a bill's file, whatever saved it.


def text_of(name: str, raw: bytes) -> str:
    """The text in `raw`. Raises BadBill for a file that holds none."""
    try:
        return text_files.text_of(raw)
    except text_files.NoText as error:
        raise BadBill(name, error.place, error.problem, error.remedy) from None
