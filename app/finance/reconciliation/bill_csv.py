"""Reads bills in CSV: a header, then one row for each request, hour, day or other period; comma, semicolon or tab.

Columns may be in any order and have the names of OpenAI's and Anthropic's exports or other common names (`_ALIASES`).
Times without a zone are UTC. A row with a time is a request; a row with a date, an hour, or a start and an end is the
sum of that period.
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

# Our columns, each with its other names.
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
# Columns whose quantity is contained in another column.
_CONTAINED = frozenset(
    {
        *("total_tokens", "input_uncached_tokens", "input_text_tokens", "output_text_tokens"),
        *("input_cached_text_tokens", "reasoning_tokens", "output_reasoning_tokens"),
    }
)
_QUANTITY = re.compile(
    r"token|request|count|quantity|audio|image|search|character|second|minute|cost|amount|price|fee|tax"
)
_MAX_COLUMNS = 500
# Sets of columns that only the exports of one provider have.
_SIGNATURES = (
    (frozenset({"start_time_iso", "end_time_iso", "num_model_requests", "input_cached_tokens"}), "openai"),
    (frozenset({"start_time_iso", "end_time_iso", "amount_value", "amount_currency", "line_item"}), "openai"),
    (frozenset({"usage_date_utc", "usage_output_tokens"}), "anthropic"),
    (frozenset({"usage_date_utc", "token_type", "context_window"}), "anthropic"),
)
# Columns that may be given under two names, because they hold no quantity.
_MAY_REPEAT = frozenset({"start", "end", "model", "provider"})
_TIME_COLUMNS = frozenset({"time", "date", "hour", "start"})
HEADER = (
    "time (or date, hour), model, input_tokens, output_tokens; optional: cached_tokens, requests, provider, cost_usd"
)


@dataclass(frozen=True)
class Columns:
    """The columns of a table. `index_of`: the index of each of our columns; `currency`: that of the cost column, if its
    name contains one; `unread`: the columns that are not read."""

    names: tuple[str, ...]
    index_of: Mapping[str, int]
    currency: str
    unread: tuple[str, ...]

    @property
    def counts(self) -> bool:
        """Whether the table has tokens."""
        return "output_tokens" in self.index_of

    @property
    def provider(self) -> str:
        """Our id of the provider whose export has these columns; empty if several might have them."""
        names = frozenset(self.names)
        return next((provider for columns, provider in _SIGNATURES if columns <= names), "")

    def is_quantity(self, name: str) -> bool:
        """Whether an unread column looks like a quantity that no other column contains."""
        return bool(_QUANTITY.search(name)) and name not in _CONTAINED and not name.endswith(("_id", "_name"))


def plain_name(cell: str) -> str:
    """A column's name in lower case, with underscores in place of spaces and punctuation."""
    return re.sub(r"[^a-z0-9]+", "_", cell.strip().lower()).strip("_")


def columns_of(name: str, place: str, header: Sequence[str]) -> Columns:
    """The columns of a header. Raises BadBill if a column is missing, repeated or ambiguous."""
    names = tuple(plain_name(cell) for cell in header)
    if len(names) > _MAX_COLUMNS:
        raise BadBill(
            name, place, f"{len(names)} columns are too many for a bill", "export it again, one row on each line"
        )
    repeated = sorted(name for name, times in Counter(names).items() if name and times > 1)
    if repeated:
        raise BadBill(name, place, f"columns {repeated[:5]} occur twice", "name each column once")
    index_of: dict[str, int] = {}
    currency = ""
    for index, column in enumerate(names):
        money = _MONEY.fullmatch(column)
        if money and money[1].upper() in _CURRENCIES and "cost" not in index_of:
            index_of["cost"], currency = index, money[1].upper()
    for ours, aliases in _ALIASES.items():
        columns = [name for name in (ours, *aliases) if name in names]
        if len(columns) > 1 and ours not in _MAY_REPEAT:
            raise BadBill(name, place, f"columns {columns[0]} and {columns[1]} mean the same", "leave one of them out")
        if columns and ours not in index_of:
            index_of[ours] = names.index(columns[0])
    _refuse_ambiguous_input(name, place, index_of, names)
    _refuse_missing(name, place, index_of, header)
    read = set(index_of.values())
    times = {alias for ours in ("start", "end") for alias in _ALIASES[ours]}  # OpenAI gives each time in two columns
    unread = tuple(column for index, column in enumerate(names) if column and index not in read and column not in times)
    return Columns(names, index_of, currency, unread)


def _refuse_ambiguous_input(name: str, place: str, index_of: Mapping[str, int], names: Sequence[str]) -> None:
    """Raises BadBill if the input may or may not include the cached tokens beside it."""
    cache_columns = [
        name for name in ("read_tokens", "written_tokens", "written_5m_tokens", "written_1h_tokens") if name in index_of
    ]
    if cache_columns and "input_tokens" in index_of and "uncached_tokens" not in index_of:
        entered, cached = names[index_of["input_tokens"]], names[index_of[cache_columns[0]]]
        raise BadBill(
            name,
            place,
            f"{entered} may include {cached} (as OpenAI's does) or exclude it (as Anthropic's does)",
            f"rename {entered} to uncached_input_tokens if it excludes it; otherwise rename {cached} to cached_tokens",
        )


def _refuse_missing(name: str, place: str, index_of: Mapping[str, int], header: Sequence[str]) -> None:
    missing: list[str] = []
    if "cost" not in index_of or {"input_tokens", "uncached_tokens", "output_tokens"} & set(index_of):
        missing += [name for name in ("input_tokens", "output_tokens") if name not in index_of]
        if "uncached_tokens" in index_of and "input_tokens" in missing:
            missing.remove("input_tokens")
        missing += ["model"] if "model" not in index_of else []
    missing += ["time"] if not _TIME_COLUMNS & set(index_of) else []
    if missing:
        header_line = ",".join(header)
        problem = f"header {header_line!r:.200} lacks {', '.join(missing)}"
        raise BadBill(name, place, problem, f"give it the columns {HEADER}")


_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
# Columns of numbers, from which the decimal separator of a table is inferred.
_NUMBERS = (
    *("requests", "input_tokens", "uncached_tokens", "cached_tokens", "read_tokens", "written_tokens"),
    *("written_5m_tokens", "written_1h_tokens", "output_tokens", "cost"),
)
_MAX_UNKNOWN = 10**18


def read_csv(name: str, text: str) -> Bill:
    """The bill in CSV. Raises BadBill."""
    table = _Table(name, text)
    lines = [line for line in table.lines() if not table.empty(line)]
    # 1.234 may be a whole number or a decimal: only all numbers of a table together show the decimal separator.
    number_format = number_format_of(
        name, ((line.place, line[number]) for line in lines for number in _NUMBERS if line[number])
    )
    table_rows = [_Row(name, line, number_format, table.columns) for line in lines]
    rows = tuple(row.row() for row in table_rows) if table.columns.counts else ()
    if any(row.one_request for row in rows) and not all(row.one_request for row in rows):
        raise BadBill(name, "", "some rows are requests and some are sums", "split it into two bills")
    if not all(row.one_request for row in rows):
        refuse_overlaps(name, rows)
    return Bill(
        name,
        BillFormat.CSV,
        rows,
        unread=table.columns.unread,
        amounts=tuple(amount for row in table_rows if (amount := row.amount())),
        counts=table.columns.counts,
        providers=frozenset({table.columns.provider} - {""}),
        extra_quantities=(*_unread_quantities(table, lines), *_costs_without_currency(table, lines)),
    )


@dataclass(frozen=True)
class _Line:
    """One line of the table."""

    place: str
    cells: Sequence[str]
    columns: Columns

    def __getitem__(self, column: str) -> str:
        """The cell of one of our columns; empty if the table does not have the column."""
        index = self.columns.index_of.get(column)
        return "" if index is None else self.cells[index]

    def header_of(self, column: str) -> str:
        """The table's own name for one of our columns."""
        index = self.columns.index_of.get(column)
        return column if index is None else self.columns.names[index]


class _Table:
    """The lines and cells of a CSV text."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._skipped, delimiter, body = _detect_delimiter(text)
        csv.field_size_limit(2**20)
        self._reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
        header = next((cells for _, cells in self._cells() if any(cell.strip() for cell in cells)), None)
        if header is None:
            raise BadBill(name, "", "it has no header", f"give it the columns {HEADER}")
        self.columns = columns_of(name, f"line {self._reader.line_num + self._skipped}", header)

    def lines(self) -> Iterator[_Line]:
        """All lines that are not blank. Raises BadBill for a line with too many or too few cells."""
        width = len(self.columns.names)
        for number, cells in self._cells():
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                continue
            while len(stripped) > width and not stripped[-1]:
                stripped.pop()
            if len(stripped) != width:
                problem = f"{len(stripped)} cells under {width} columns"
                raise BadBill(self._name, f"line {number}", problem, "give each row as many cells as there are columns")
            yield _Line(f"line {number}", stripped, self.columns)

    def empty(self, line: _Line) -> bool:
        """Whether a line has a time and nothing else, as OpenAI exports days without requests."""
        return not any(line[number] for number in (*_NUMBERS, "model"))

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            number = self._reader.line_num + 1 + self._skipped
            try:
                yield number, next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                problem = f"not valid CSV ({str(error).partition('(')[0].strip()})"
                raise BadBill(self._name, f"line {number}", problem, "export it again, whole") from None


def _detect_delimiter(text: str) -> tuple[int, str, str]:
    """The number of lines before the header, the delimiter, and the text from the header on.

    Excel writes and reads a first line `sep=;`.
    """
    first, _, rest = text.partition("\n")
    separator = first.strip().strip('"').lower()
    if separator.startswith("sep=") and len(separator) <= 5:
        return 1, first.strip().strip('"')[4:5] or "\t", rest
    header = next((line for line in text.splitlines() if line.strip()), "")
    return 0, max(",;\t", key=header.count), text


@dataclass(frozen=True)
class _Row:
    """One line of a bill, which is read as tokens and as money."""

    name: str
    line: _Line
    number_format: NumberFormat
    columns: Columns

    def row(self) -> BillRow:
        """The tokens of the line. Raises BadBill."""
        line = self.line
        if not line["model"]:
            raise self._bad("it names no model", "fill in the column model")
        since, until = self.span()
        requests = self._number("requests") if line["requests"] else None
        if since == until and requests not in (None, 1):
            problem = f"{requests} requests at the one time {line['time']!r}"
            raise self._bad(problem, "give a row of several requests a date or hour instead of a time")
        entered, cached, written = self._input_tokens()
        count = Count(1 if since == until else requests, entered, cached, self._number("output_tokens"))
        return BillRow(line.place, line["model"], since, until, count, self._provider(), written)

    def amount(self) -> Amount | None:
        """The money of the line; None if it has no amount or no currency. Raises BadBill."""
        line, currency = self.line, self.columns.currency or self.line["currency"].upper()
        if not line["cost"] or not currency:
            return None
        if len(currency) != 3 or not (currency.isascii() and currency.isalpha()):
            raise self._bad(f"currency {currency!r:.20} is unknown", "write its three letters, such as USD")
        money = amount_of_money(self.name, line.place, line.header_of("cost"), line["cost"], self.number_format)
        since, until = self.span()
        # OpenAI's costs name a line item, which begins with its model and a comma.
        model = line["model"].partition(",")[0].strip() if line.header_of("model") == "line_item" else line["model"]
        return Amount(line.place, model, since, until, money, currency, self._provider())

    def span(self) -> tuple[datetime, datetime]:
        """The start and the end of the line's period in UTC, which are equal for a request. Raises BadBill."""
        line = self.line
        if line["time"]:
            at = self._instant("time").astimezone(UTC)
            return at, at
        if line["start"]:
            return self._period()
        if line["date"]:
            day = self._instant("date")
            if day.time() != time(0):
                raise self._bad(f"date {line['date']!r} is not a day", "write it as 2026-11-22")
            if not line["hour"]:
                return day.astimezone(UTC), (day + _DAY).astimezone(UTC)
            return self._hour_of(day)
        return self._full_hour(self._instant("hour"))

    def _period(self) -> tuple[datetime, datetime]:
        since = self._instant("start").astimezone(UTC)
        if not self.line["end"]:
            raise self._bad("it has a start and no end", "add the column end_time, or use time or date")
        until = self._instant("end").astimezone(UTC)
        if until <= since:
            raise self._bad(f"it ends at {until.isoformat()} and begins at {since.isoformat()}", "export it again")
        return since, until

    def _hour_of(self, day: datetime) -> tuple[datetime, datetime]:
        text = self.line["hour"]
        if text.isascii() and text.isdigit() and len(text) <= 2 and int(text) < 24:
            start = (day + int(text) * _HOUR).astimezone(UTC)
            return start, start + _HOUR
        time_text = text if "T" in text or " " in text else f"{day.date()}T{text}"
        return self._full_hour(instant(self.name, self.line.place, self.line.header_of("hour"), time_text))

    def _full_hour(self, start: datetime) -> tuple[datetime, datetime]:
        if start.minute or start.second or start.microsecond:
            remedy = "write it as 2026-11-22T13:00Z, or use column time"
            raise self._bad(f"hour {self.line['hour']!r:.60} is not a full hour", remedy)
        start = start.astimezone(UTC)
        return start, start + _HOUR

    def _input_tokens(self) -> tuple[int, int | None, int]:
        """All input tokens; those read from the cache, None if the line does not say; those written to the cache."""
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
        provider_name = self.line["provider"]
        provider = known_provider(provider_name) if provider_name else self.columns.provider
        if provider is None:
            remedy = f"name one of {', '.join(known_ids())}, or leave the column out"
            raise self._bad(f"provider {provider_name!r:.60} is unknown", remedy)
        return provider

    def _number(self, column: str) -> int:
        cell = self.line[column]
        return number_of_tokens(self.name, self.line.place, self.line.header_of(column), cell, self.number_format)

    def _instant(self, column: str) -> datetime:
        return instant(self.name, self.line.place, self.line.header_of(column), self.line[column])

    def _bad(self, problem: str, remedy: str) -> BadBill:
        return BadBill(self.name, self.line.place, problem, remedy)


def _unread_quantities(table: _Table, lines: Sequence[_Line]) -> Iterator[str]:
    """The unread columns that look like quantities, each with its sum."""
    sums: Counter[str] = Counter()
    for name in table.columns.unread:
        if table.columns.is_quantity(name):
            index = table.columns.names.index(name)
            for line in lines:
                value = NumberFormat().whole(line.cells[index]) if line.cells[index] else 0
                sums[name] += min(value, _MAX_UNKNOWN) if value is not None else 1
    yield from (f"{name} ({amount:,})" for name, amount in sums.items() if amount)


def _costs_without_currency(table: _Table, lines: Sequence[_Line]) -> Iterator[str]:
    """The cost column, if a line has a cost and no currency."""
    if any(line["cost"] and not (table.columns.currency or line["currency"]) for line in lines):
        column = plain_name(table.columns.names[table.columns.index_of["cost"]])
        yield f"{column} (without a currency: name it {column}_usd, or add a column currency)"


# Numbers as bills write them; an ambiguous number is refused.

# No bill has counts with more digits; a longer number is a typing error, and slow to parse.
_MAX_DIGITS = 15
_MAX_PLACES = 20
_MAX_MONEY_DIGITS = 12
_SPACES = re.compile(r"[\s'\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{RIGHT SINGLE QUOTATION MARK}]")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:([.,])\d{3})(?:\1\d{3})*")
_BOTH = re.compile(r"\d{1,3}(?:([.,])\d{3})+(?!\1)[.,]\d+")
_ONE_SIGN = re.compile(r"\d+([.,])\d*")


@dataclass(frozen=True)
class NumberFormat:
    """The decimal separator of a table; None if none of its numbers shows it."""

    decimal: str | None = None

    def whole(self, text: str) -> int | None:
        """A whole number, with or without thousands separators; None if it is not one, or ambiguous."""
        text = _SPACES.sub("", text)
        if text.isascii() and text.isdigit():
            return int(text) if len(text) <= _MAX_DIGITS else None
        grouped = _GROUPED.fullmatch(text)
        if grouped and len(text) <= _MAX_DIGITS and self._separates(grouped[1], text):
            return int(text.replace(grouped[1], ""))
        fraction = _ONE_SIGN.fullmatch(text)
        if fraction and len(text) <= _MAX_DIGITS and fraction[1] == (self.decimal or ".") and not grouped:
            head, _, tail = text.partition(fraction[1])
            return int(head) if not tail.strip("0") else None
        return None

    def _separates(self, sign: str, text: str) -> bool:
        """Whether the sign separates thousands. Counts have no fractions, but 1.000 may be a decimal that means one."""
        if self.decimal is not None:
            return sign != self.decimal
        return sign == "," or not text.endswith(".000") or text.count(sign) > 1

    def exact(self, text: str) -> Decimal | None:
        """A decimal number; None if it is not one. Raises Ambiguous for 1,234 if the decimal separator is unknown."""
        text = _SPACES.sub("", text)
        if len(text) > _MAX_DIGITS + _MAX_PLACES:
            return None
        if text.isascii() and text.isdigit():
            return Decimal(text)
        if _BOTH.fullmatch(text):
            decimal = max(".,", key=text.rindex)
            return self._parse(decimal, text)
        if _GROUPED.fullmatch(text):
            sign = "," if "," in text else "."
            if text.count(sign) > 1:
                return self._parse("." if sign == "," else ",", text)
            if self.decimal is None:
                raise Ambiguous(f"{text!r} may be {text.replace(sign, '')} or {text.replace(sign, '.')}")
            return self._parse(self.decimal, text)
        fraction = _ONE_SIGN.fullmatch(text)
        return self._parse(fraction[1], text) if fraction else None

    def _parse(self, decimal: str, text: str) -> Decimal | None:
        """The number with that decimal separator; None if the table uses the other one."""
        if self.decimal not in (None, decimal):
            return None
        return Decimal(text.replace("," if decimal == "." else ".", "").replace(decimal, "."))


class Ambiguous(ValueError):
    """A number that can be read in two ways."""


def number_format_of(name: str, texts: Iterable[tuple[str, str]]) -> NumberFormat:
    """The number format that the numbers, each a (place, text), show. Raises BadBill if they contradict each other."""
    examples: dict[str, tuple[str, str]] = {}
    for place, text in texts:
        separator = _decimal_separator(_SPACES.sub("", text))
        if separator:
            examples.setdefault(separator, (place, text))
    if len(examples) > 1:
        (point_place, with_point), (comma_place, with_comma) = examples["."], examples[","]
        raise BadBill(
            name,
            comma_place,
            f"{with_comma!r} has a comma before its decimals, {with_point!r} ({point_place}) a point",
            "write all numbers with a point before decimals and nothing between thousands",
        )
    return NumberFormat(next(iter(examples), None))


def _decimal_separator(text: str) -> str | None:
    """The decimal separator of a number; None if the number is ambiguous or shows none."""
    if len(text) > _MAX_DIGITS + _MAX_PLACES:
        return None
    if _BOTH.fullmatch(text):
        return max(".,", key=text.rindex)
    grouped = _GROUPED.fullmatch(text)
    if grouped:
        return ("." if grouped[1] == "," else ",") if text.count(grouped[1]) > 1 else None
    fraction = _ONE_SIGN.fullmatch(text)
    return fraction[1] if fraction else None


def number_of_tokens(name: str, place: str, column: str, text: str, number_format: NumberFormat) -> int:
    """A count of tokens or requests. Raises BadBill."""
    number = number_format.whole(text)
    if number is None:
        remedy = "write a whole number without separators"
        raise BadBill(name, place, f"{column} {text!r:.60} is not a number of tokens or requests", remedy)
    return number


def amount_of_money(name: str, place: str, column: str, text: str, number_format: NumberFormat) -> Decimal:
    """An amount of money, negative for a credit. Raises BadBill."""
    bare = text.strip().strip("$€£").strip()
    negative = bare.startswith("-")
    try:
        money = number_format.exact(bare.removeprefix("-"))
    except Ambiguous as error:
        remedy = "write it with a point before decimals and nothing between thousands"
        raise BadBill(name, place, f"{column} {error}", remedy) from None
    if money is None or money.adjusted() >= _MAX_MONEY_DIGITS:
        remedy = "write it as 0.0123, without exponent and without letters"
        raise BadBill(name, place, f"{column} {text!r:.60} is not an amount of money", remedy)
    return -money if negative else money
