"""Reads a provider's bill. Its content tells what it is; a bill with a row that cannot be read is refused. Pure.

the sandbox's bill              {"rows": [...]}, a row a request
OpenAI's and Anthropic's usage  pages of buckets, by model, in any order and any number of files
OpenAI's and Anthropic's costs  likewise, beside the usage or alone
CSV                             a header, then a row for each request, hour, day or other stretch
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from app.domain import texts as text_files
from app.finance.reconciliation.bill import (
    Amount,
    BadBill,
    Bill,
    BillFormat,
    BillRow,
    Count,
    instant,
    refuse_overlaps,
    since_1970,
)
from app.finance.reconciliation.bill_csv import read_csv

__all__ = ["BadBill", "Bill", "BillFormat", "BillRow", "parse_bill", "parse_bills", "text_of"]

_BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
_ONE_AT_A_TIME = "hold them against the record one after the other"


def parse_bill(name: str, text: str) -> Bill:
    """The bill in `text`; `name` is what errors call it. Raises BadBill."""
    return parse_bills([(name, text)])


def parse_bills(files: Sequence[tuple[str, str]]) -> Bill:
    """The one bill in several files, each with its name: a report's pages, its usage and its costs, a table's parts.
    Raises BadBill."""
    whole = files[0][0] if len(files) == 1 else f"{files[0][0]} and {len(files) - 1} more"
    pages: dict[Report, list[BillPage]] = {}
    bills: list[Bill] = []
    for name, text in files:
        read = _read(name, text)
        if isinstance(read, Bill):
            bills.append(read)
            continue
        for report, of_report in read.items():
            pages.setdefault(report, []).extend(of_report)
    bills += [report.bill(whole, of_report) for report, of_report in pages.items()]
    if len(bills) == 1:
        return replace(bills[0], name=whole)
    return _together(whole, bills)


def _read(name: str, text: str) -> Bill | dict[Report, list[BillPage]]:
    content = text.removeprefix(_BYTE_ORDER_MARK)
    if not content.strip():
        raise BadBill(name, "", "it is empty", "export it again, as JSON or as CSV with a header")
    if content.lstrip()[0] in "{[":
        return read_json(name, content)
    if content.lstrip()[0] == "<":
        raise BadBill(name, "", "it is HTML or XML", "export it as JSON or as CSV with a header")
    return read_csv(name, content)


def _together(name: str, bills: Sequence[Bill]) -> Bill:
    """Tables of one kind, or a provider's usage with its costs."""
    counting = [bill for bill in bills if bill.counts]
    whose = {bill.providers for bill in bills}
    if {bill.format for bill in bills} == {BillFormat.CSV}:
        rows = tuple(replace(row, place=f"{bill.name}, {row.place}") for bill in bills for row in bill.rows)
        if len({row.one_request for row in rows}) > 1:
            raise BadBill(name, "", "some rows are requests and some are sums", _ONE_AT_A_TIME)
        if rows and not rows[0].one_request:
            refuse_overlaps(name, rows)
        _refuse_twins(name, rows)
    elif len(counting) > 1 or len(whose) > 1:
        kinds = ", ".join(f"{bill.name} ({bill.format})" for bill in bills)
        raise BadBill(name, "", f"these are several bills: {kinds}", _ONE_AT_A_TIME)
    else:
        rows = counting[0].rows if counting else ()
    ends = [bill.until for bill in bills if bill.until]
    starts = [bill.since for bill in bills if bill.since]
    return Bill(
        name,
        (counting or bills)[0].format,
        rows,
        since=min(starts, default=None),
        until=max(ends, default=None),
        unbilled=sum(bill.unbilled for bill in bills),
        unread=tuple(dict.fromkeys(column for bill in bills for column in bill.unread)),
        providers=frozenset(provider for bill in bills for provider in bill.providers),
        amounts=tuple(amount for bill in bills for amount in bill.amounts),
        counts=bool(counting),
        further=tuple(dict.fromkeys(column for bill in bills for column in bill.further)),
    )


def _refuse_twins(name: str, rows: Sequence[BillRow]) -> None:
    """Raises BadBill when two files hold the same sum: one was given twice, or under two names."""
    seen: dict[BillRow, str] = {}
    for row in rows:
        same = replace(row, place="")
        if (
            same in seen
            and not row.one_request
            and seen[same].partition(", line ")[0] != row.place.partition(", line ")[0]
        ):
            raise BadBill(name, row.place, f"it is the same as {seen[same]}", "give each file once")
        seen.setdefault(same, row.place)


def text_of(name: str, raw: bytes) -> str:
    """The text in `raw`. Raises BadBill for a file that holds none."""
    try:
        return text_files.text_of(raw)
    except text_files.NoText as error:
        raise BadBill(name, error.place, error.problem, error.remedy) from None


# More digits than any bill has in a row: longer numbers are typing errors.
Tokens = Annotated[int, Field(ge=0, lt=10**15, strict=True)]
_Model = TypeVar("_Model", bound=BaseModel)


def checked(name: str, place: str, model: type[_Model], value: Any) -> _Model:
    """`value` as `model`. Raises BadBill."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        value_given = "" if first["type"] == "missing" else f", not {shown(first['input'])}"
        raise BadBill(
            name, f"{place}{path}", f"{first['msg']}{value_given}", "correct it, or export the bill again"
        ) from None


def shown(value: Any) -> str:
    """A value for a message, cut to a readable length."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def part(name: str, place: str, inside: int | None, whole: int) -> int | None:
    """Cached tokens, which are inside the input. Raises BadBill when they are more than it."""
    if inside is not None and inside > whole:
        problem = f"{inside} cached tokens are more than {whole} of input"
        raise BadBill(name, place, problem, "correct it, or export the bill again")
    return inside


# Pages of buckets, as OpenAI's and Anthropic's reports are fetched: put in order by their times, and complete.
#
# The buckets' times, and what each page says of the next one, tell whether a page is missing. Pages may be given in any
# order and in any number of files.


@dataclass(frozen=True)
class BillPage:
    """One answer of a report. place: where it stands. more: whether it says that others follow. whole: whether it is an
    answer as it was given, in which no time is left out; not a list of buckets made from one."""

    file: str
    place: str
    data: Sequence[Any]
    more: bool = False
    next_page: str = ""
    whole: bool = True


@dataclass(frozen=True)
class Bucket:
    """One stretch of time with its results; `until` is not in it."""

    page: BillPage
    place: str
    since: datetime
    until: datetime
    results: Sequence[Any]


Times = Callable[[str, str, Mapping[str, Any]], tuple[datetime, datetime]]


def page_of(file: str, place: str, value: Mapping[str, Any]) -> BillPage:
    """A page as it was answered. Raises BadBill."""
    data = value["data"]
    if not isinstance(data, list):
        raise BadBill(file, place, f"data is {data!r:.60}, no list", "give the report's answer as it is")
    return BillPage(file, place, data, bool(value.get("has_more")), str(value.get("next_page") or ""))


def ordered(pages: Sequence[BillPage], times: Times) -> tuple[Bucket, ...]:
    """All buckets by time. Raises BadBill when one stands twice, or when one is missing."""
    buckets = sorted((bucket for page in pages for bucket in _buckets(page, times)), key=lambda earlier: earlier.since)
    for left, right in pairwise(buckets):
        if (left.since, left.until) == (right.since, right.until):
            problem = f"bucket {_span(right)} stands in {_named(left, right)} too"
            raise BadBill(right.page.file, right.place, problem, "give it once")
        if left.until > right.since:
            problem = f"its time, {_span(right)}, overlaps that of {_named(left, right)}, {_span(left)}"
            raise BadBill(right.page.file, right.place, problem, "give all pages in buckets of one width")
        if left.until < right.since and left.page.whole and right.page.whole:
            gap = f"{left.until.isoformat()} to {right.since.isoformat()}"
            problem = f"nothing is given from {gap}{_follows(left.page)}"
            raise BadBill(right.page.file, right.place, problem, "add the page that is missing")
    last = buckets[-1].page if buckets else next((page for page in pages if page.more), None)
    if last and last.more:
        problem = f"has_more is true: the export goes on at page {last.next_page!r}"
        raise BadBill(last.file, last.place, problem, "fetch the pages that follow, and give them too")
    return tuple(buckets)


def _buckets(page: BillPage, times: Times) -> Iterator[Bucket]:
    for number, value in enumerate(page.data):
        place = f"{page.place} data[{number}]" if page.place else f"data[{number}]"
        if not isinstance(value, dict):
            raise BadBill(page.file, place, f"{value!r:.60} is no bucket", "give the report's answer as it is")
        since, until = times(page.file, place, value)
        results = value.get("results")
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            problem = f"results is {results!r:.60}, no list of results"
            raise BadBill(page.file, f"{place}.results", problem, "give the report's answer as it is")
        if until <= since:
            problem = f"it ends at {until.isoformat()} and begins at {since.isoformat()}"
            raise BadBill(page.file, place, problem, "export it again")
        yield Bucket(page, place, since, until, results)


def _span(bucket: Bucket) -> str:
    return f"{bucket.since.isoformat()} to {bucket.until.isoformat()}"


def _named(one: Bucket, other: Bucket) -> str:
    return one.place if one.page.file == other.page.file else f"{one.page.file}, {one.place}"


def _follows(page: BillPage) -> str:
    return f"; {page.place or page.file} says that page {page.next_page!r} follows it" if page.more else ""


# The providers' own reports in JSON: OpenAI's and Anthropic's usage by model, and their costs.
#
# OpenAI       GET /v1/organization/usage/completions?group_by=model    GET /v1/organization/costs?group_by=line_item
# Anthropic    GET /v1/organizations/usage_report/messages?group_by[]=model
#              GET /v1/organizations/cost_report?group_by[]=description

OPENAI_USAGE = "GET /v1/organization/usage/completions with group_by=model"
ANTHROPIC_USAGE = "GET /v1/organizations/usage_report/messages with group_by[]=model"
_CENT = Decimal("0.01")
# No amount of a bill has more digits before its decimals, or after them.
_MOST_DIGITS = 12
_MOST_PLACES_OF_A_SUM = 30


class _OpenAIUsage(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model: Annotated[str, Field(min_length=1)]
    input_tokens: Tokens
    output_tokens: Tokens
    input_cached_tokens: Tokens | None = None
    num_model_requests: Tokens


class _CacheCreation(BaseModel):
    ephemeral_1h_input_tokens: Tokens = 0
    ephemeral_5m_input_tokens: Tokens = 0


class _AnthropicUsage(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model: Annotated[str, Field(min_length=1)]
    uncached_input_tokens: Tokens
    cache_read_input_tokens: Tokens
    output_tokens: Tokens
    cache_creation: _CacheCreation | None = None
    cache_creation_input_tokens: Tokens = 0

    @property
    def written(self) -> int:
        """Tokens that were written to the cache."""
        kept = self.cache_creation
        return self.cache_creation_input_tokens + (
            kept.ephemeral_1h_input_tokens + kept.ephemeral_5m_input_tokens if kept else 0
        )


@dataclass(frozen=True)
class Report:
    """A kind of report: what its bill is called, whose it is, how its results are read."""

    format: BillFormat
    provider: str
    times: Callable[[str, str, Mapping[str, Any]], tuple[datetime, datetime]]
    row: Callable[[str, str, Bucket, Mapping[str, Any]], BillRow] | None = None
    amount: Callable[[str, str, Bucket, Mapping[str, Any]], Amount] | None = None
    # What a result may hold besides, each a quantity that costs something and that the record does not keep.
    further: tuple[str, ...] = ()

    def bill(self, name: str, pages: Sequence[BillPage]) -> Bill:
        """The bill of all its pages. Raises BadBill."""
        buckets = ordered(pages, self.times)
        results = [
            (f"{bucket.place}.results[{n}]", bucket, result)
            for bucket in buckets
            for n, result in enumerate(bucket.results)
        ]
        rows = tuple(self.row(b.page.file, at, b, result) for at, b, result in results) if self.row else ()
        refuse_overlaps(name, rows)
        amounts = tuple(self.amount(b.page.file, at, b, result) for at, b, result in results) if self.amount else ()
        return Bill(
            name,
            self.format,
            rows,
            since=min((bucket.since for bucket in buckets), default=None),
            until=max((bucket.until for bucket in buckets), default=None),
            providers=frozenset({self.provider}),
            amounts=amounts,
            counts=self.row is not None,
            further=_further(self.further, (column for _, _, column in results)),
        )


def report_of(value: Mapping[str, Any]) -> Report | None:
    """Which report a page, or a bucket alone, is of; None when it is none. An empty one is taken for usage."""
    if "data" in value and not isinstance(value["data"], list):
        return OPENAI  # its reading says what is wrong with it
    buckets = value.get("data", [value])
    listed = [bucket.get("results") for bucket in buckets if isinstance(bucket, dict)]
    results = [result for results in listed if isinstance(results, list) for result in results]
    first = next((result for result in results if isinstance(result, dict)), {})
    bucket = next((item for item in buckets if isinstance(item, dict)), {})
    if "starting_at" in bucket:
        return ANTHROPIC_COSTS if "amount" in first else ANTHROPIC
    if "start_time" in bucket or value.get("object") == "page":
        return OPENAI_COSTS if "amount" in first else OPENAI
    return None


def _openai_times(name: str, place: str, bucket: Mapping[str, Any]) -> tuple[datetime, datetime]:
    times = []
    for key in ("start_time", "end_time"):
        value = bucket.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadBill(name, f"{place}.{key}", f"{value!r:.60} is no time in seconds since 1970", "export it again")
        times.append(since_1970(name, f"{place}.{key}", key, value))
    return times[0], times[1]


def _anthropic_times(name: str, place: str, bucket: Mapping[str, Any]) -> tuple[datetime, datetime]:
    times = []
    for key in ("starting_at", "ending_at"):
        value = bucket.get(key)
        if not isinstance(value, str):
            raise BadBill(name, f"{place}.{key}", f"{value!r:.60} is no time", "export it again")
        times.append(instant(name, f"{place}.{key}", key, value).astimezone(UTC))
    return times[0], times[1]


def _openai_row(name: str, place: str, bucket: Bucket, value: Mapping[str, Any]) -> BillRow:
    if value.get("model") is None:
        raise BadBill(name, place, "its model is null: the export sums over all models", f"export {OPENAI_USAGE}")
    result = checked(name, place, _OpenAIUsage, value)
    cached = part(name, f"{place}.input_cached_tokens", result.input_cached_tokens, result.input_tokens)
    count = Count(result.num_model_requests, result.input_tokens, cached, result.output_tokens)
    return BillRow(place, result.model, bucket.since, bucket.until, count, provider="openai")


def _anthropic_row(name: str, place: str, bucket: Bucket, value: Mapping[str, Any]) -> BillRow:
    if value.get("model") is None:
        raise BadBill(name, place, "its model is null: the report sums over all models", f"export {ANTHROPIC_USAGE}")
    result = checked(name, place, _AnthropicUsage, value)
    entered = result.uncached_input_tokens + result.written + result.cache_read_input_tokens
    count = Count(None, entered, result.cache_read_input_tokens, result.output_tokens)
    written = result.written
    return BillRow(place, result.model, bucket.since, bucket.until, count, provider="anthropic", written=written)


def _openai_amount(name: str, place: str, bucket: Bucket, value: Mapping[str, Any]) -> Amount:
    """The line's model stands before its first comma: `gpt-4o-mini-2024-07-18, cached input`."""
    amount = value.get("amount")
    if not isinstance(amount, dict):
        raise BadBill(name, f"{place}.amount", f"{amount!r:.60} is no amount", "export it again")
    money = _money(name, f"{place}.amount.value", amount.get("value"))
    currency = _currency(name, f"{place}.amount.currency", amount.get("currency"))
    line = str(value.get("line_item") or "")
    return Amount(place, line.partition(",")[0].strip(), bucket.since, bucket.until, money, currency)


def _anthropic_amount(name: str, place: str, bucket: Bucket, value: Mapping[str, Any]) -> Amount:
    """Anthropic gives its amounts in cents. What is no model's, such as web search, has its description."""
    money = _money(name, f"{place}.amount", value.get("amount"))
    currency = _currency(name, f"{place}.currency", value.get("currency"))
    what = value.get("model") or value.get("description") or ""
    return Amount(place, str(what), bucket.since, bucket.until, money * _CENT, currency)


def _money(name: str, place: str, value: Any) -> Decimal:
    problem = f"{shown(value)} is no amount of money"
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise BadBill(name, place, problem, "export it again")
    if isinstance(value, str) and len(value) > _MOST_DIGITS + _MOST_PLACES_OF_A_SUM + 2:
        raise BadBill(name, place, "an amount cannot have so many digits", "export it again")
    try:
        money = Decimal(value)
    except InvalidOperation:
        raise BadBill(name, place, problem, "export it again") from None
    fits = (
        money.is_finite()
        and money.adjusted() < _MOST_DIGITS
        and int(money.as_tuple().exponent) >= -_MOST_PLACES_OF_A_SUM
    )
    if not fits:
        raise BadBill(name, place, problem, "export it again")
    return money


def _currency(name: str, place: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) != 3 or not value.isascii() or not value.isalpha():
        raise BadBill(name, place, f"{value!r:.60} is no currency", "export it again")
    return value.upper()


def _further(names: Sequence[str], results: Iterator[Mapping[str, Any]]) -> tuple[str, ...]:
    """Quantities that the results hold beside the tokens of text, each with its sum."""
    sums: Counter[str] = Counter()
    for result in results:
        for name in names:
            value: Any = result
            for step in name.split("."):
                value = value.get(step) if isinstance(value, dict) else None
            if isinstance(value, int) and value > 0:
                sums[name] += value
    return tuple(f"{name} ({amount:,})" for name, amount in sums.items())


OPENAI = Report(
    BillFormat.OPENAI_USAGE,
    "openai",
    _openai_times,
    row=_openai_row,
    further=("input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens"),
)
OPENAI_COSTS = Report(BillFormat.OPENAI_COSTS, "openai", _openai_times, amount=_openai_amount)
ANTHROPIC = Report(
    BillFormat.ANTHROPIC_USAGE,
    "anthropic",
    _anthropic_times,
    row=_anthropic_row,
    further=("server_tool_use.web_search_requests",),
)
ANTHROPIC_COSTS = Report(BillFormat.ANTHROPIC_COSTS, "anthropic", _anthropic_times, amount=_anthropic_amount)


_MOST_PLACES = 60


class _SandboxRow(BaseModel):
    id: int | str
    at: AwareDatetime
    protocol: Annotated[str, Field(max_length=40)] = ""
    model: str
    input_tokens: Tokens
    cached_tokens: Tokens
    output_tokens: Tokens
    billed: bool


def read_json(name: str, text: str) -> Bill | dict[Report, list[BillPage]]:
    """The sandbox's bill, or a report's pages, from one or more JSON values one after the other. Raises BadBill."""
    values = list(_values(name, text))
    if len(values) == 1 and isinstance(values[0], dict) and "rows" in values[0]:
        return _sandbox(name, values[0]["rows"])
    pages: dict[Report, list[BillPage]] = {}
    alone = [item for value in values for item in (value if isinstance(value, list) else [value])]
    for number, value in enumerate(alone, start=1):
        report = report_of(value) if isinstance(value, dict) else None
        if report is None:
            raise _unknown(name)
        whole = "data" in value
        place = f"page {number}" if len(alone) > 1 or whole else ""
        page = page_of(name, place, value) if whole else BillPage(name, place, [value], whole=False)
        pages.setdefault(report, []).append(page)
    if not pages:
        raise _unknown(name)
    return pages


def _unknown(name: str) -> BadBill:
    return BadBill(
        name,
        "",
        "its JSON is not a known kind of bill",
        f"give the sandbox's bill ({{\"rows\": [...]}}), the answers of OpenAI's {OPENAI_USAGE}, of Anthropic's "
        f"{ANTHROPIC_USAGE}, or of their costs, or CSV with a header",
    )


def _values(name: str, text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_float=_exact, parse_constant=_no_number, object_pairs_hook=_without_twins)
    at = 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            rest = text[error.pos : error.pos + 20].splitlines()
            raise BadBill(
                name, place, f"no JSON ({error.msg}) at {rest[0] if rest else 'its end'!r}", "export it again, whole"
            ) from None
        except RecursionError:
            raise BadBill(name, "", "it is nested deeper than any bill", "export it again") from None
        except ValueError as error:
            place = f"line {text.count(chr(10), 0, at) + 1} and what follows"
            problem = "a number cannot have so many digits" if "digits" in str(error) else str(error)
            raise BadBill(name, place, problem, "export it again") from None
        yield value
        while at < len(text) and (text[at].isspace() or text[at] == ","):
            at += 1


def _exact(text: str) -> Decimal:
    if len(text) > 100:
        raise ValueError("a number cannot have so many digits")
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = None
    # Converting 1e999999999 to an int, or printing it, takes hours.
    if number is None or abs(number.adjusted()) > _MOST_PLACES:
        raise ValueError(f"{text[:40]} is beyond all numbers of a bill")
    return number


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _without_twins(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} stands twice in one object")
    return members


def _sandbox(name: str, rows: Any) -> Bill:
    if not isinstance(rows, list):
        raise BadBill(name, "rows", f"{shown(rows)} is no list", "give the answer of the sandbox's GET /bill as it is")
    read = [checked(name, f"rows[{number}]", _SandboxRow, row) for number, row in enumerate(rows)]
    seen: dict[int | str, int] = {}
    for number, row in enumerate(read):
        if row.id in seen:
            problem = f"id {shown(row.id)} stands in rows[{seen[row.id]}] already"
            raise BadBill(name, f"rows[{number}]", problem, "give each row once")
        seen[row.id] = number
    return Bill(
        name,
        BillFormat.SANDBOX,
        tuple(_request(name, number, row) for number, row in enumerate(read) if row.billed),
        unbilled=sum(not row.billed for row in read),
        providers=frozenset(row.protocol for row in read if row.protocol),
    )


def _request(name: str, number: int, row: _SandboxRow) -> BillRow:
    if not row.model:
        problem = f"row {shown(row.id)} is billed and names no model"
        raise BadBill(name, f"rows[{number}]", problem, "add its model")
    try:
        at = row.at.astimezone(UTC)
    except OverflowError:
        raise BadBill(name, f"rows[{number}].at", f"{row.at} is no time", "export the bill again") from None
    cached = part(name, f"rows[{number}].cached_tokens", row.cached_tokens, row.input_tokens)
    count = Count(1, row.input_tokens, cached, row.output_tokens)
    return BillRow(f"row {row.id}", row.model, at, at, count, provider=row.protocol)
