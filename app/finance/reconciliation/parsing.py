"""Reads a provider's bill, whose format is recognised by its content. A bill with an unreadable row is refused.

the sandbox's bill              {"rows": [...]}, one row for each request
OpenAI's and Anthropic's usage  pages of buckets, by model, in any order and any number of files
OpenAI's and Anthropic's costs  the same, beside the usage or alone
CSV                             a header, then a row for each request, hour, day or other period
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
    epoch_instant,
    instant,
    refuse_overlaps,
)
from app.finance.reconciliation.bill_csv import read_csv

__all__ = ["BadBill", "Bill", "BillFormat", "BillRow", "parse_bill", "parse_bills", "text_of"]

_BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
_ONE_AT_A_TIME = "reconcile them one after the other"


def parse_bill(name: str, text: str) -> Bill:
    """The bill in `text`. Errors call it `name`. Raises BadBill."""
    return parse_bills([(name, text)])


def parse_bills(files: Sequence[tuple[str, str]]) -> Bill:
    """The bill in several files, each a (name, text): pages of a report, usage and costs, or parts of a table.
    Raises BadBill."""
    bill_name = files[0][0] if len(files) == 1 else f"{files[0][0]} and {len(files) - 1} more"
    pages: dict[Report, list[BillPage]] = {}
    bills: list[Bill] = []
    for name, text in files:
        content = _read(name, text)
        if isinstance(content, Bill):
            bills.append(content)
            continue
        for report, report_pages in content.items():
            pages.setdefault(report, []).extend(report_pages)
    bills += [report.bill(bill_name, report_pages) for report, report_pages in pages.items()]
    if len(bills) == 1:
        return replace(bills[0], name=bill_name)
    return _merge(bill_name, bills)


def _read(name: str, text: str) -> Bill | dict[Report, list[BillPage]]:
    content = text.removeprefix(_BYTE_ORDER_MARK)
    if not content.strip():
        raise BadBill(name, "", "it is empty", "export it again, as JSON or as CSV with a header")
    if content.lstrip()[0] in "{[":
        return read_json(name, content)
    if content.lstrip()[0] == "<":
        raise BadBill(name, "", "it is HTML or XML", "export it as JSON or as CSV with a header")
    return read_csv(name, content)


def _merge(name: str, bills: Sequence[Bill]) -> Bill:
    """One bill from several tables, or from a provider's usage and its costs. Raises BadBill for other combinations."""
    usage_bills = [bill for bill in bills if bill.counts]
    if {bill.format for bill in bills} == {BillFormat.CSV}:
        rows = tuple(replace(row, place=f"{bill.name}, {row.place}") for bill in bills for row in bill.rows)
        if len({row.one_request for row in rows}) > 1:
            raise BadBill(name, "", "some rows are requests and some are sums", _ONE_AT_A_TIME)
        if rows and not rows[0].one_request:
            refuse_overlaps(name, rows)
        _refuse_repeated_sums(name, rows)
    elif len(usage_bills) > 1 or len({bill.providers for bill in bills}) > 1:
        kinds = ", ".join(f"{bill.name} ({bill.format})" for bill in bills)
        raise BadBill(name, "", f"these are several bills: {kinds}", _ONE_AT_A_TIME)
    else:
        rows = usage_bills[0].rows if usage_bills else ()
    ends = [bill.until for bill in bills if bill.until]
    starts = [bill.since for bill in bills if bill.since]
    return Bill(
        name,
        (usage_bills or bills)[0].format,
        rows,
        since=min(starts, default=None),
        until=max(ends, default=None),
        unbilled=sum(bill.unbilled for bill in bills),
        unread=tuple(dict.fromkeys(column for bill in bills for column in bill.unread)),
        providers=frozenset(provider for bill in bills for provider in bill.providers),
        amounts=tuple(amount for bill in bills for amount in bill.amounts),
        counts=bool(usage_bills),
        extra_quantities=tuple(dict.fromkeys(column for bill in bills for column in bill.extra_quantities)),
    )


def _refuse_repeated_sums(name: str, rows: Sequence[BillRow]) -> None:
    """Raises BadBill if two files hold the same sum, because one file was given twice."""
    place_of: dict[BillRow, str] = {}
    for row in rows:
        content = replace(row, place="")
        if (
            content in place_of
            and not row.one_request
            and place_of[content].partition(", line ")[0] != row.place.partition(", line ")[0]
        ):
            raise BadBill(name, row.place, f"it is the same as {place_of[content]}", "give each file once")
        place_of.setdefault(content, row.place)


def text_of(name: str, raw: bytes) -> str:
    """The text in `raw`. Raises BadBill for a file that is not text."""
    try:
        return text_files.text_of(raw)
    except text_files.NoText as error:
        raise BadBill(name, error.place, error.problem, error.remedy) from None


# No bill has counts of more than 15 digits: longer numbers are typing errors.
Tokens = Annotated[int, Field(ge=0, lt=10**15, strict=True)]
_Model = TypeVar("_Model", bound=BaseModel)


def checked(name: str, place: str, model: type[_Model], value: Any) -> _Model:
    """`value` validated as `model`. Raises BadBill, which names the first wrong field."""
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
    """A value as text for a message, cut to 60 characters."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def cached_part(name: str, place: str, cached: int | None, entered: int) -> int | None:
    """The cached tokens among the input tokens `entered`. Raises BadBill if they are more than those."""
    if cached is not None and cached > entered:
        problem = f"{cached} cached tokens are more than {entered} of input"
        raise BadBill(name, place, problem, "correct it, or export the bill again")
    return cached


# Pages of buckets, as OpenAI's and Anthropic's reports return them, in any order and any number of files. A missing
# page is detected from the times of the buckets and from `has_more`.


@dataclass(frozen=True)
class BillPage:
    """One answer of a report. more: whether it says that a page follows. whole: whether it is a complete answer, which
    leaves out no time, and not buckets taken from one."""

    file: str
    place: str
    data: Sequence[Any]
    more: bool = False
    next_page: str = ""
    whole: bool = True


@dataclass(frozen=True)
class Bucket:
    """The results of one period, excluding `until`."""

    page: BillPage
    place: str
    since: datetime
    until: datetime
    results: Sequence[Any]


Times = Callable[[str, str, Mapping[str, Any]], tuple[datetime, datetime]]


def page_of(file: str, place: str, value: Mapping[str, Any]) -> BillPage:
    """The page in one answer of a report. Raises BadBill."""
    data = value["data"]
    if not isinstance(data, list):
        raise BadBill(file, place, f"data is {data!r:.60}, not a list", "give the report's answer as it is")
    return BillPage(file, place, data, bool(value.get("has_more")), str(value.get("next_page") or ""))


def ordered_buckets(pages: Sequence[BillPage], times: Times) -> tuple[Bucket, ...]:
    """All buckets, ordered by time. Raises BadBill if one is repeated or missing."""
    buckets = sorted((bucket for page in pages for bucket in _buckets(page, times)), key=lambda bucket: bucket.since)
    for left, right in pairwise(buckets):
        if (left.since, left.until) == (right.since, right.until):
            problem = f"bucket {_span(right)} is also in {_place_of(left, right)}"
            raise BadBill(right.page.file, right.place, problem, "give it once")
        if left.until > right.since:
            problem = f"its time, {_span(right)}, overlaps that of {_place_of(left, right)}, {_span(left)}"
            raise BadBill(right.page.file, right.place, problem, "give all pages in buckets of equal width")
        if left.until < right.since and left.page.whole and right.page.whole:
            gap = f"{left.until.isoformat()} to {right.since.isoformat()}"
            problem = f"nothing is given from {gap}{_next_page(left.page)}"
            raise BadBill(right.page.file, right.place, problem, "add the missing page")
    last = buckets[-1].page if buckets else next((page for page in pages if page.more), None)
    if last and last.more:
        problem = f"has_more is true: the export continues at page {last.next_page!r}"
        raise BadBill(last.file, last.place, problem, "fetch the following pages, and give them too")
    return tuple(buckets)


def _buckets(page: BillPage, times: Times) -> Iterator[Bucket]:
    for number, value in enumerate(page.data):
        place = f"{page.place} data[{number}]" if page.place else f"data[{number}]"
        if not isinstance(value, dict):
            raise BadBill(page.file, place, f"{value!r:.60} is not a bucket", "give the report's answer as it is")
        since, until = times(page.file, place, value)
        results = value.get("results")
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            problem = f"results is {results!r:.60}, not a list of results"
            raise BadBill(page.file, f"{place}.results", problem, "give the report's answer as it is")
        if until <= since:
            problem = f"it ends at {until.isoformat()} and begins at {since.isoformat()}"
            raise BadBill(page.file, place, problem, "export it again")
        yield Bucket(page, place, since, until, results)


def _span(bucket: Bucket) -> str:
    return f"{bucket.since.isoformat()} to {bucket.until.isoformat()}"


def _place_of(bucket: Bucket, other: Bucket) -> str:
    """The place of a bucket, with its file if `other` is in another file."""
    return bucket.place if bucket.page.file == other.page.file else f"{bucket.page.file}, {bucket.place}"


def _next_page(page: BillPage) -> str:
    return f"; {page.place or page.file} says that page {page.next_page!r} follows it" if page.more else ""


# The providers' own reports in JSON: OpenAI's and Anthropic's usage by model, and their costs.
#
# OpenAI       GET /v1/organization/usage/completions?group_by=model    GET /v1/organization/costs?group_by=line_item
# Anthropic    GET /v1/organizations/usage_report/messages?group_by[]=model
#              GET /v1/organizations/cost_report?group_by[]=description

OPENAI_USAGE = "GET /v1/organization/usage/completions with group_by=model"
ANTHROPIC_USAGE = "GET /v1/organizations/usage_report/messages with group_by[]=model"
_CENT = Decimal("0.01")
# The most digits of an amount before and after its decimal point.
_MAX_DIGITS = 12
_MAX_PLACES_OF_A_SUM = 30


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
        """Tokens written to the cache."""
        creation = self.cache_creation
        return self.cache_creation_input_tokens + (
            creation.ephemeral_1h_input_tokens + creation.ephemeral_5m_input_tokens if creation else 0
        )


@dataclass(frozen=True)
class Report:
    """A kind of report: its format and provider, and the functions that read its buckets and results.

    extra_quantities: keys of further quantities that cost something and that our record does not keep.
    """

    format: BillFormat
    provider: str
    times: Callable[[str, str, Mapping[str, Any]], tuple[datetime, datetime]]
    row: Callable[[str, str, Bucket, Mapping[str, Any]], BillRow] | None = None
    amount: Callable[[str, str, Bucket, Mapping[str, Any]], Amount] | None = None
    extra_quantities: tuple[str, ...] = ()

    def bill(self, name: str, pages: Sequence[BillPage]) -> Bill:
        """The bill in all pages of the report. Raises BadBill."""
        buckets = ordered_buckets(pages, self.times)
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
            extra_quantities=_sums_of(self.extra_quantities, (result for _, _, result in results)),
        )


def report_of(value: Mapping[str, Any]) -> Report | None:
    """The report that a page, or a single bucket, belongs to; None if unknown. An empty page counts as usage."""
    if "data" in value and not isinstance(value["data"], list):
        return OPENAI  # reading it raises the error
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
            raise BadBill(
                name, f"{place}.{key}", f"{value!r:.60} is not a time in seconds since 1970", "export it again"
            )
        times.append(epoch_instant(name, f"{place}.{key}", key, value))
    return times[0], times[1]


def _anthropic_times(name: str, place: str, bucket: Mapping[str, Any]) -> tuple[datetime, datetime]:
    times = []
    for key in ("starting_at", "ending_at"):
        value = bucket.get(key)
        if not isinstance(value, str):
            raise BadBill(name, f"{place}.{key}", f"{value!r:.60} is not a time", "export it again")
        times.append(instant(name, f"{place}.{key}", key, value).astimezone(UTC))
    return times[0], times[1]


def _openai_row(name: str, place: str, bucket: Bucket, value: Mapping[str, Any]) -> BillRow:
    if value.get("model") is None:
        raise BadBill(name, place, "its model is null: the export is a sum of all models", f"export {OPENAI_USAGE}")
    result = checked(name, place, _OpenAIUsage, value)
    cached = cached_part(name, f"{place}.input_cached_tokens", result.input_cached_tokens, result.input_tokens)
    count = Count(result.num_model_requests, result.input_tokens, cached, result.output_tokens)
    return BillRow(place, result.model, bucket.since, bucket.until, count, provider="openai")


def _anthropic_row(name: str, place: str, bucket: Bucket, value: Mapping[str, Any]) -> BillRow:
    if value.get("model") is None:
        raise BadBill(name, place, "its model is null: the report is a sum of all models", f"export {ANTHROPIC_USAGE}")
    result = checked(name, place, _AnthropicUsage, value)
    entered = result.uncached_input_tokens + result.written + result.cache_read_input_tokens
    count = Count(None, entered, result.cache_read_input_tokens, result.output_tokens)
    written = result.written
    return BillRow(place, result.model, bucket.since, bucket.until, count, provider="anthropic", written=written)


def _openai_amount(name: str, place: str, bucket: Bucket, value: Mapping[str, Any]) -> Amount:
    """The model is the part of the line item before its first comma: `gpt-4o-mini-2024-07-18, cached input`."""
    amount = value.get("amount")
    if not isinstance(amount, dict):
        raise BadBill(name, f"{place}.amount", f"{amount!r:.60} is not an amount", "export it again")
    money = _money(name, f"{place}.amount.value", amount.get("value"))
    currency = _currency(name, f"{place}.amount.currency", amount.get("currency"))
    line = str(value.get("line_item") or "")
    return Amount(place, line.partition(",")[0].strip(), bucket.since, bucket.until, money, currency)


def _anthropic_amount(name: str, place: str, bucket: Bucket, value: Mapping[str, Any]) -> Amount:
    """Anthropic's amounts are in cents. Items without a model, such as web search, are named by their description."""
    money = _money(name, f"{place}.amount", value.get("amount"))
    currency = _currency(name, f"{place}.currency", value.get("currency"))
    item = value.get("model") or value.get("description") or ""
    return Amount(place, str(item), bucket.since, bucket.until, money * _CENT, currency)


def _money(name: str, place: str, value: Any) -> Decimal:
    problem = f"{shown(value)} is not an amount of money"
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise BadBill(name, place, problem, "export it again")
    if isinstance(value, str) and len(value) > _MAX_DIGITS + _MAX_PLACES_OF_A_SUM + 2:
        raise BadBill(name, place, "an amount has too many digits", "export it again")
    try:
        money = Decimal(value)
    except InvalidOperation:
        raise BadBill(name, place, problem, "export it again") from None
    fits = (
        money.is_finite() and money.adjusted() < _MAX_DIGITS and int(money.as_tuple().exponent) >= -_MAX_PLACES_OF_A_SUM
    )
    if not fits:
        raise BadBill(name, place, problem, "export it again")
    return money


def _currency(name: str, place: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) != 3 or not value.isascii() or not value.isalpha():
        raise BadBill(name, place, f"{value!r:.60} is not a currency", "export it again")
    return value.upper()


def _sums_of(names: Sequence[str], results: Iterator[Mapping[str, Any]]) -> tuple[str, ...]:
    """The named quantities of the results, each with its sum. A name is a path of keys, separated by points."""
    sums: Counter[str] = Counter()
    for result in results:
        for name in names:
            value: Any = result
            for key in name.split("."):
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, int) and value > 0:
                sums[name] += value
    return tuple(f"{name} ({amount:,})" for name, amount in sums.items())


OPENAI = Report(
    BillFormat.OPENAI_USAGE,
    "openai",
    _openai_times,
    row=_openai_row,
    extra_quantities=("input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens"),
)
OPENAI_COSTS = Report(BillFormat.OPENAI_COSTS, "openai", _openai_times, amount=_openai_amount)
ANTHROPIC = Report(
    BillFormat.ANTHROPIC_USAGE,
    "anthropic",
    _anthropic_times,
    row=_anthropic_row,
    extra_quantities=("server_tool_use.web_search_requests",),
)
ANTHROPIC_COSTS = Report(BillFormat.ANTHROPIC_COSTS, "anthropic", _anthropic_times, amount=_anthropic_amount)


_MAX_PLACES = 60


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
    """The sandbox's bill, or pages by report, from one or more consecutive JSON values. Raises BadBill."""
    values = list(_values(name, text))
    if len(values) == 1 and isinstance(values[0], dict) and "rows" in values[0]:
        return _sandbox(name, values[0]["rows"])
    pages: dict[Report, list[BillPage]] = {}
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    for number, value in enumerate(items, start=1):
        report = report_of(value) if isinstance(value, dict) else None
        if report is None:
            raise _unknown_format(name)
        whole = "data" in value
        place = f"page {number}" if len(items) > 1 or whole else ""
        page = page_of(name, place, value) if whole else BillPage(name, place, [value], whole=False)
        pages.setdefault(report, []).append(page)
    if not pages:
        raise _unknown_format(name)
    return pages


def _unknown_format(name: str) -> BadBill:
    return BadBill(
        name,
        "",
        "its JSON is not a known kind of bill",
        f"give the sandbox's bill ({{\"rows\": [...]}}), the answers of OpenAI's {OPENAI_USAGE}, of Anthropic's "
        f"{ANTHROPIC_USAGE}, or of their costs, or CSV with a header",
    )


def _values(name: str, text: str) -> Iterator[Any]:
    """The consecutive JSON values of a text, which commas may separate."""
    decoder = json.JSONDecoder(parse_float=_exact, parse_constant=_refuse_constant, object_pairs_hook=_unique_members)
    at = 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            rest = text[error.pos : error.pos + 20].splitlines()
            raise BadBill(
                name,
                place,
                f"not valid JSON ({error.msg}) at {rest[0] if rest else 'its end'!r}",
                "export it again, whole",
            ) from None
        except RecursionError:
            raise BadBill(name, "", "it is nested too deeply for a bill", "export it again") from None
        except ValueError as error:
            place = f"line {text.count(chr(10), 0, at) + 1} or below"
            problem = "a number has too many digits" if "digits" in str(error) else str(error)
            raise BadBill(name, place, problem, "export it again") from None
        yield value
        while at < len(text) and (text[at].isspace() or text[at] == ","):
            at += 1


def _exact(text: str) -> Decimal:
    if len(text) > 100:
        raise ValueError("a number has too many digits")
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = None
    # Converting 1e999999999 to an int, or printing it, takes hours.
    if number is None or abs(number.adjusted()) > _MAX_PLACES:
        raise ValueError(f"{text[:40]} is too large or too small for a bill")
    return number


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def _unique_members(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(repeated)} occurs twice in one object")
    return members


def _sandbox(name: str, rows: Any) -> Bill:
    if not isinstance(rows, list):
        raise BadBill(
            name, "rows", f"{shown(rows)} is not a list", "give the answer of the sandbox's GET /bill as it is"
        )
    sandbox_rows = [checked(name, f"rows[{number}]", _SandboxRow, row) for number, row in enumerate(rows)]
    number_of: dict[int | str, int] = {}
    for number, row in enumerate(sandbox_rows):
        if row.id in number_of:
            problem = f"id {shown(row.id)} is already in rows[{number_of[row.id]}]"
            raise BadBill(name, f"rows[{number}]", problem, "give each row once")
        number_of[row.id] = number
    return Bill(
        name,
        BillFormat.SANDBOX,
        tuple(_request(name, number, row) for number, row in enumerate(sandbox_rows) if row.billed),
        unbilled=sum(not row.billed for row in sandbox_rows),
        providers=frozenset(row.protocol for row in sandbox_rows if row.protocol),
    )


def _request(name: str, number: int, row: _SandboxRow) -> BillRow:
    if not row.model:
        problem = f"row {shown(row.id)} is billed and names no model"
        raise BadBill(name, f"rows[{number}]", problem, "add its model")
    try:
        at = row.at.astimezone(UTC)
    except OverflowError:
        raise BadBill(name, f"rows[{number}].at", f"{row.at} is not a time", "export the bill again") from None
    cached = cached_part(name, f"rows[{number}].cached_tokens", row.cached_tokens, row.input_tokens)
    count = Count(1, row.input_tokens, cached, row.output_tokens)
    return BillRow(f"row {row.id}", row.model, at, at, count, provider=row.protocol)
