"""Bills in CSV: a header, then a row for each request, hour, day or other stretch; comma, semicolon or tab. Pure.

The columns may stand in any order and go by the names that OpenAI's and Anthropic's exports and people give them
(`columns`). Times without a zone are UTC. A row with a time is a request; one with a date, an hour, or a start and an
end sums up that time.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

from app.finance.reconciliation.bill import (
    Amount,
    BadBill,
    Bill,
    BillFormat,
    BillRow,
    Count,
    instant,
    refuse_overlaps,
)
from app.pricing.providers import known_ids, known_provider

# What the columns of a bill in CSV are called, by OpenAI, by Anthropic and by people; and what none can be.

# Each of ours with the other names that it goes by.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "time": ("timestamp", "datetime", "created", "created_at", "request_time"),
    "date": ("day", "usage_date", "usage_date_utc", "date_utc"),
    "hour": ("usage_hour", "hour_utc"),
    "start": ("start_time_iso", "start_time", "starting_at", "period_start"),
    "end": ("end_time_iso", "end_time", "ending_at", "period_end"),
    "model": ("model_name", "model_id", "model_version", "line_item"),
    "provider": ("vendor",),
    "requests": (
        "num_model_requests",
        "num_requests",
        "n_requests",
        "request_count",
        "model_requests",
    ),
    "input_tokens": ("prompt_tokens", "tokens_in", "input", "total_input_tokens", "n_context_tokens_total"),
    "uncached_tokens": ("uncached_input_tokens", "input_tokens_no_cache", "usage_input_tokens_no_cache"),
    "cached_tokens": ("input_cached_tokens", "cached_input_tokens", "prompt_cached_tokens", "cached"),
    "read_tokens": ("cache_read_input_tokens", "cache_read_tokens", "usage_input_tokens_cache_read"),
    "written_tokens": ("cache_creation_input_tokens", "cache_write_tokens", "usage_input_tokens_cache_write"),
    "written_5m_tokens": ("usage_input_tokens_cache_write_5m", "ephemeral_5m_input_tokens"),
    "written_1h_tokens": ("usage_input_tokens_cache_write_1h", "ephemeral_1h_input_tokens"),
    "output_tokens": ("completion_tokens", "tokens_out", "output", "usage_output_tokens", "n_generated_tokens_total"),
    "cost": ("amount", "amount_value", "total_cost", "cost_total", "charge"),
    "currency": ("amount_currency", "cost_currency"),
}
# Money in a column that names its currency: cost_usd, `Cost (EUR)`, `Amount in USD`.
_MONEY = re.compile(r"(?:cost|amount|total_cost|charge)_(?:in_)?([a-z]{3})")
_CURRENCIES = frozenset(
    "AUD BRL CAD CHF CNY CZK DKK EUR GBP HKD INR JPY KRW MXN NOK NZD PLN SEK SGD USD ZAR".split()  # noqa: SIM905
)
# Columns whose quantity stands in another one as well.
_INSIDE = frozenset(
    {
        *("total_tokens", "input_uncached_tokens", "input_text_tokens", "output_text_tokens"),
        *("input_cached_text_tokens", "reasoning_tokens", "output_reasoning_tokens"),
    }
)
_QUANTITY = re.compile(
    r"token|request|count|quantity|audio|image|search|character|second|minute|cost|amount|price|fee|tax"
)
_MOST_COLUMNS = 500
# Columns that the exports of one provider have, all of them, and no other provider's.
_SIGNATURES = (
    (frozenset({"start_time_iso", "end_time_iso", "num_model_requests", "input_cached_tokens"}), "openai"),
    (frozenset({"start_time_iso", "end_time_iso", "amount_value", "amount_currency", "line_item"}), "openai"),
    (frozenset({"usage_date_utc", "usage_output_tokens"}), "anthropic"),
    (frozenset({"usage_date_utc", "token_type", "context_window"}), "anthropic"),
)
# Where a second name adds nothing that counts.
_SAID_TWICE = frozenset({"start", "end", "model", "provider"})
_OF_TIME = frozenset({"time", "date", "hour", "start"})
HEADER = (
    "time (or date, hour), model, input_tokens, output_tokens, and perhaps cached_tokens, requests, provider, cost_usd"
)


@dataclass(frozen=True)
class Columns:
    """The columns of a table: `known` tells where each of ours stands, `currency` what its money is in if its name
    says so, `unread` which were not looked at."""

    names: tuple[str, ...]
    index_of: Mapping[str, int]
    currency: str
    unread: tuple[str, ...]

    @property
    def counts(self) -> bool:
        """Whether the table holds tokens."""
        return "output_tokens" in self.index_of

    @property
    def provider(self) -> str:
        """Whose export it is, when its columns are those of one; empty when they may be anybody's."""
        names = frozenset(self.names)
        return next((whose for columns, whose in _SIGNATURES if columns <= names), "")

    def quantity(self, name: str) -> bool:
        """Whether an unread column looks like a quantity that stands nowhere else."""
        return bool(_QUANTITY.search(name)) and name not in _INSIDE and not name.endswith(("_id", "_name"))


def plain_name(cell: str) -> str:
    """A column's name without capitals, spaces, hyphens and brackets."""
    return re.sub(r"[^a-z0-9]+", "_", cell.strip().lower()).strip("_")


def columns_of(name: str, place: str, header: Sequence[str]) -> Columns:
    """What the columns are. Raises BadBill when one is missing, doubled, or may be two things."""
    names = tuple(plain_name(cell) for cell in header)
    if len(names) > _MOST_COLUMNS:
        raise BadBill(
            name, place, f"{len(names)} columns are more than any bill has", "export it again, one row a line"
        )
    twice = sorted(name for name, times in Counter(names).items() if name and times > 1)
    if twice:
        raise BadBill(name, place, f"columns {twice[:5]} stand twice", "name each column once")
    index_of: dict[str, int] = {}
    currency = ""
    for index, column in enumerate(names):
        money = _MONEY.fullmatch(column)
        if money and money[1].upper() in _CURRENCIES and "cost" not in index_of:
            index_of["cost"], currency = index, money[1].upper()
    for ours, aliases in _ALIASES.items():
        columns = [name for name in (ours, *aliases) if name in names]
        if len(columns) > 1 and ours not in _SAID_TWICE:
            raise BadBill(name, place, f"columns {columns[0]} and {columns[1]} mean the same", "leave one of them out")
        if columns and ours not in index_of:
            index_of[ours] = names.index(columns[0])
    _refuse_unclear(name, place, index_of, names)
    _refuse_missing(name, place, index_of, header)
    read = set(index_of.values())
    twins = {alias for ours in ("start", "end") for alias in _ALIASES[ours]}  # OpenAI gives each time twice
    unread = tuple(column for index, column in enumerate(names) if column and index not in read and column not in twins)
    return Columns(names, index_of, currency, unread)


def _refuse_unclear(name: str, place: str, index_of: Mapping[str, int], names: Sequence[str]) -> None:
    apart = [
        name for name in ("read_tokens", "written_tokens", "written_5m_tokens", "written_1h_tokens") if name in index_of
    ]
    if apart and "input_tokens" in index_of and "uncached_tokens" not in index_of:
        whole, piece = names[index_of["input_tokens"]], names[index_of[apart[0]]]
        raise BadBill(
            name,
            place,
            f"{whole} may hold what {piece} counts (as OpenAI means it), or leave it out (as Anthropic does)",
            f"name it uncached_input_tokens where it leaves it out; else name {piece} cached_tokens",
        )


def _refuse_missing(name: str, place: str, index_of: Mapping[str, int], header: Sequence[str]) -> None:
    lacks: list[str] = []
    if "cost" not in index_of or {"input_tokens", "uncached_tokens", "output_tokens"} & set(index_of):
        lacks += [name for name in ("input_tokens", "output_tokens") if name not in index_of]
        if "uncached_tokens" in index_of and "input_tokens" in lacks:
            lacks.remove("input_tokens")
        lacks += ["model"] if "model" not in index_of else []
    lacks += ["time"] if not _OF_TIME & set(index_of) else []
    if lacks:
        given = ",".join(header)
        raise BadBill(name, place, f"header {given!r:.200} lacks {', '.join(lacks)}", f"head it {HEADER}")


_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
# Columns that hold numbers, of which a table's signs are learnt.
_NUMBERS = (
    *("requests", "input_tokens", "uncached_tokens", "cached_tokens", "read_tokens", "written_tokens"),
    *("written_5m_tokens", "written_1h_tokens", "output_tokens", "cost"),
)
_MOST_UNKNOWN = 10**18


def read_csv(name: str, text: str) -> Bill:
    """The bill in CSV. Raises BadBill."""
    table = _Table(name, text)
    lines = [line for line in table.lines() if not table.empty(line)]
    # An hour's whole numbers may look like decimals of another way of writing: all numbers of a table tell together.
    signs = signs_of(name, ((line.place, line[number]) for line in lines for number in _NUMBERS if line[number]))
    read = [_Row(name, line, signs, table.columns) for line in lines]
    rows = tuple(line.row() for line in read) if table.columns.counts else ()
    if any(row.one_request for row in rows) and not all(row.one_request for row in rows):
        raise BadBill(name, "", "some rows are requests and some are sums", "split it into two bills")
    if not all(row.one_request for row in rows):
        refuse_overlaps(name, rows)
    return Bill(
        name,
        BillFormat.CSV,
        rows,
        unread=table.columns.unread,
        amounts=tuple(amount for line in read if (amount := line.amount())),
        counts=table.columns.counts,
        providers=frozenset({table.columns.provider} - {""}),
        further=(*_quantities(table, lines), *_nameless(table, lines)),
    )


@dataclass(frozen=True)
class _Line:
    """One line of the table."""

    place: str
    cells: Sequence[str]
    columns: Columns

    def __getitem__(self, column: str) -> str:
        """The cell under one of our columns; empty where the table has none."""
        index = self.columns.index_of.get(column)
        return "" if index is None else self.cells[index]

    def called(self, column: str) -> str:
        """What the table calls the column."""
        index = self.columns.index_of.get(column)
        return column if index is None else self.columns.names[index]


class _Table:
    """A text in lines and cells."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._skipped, delimiter, body = _delimited(text)
        csv.field_size_limit(2**20)
        self._reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
        header = next((cells for _, cells in self._cells() if any(cell.strip() for cell in cells)), None)
        if header is None:
            raise BadBill(name, "", "it has no header", f"head it {HEADER}")
        self.columns = columns_of(name, f"line {self._reader.line_num + self._skipped}", header)

    def lines(self) -> Iterator[_Line]:
        """All lines with something in them."""
        width = len(self.columns.names)
        for number, cells in self._cells():
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                continue
            while len(stripped) > width and not stripped[-1]:
                stripped.pop()
            if len(stripped) != width:
                problem = f"{len(stripped)} cells under {width} columns"
                raise BadBill(self._name, f"line {number}", problem, "give each row every column")
            yield _Line(f"line {number}", stripped, self.columns)

    def empty(self, line: _Line) -> bool:
        """Whether a line names a time and nothing else: OpenAI exports days without any request so."""
        return not any(line[number] for number in (*_NUMBERS, "model"))

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            number = self._reader.line_num + 1 + self._skipped
            try:
                yield number, next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                problem = f"no CSV ({str(error).partition('(')[0].strip()})"
                raise BadBill(self._name, f"line {number}", problem, "export it again, whole") from None


def _delimited(text: str) -> tuple[int, str, str]:
    """How many lines come before the header, what stands between the cells, and the text from the header on.

    Excel writes, and reads, a first line `sep=;`."""
    first, _, rest = text.partition("\n")
    separator = first.strip().strip('"').lower()
    if separator.startswith("sep=") and len(separator) <= 5:
        return 1, first.strip().strip('"')[4:5] or "\t", rest
    header = next((line for line in text.splitlines() if line.strip()), "")
    return 0, max(",;\t", key=header.count), text


@dataclass(frozen=True)
class _Row:
    """One line with what it says."""

    name: str
    line: _Line
    signs: Signs
    columns: Columns

    def row(self) -> BillRow:
        """Its tokens. Raises BadBill."""
        line = self.line
        if not line["model"]:
            raise self._bad("it names no model", "fill the column model")
        since, until = self.span()
        requests = self._number("requests") if line["requests"] else None
        if since == until and requests not in (None, 1):
            problem = f"{requests} requests at the one time {line['time']!r}"
            raise self._bad(problem, "give a row of several requests the column date or hour in place of time")
        entered, cached, written = self._entered()
        count = Count(1 if since == until else requests, entered, cached, self._number("output_tokens"))
        return BillRow(line.place, line["model"], since, until, count, self._provider(), written)

    def amount(self) -> Amount | None:
        """Its money; None where it has none, or its currency is not named."""
        line, currency = self.line, self.columns.currency or self.line["currency"].upper()
        if not line["cost"] or not currency:
            return None
        if len(currency) != 3 or not (currency.isascii() and currency.isalpha()):
            raise self._bad(f"currency {currency!r:.20} is not known", "write its three letters, such as USD")
        money = amount_of_money(self.name, line.place, line.called("cost"), line["cost"], self.signs)
        since, until = self.span()
        # OpenAI's costs name a line of the invoice, its model before the first comma.
        model = line["model"].partition(",")[0].strip() if line.called("model") == "line_item" else line["model"]
        return Amount(line.place, model, since, until, money, currency, self._provider())

    def span(self) -> tuple[datetime, datetime]:
        """The time it is of, in UTC; both equal for a request. Raises BadBill."""
        line = self.line
        if line["time"]:
            at = self._instant("time").astimezone(UTC)
            return at, at
        if line["start"]:
            return self._stretch()
        if line["date"]:
            day = self._instant("date")
            if day.time() != time(0):
                raise self._bad(f"date {line['date']!r} is no day", "write it as 2026-11-22")
            if not line["hour"]:
                return day.astimezone(UTC), (day + _DAY).astimezone(UTC)
            return self._hour_of(day)
        return self._whole(self._instant("hour"))

    def _stretch(self) -> tuple[datetime, datetime]:
        since = self._instant("start").astimezone(UTC)
        if not self.line["end"]:
            raise self._bad("it begins and does not say when it ends", "add the column end_time, or use time or date")
        until = self._instant("end").astimezone(UTC)
        if until <= since:
            raise self._bad(f"it ends at {until.isoformat()} and begins at {since.isoformat()}", "export it again")
        return since, until

    def _hour_of(self, day: datetime) -> tuple[datetime, datetime]:
        text = self.line["hour"]
        if text.isascii() and text.isdigit() and len(text) <= 2 and int(text) < 24:
            start = (day + int(text) * _HOUR).astimezone(UTC)
            return start, start + _HOUR
        whole = text if "T" in text or " " in text else f"{day.date()}T{text}"
        return self._whole(instant(self.name, self.line.place, self.line.called("hour"), whole))

    def _whole(self, start: datetime) -> tuple[datetime, datetime]:
        if start.minute or start.second or start.microsecond:
            remedy = "write it as 2026-11-22T13:00Z, or use column time"
            raise self._bad(f"hour {self.line['hour']!r:.60} is no full hour", remedy)
        start = start.astimezone(UTC)
        return start, start + _HOUR

    def _entered(self) -> tuple[int, int | None, int]:
        """Input tokens in all; how many of them were read from the cache, None where it does not say; how many were
        written to it."""
        line = self.line
        read = self._number("read_tokens") if line["read_tokens"] else None
        written = sum(
            self._number(name) for name in ("written_tokens", "written_5m_tokens", "written_1h_tokens") if line[name]
        )
        if "uncached_tokens" in self.columns.index_of:
            return self._number("uncached_tokens") + (read or 0) + written, read, written
        entered = self._number("input_tokens")
        cached = self._number("cached_tokens") if line["cached_tokens"] else None
        if cached is not None and cached > entered:
            raise self._bad(f"{cached} cached tokens are more than {entered} of input", "correct the row")
        return entered, cached, written

    def _provider(self) -> str:
        named = self.line["provider"]
        provider = known_provider(named) if named else self.columns.provider
        if provider is None:
            remedy = f"name one of {', '.join(known_ids())}, or leave the column out"
            raise self._bad(f"provider {named!r:.60} is not known here", remedy)
        return provider

    def _number(self, column: str) -> int:
        return number_of_tokens(self.name, self.line.place, self.line.called(column), self.line[column], self.signs)

    def _instant(self, column: str) -> datetime:
        return instant(self.name, self.line.place, self.line.called(column), self.line[column])

    def _bad(self, problem: str, remedy: str) -> BadBill:
        return BadBill(self.name, self.line.place, problem, remedy)


def _quantities(table: _Table, lines: Sequence[_Line]) -> Iterator[str]:
    """Unread columns that hold a quantity, with its sum."""
    sums: Counter[str] = Counter()
    for name in table.columns.unread:
        if table.columns.quantity(name):
            index = table.columns.names.index(name)
            for line in lines:
                value = Signs().whole(line.cells[index]) if line.cells[index] else 0
                sums[name] += min(value, _MOST_UNKNOWN) if value is not None else 1
    yield from (f"{name} ({amount:,})" for name, amount in sums.items() if amount)


def _nameless(table: _Table, lines: Sequence[_Line]) -> Iterator[str]:
    """Money without a currency."""
    if any(line["cost"] and not (table.columns.currency or line["currency"]) for line in lines):
        called = plain_name(table.columns.names[table.columns.index_of["cost"]])
        yield f"{called} (in no currency: head it {called}_usd, or add a column currency)"


# Numbers as bills write them; what may be read in two ways is refused by name.

# No bill has more tokens in a row; a longer number is a typing error, and slow to parse.
_MOST_DIGITS = 15
_MOST_PLACES = 20
_MOST_MONEY = 12
_SPACES = re.compile(r"[\s'\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{RIGHT SINGLE QUOTATION MARK}]")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:([.,])\d{3})(?:\1\d{3})*")
_BOTH = re.compile(r"\d{1,3}(?:([.,])\d{3})+(?!\1)[.,]\d+")
_ONE_SIGN = re.compile(r"\d+([.,])\d*")
_WORDS = {".": "a point", ",": "a comma"}


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
    signs: dict[str, tuple[str, str]] = {}
    for place, text in texts:
        mark = _told(_SPACES.sub("", text))
        if mark:
            signs.setdefault(mark, (place, text))
    if len(signs) > 1:
        (here, left), (there, right) = signs["."], signs[","]
        raise BadBill(
            name,
            there,
            f"{right!r} has a comma before its decimals, {left!r} ({here}) a point",
            "write all numbers in one way, with a point before decimals and nothing between thousands",
        )
    return Signs(next(iter(signs), None))


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
    number = signs.whole(text)
    if number is None:
        remedy = "write a whole number without separators"
        raise BadBill(name, place, f"{what} {text!r:.60} is no number of tokens or requests", remedy)
    return number


def amount_of_money(name: str, place: str, what: str, text: str, signs: Signs) -> Decimal:
    """An amount, which may be below zero (a credit). Raises BadBill."""
    bare = text.strip().strip("$€£").strip()
    negative = bare.startswith("-")
    try:
        money = signs.exact(bare.removeprefix("-"))
    except Ambiguous as error:
        remedy = "write it with a point before decimals and nothing between thousands"
        raise BadBill(name, place, f"{what} {error}", remedy) from None
    if money is None or money.adjusted() >= _MOST_MONEY:
        remedy = "write it as 0.0123, without exponent and without letters"
        raise BadBill(name, place, f"{what} {text!r:.60} is no amount of money", remedy)
    return -money if negative else money
