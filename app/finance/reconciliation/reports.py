"""The providers' own reports in JSON: OpenAI's and Anthropic's usage by model, and their costs. Pure.

OpenAI       GET /v1/organization/usage/completions?group_by=model    GET /v1/organization/costs?group_by=line_item
Anthropic    GET /v1/organizations/usage_report/messages?group_by[]=model
             GET /v1/organizations/cost_report?group_by[]=description
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.finance.reconciliation.bill import Amount, BadBill, Bill, BillFormat, BillRow, refuse_overlaps
from app.finance.reconciliation.bill_checks import Tokens, checked, part, shown
from app.finance.reconciliation.counts import Count
from app.finance.reconciliation.numbers import instant, since_1970
from app.finance.reconciliation.pages import Bucket, Page, ordered

OPENAI_USAGE = "GET /v1/organization/usage/completions with group_by=model"
ANTHROPIC_USAGE = "GET /v1/organizations/usage_report/messages with group_by[]=model"
_CENT = Decimal("0.01")
# No amount of a bill has more digits before its decimals, or after them.
_MOST_DIGITS = 12
_MOST_PLACES = 30


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

    def bill(self, name: str, pages: Sequence[Page]) -> Bill:
        """The bill of all its pages. Raises BadBill."""
        buckets = ordered(pages, self.times)
        found = [
            (f"{bucket.place}.results[{n}]", bucket, each)
            for bucket in buckets
            for n, each in enumerate(bucket.results)
        ]
        rows = tuple(self.row(b.page.file, place, b, each) for place, b, each in found) if self.row else ()
        refuse_overlaps(name, rows)
        amounts = tuple(self.amount(b.page.file, place, b, each) for place, b, each in found) if self.amount else ()
        return Bill(
            name,
            self.format,
            rows,
            since=min((bucket.since for bucket in buckets), default=None),
            until=max((bucket.until for bucket in buckets), default=None),
            providers=frozenset({self.provider}),
            amounts=amounts,
            counts=self.row is not None,
            further=_further(self.further, (each for _, _, each in found)),
        )


def report_of(value: Mapping[str, Any]) -> Report | None:
    """Which report a page, or a bucket alone, is of; None when it is none. An empty one is taken for usage."""
    if "data" in value and not isinstance(value["data"], list):
        return OPENAI  # its reading says what is wrong with it
    buckets = value.get("data", [value])
    listed = [bucket.get("results") for bucket in buckets if isinstance(bucket, dict)]
    results = [each for results in listed if isinstance(results, list) for each in results]
    first = next((each for each in results if isinstance(each, dict)), {})
    bucket = next((each for each in buckets if isinstance(each, dict)), {})
    if "starting_at" in bucket:
        return ANTHROPIC_COSTS if "amount" in first else ANTHROPIC
    if "start_time" in bucket or value.get("object") == "page":
        return OPENAI_COSTS if "amount" in first else OPENAI
    return None


def _openai_times(name: str, place: str, bucket: Mapping[str, Any]) -> tuple[datetime, datetime]:
    found = []
    for key in ("start_time", "end_time"):
        value = bucket.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadBill(name, f"{place}.{key}", f"{value!r:.60} is no time in seconds since 1970", "export it again")
        found.append(since_1970(name, f"{place}.{key}", key, value))
    return found[0], found[1]


def _anthropic_times(name: str, place: str, bucket: Mapping[str, Any]) -> tuple[datetime, datetime]:
    found = []
    for key in ("starting_at", "ending_at"):
        value = bucket.get(key)
        if not isinstance(value, str):
            raise BadBill(name, f"{place}.{key}", f"{value!r:.60} is no time", "export it again")
        found.append(instant(name, f"{place}.{key}", key, value).astimezone(UTC))
    return found[0], found[1]


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
    if isinstance(value, str) and len(value) > _MOST_DIGITS + _MOST_PLACES + 2:
        raise BadBill(name, place, "an amount of so many digits is none", "export it again")
    try:
        found = Decimal(value)
    except InvalidOperation:
        raise BadBill(name, place, problem, "export it again") from None
    fits = found.is_finite() and found.adjusted() < _MOST_DIGITS and int(found.as_tuple().exponent) >= -_MOST_PLACES
    if not fits:
        raise BadBill(name, place, problem, "export it again")
    return found


def _currency(name: str, place: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) != 3 or not value.isascii() or not value.isalpha():
        raise BadBill(name, place, f"{value!r:.60} is no currency", "export it again")
    return value.upper()


def _further(names: Sequence[str], results: Iterator[Mapping[str, Any]]) -> tuple[str, ...]:
    """Quantities that the results hold beside the tokens of text, each with its sum."""
    found: Counter[str] = Counter()
    for result in results:
        for name in names:
            value: Any = result
            for step in name.split("."):
                value = value.get(step) if isinstance(value, dict) else None
            if isinstance(value, int) and value > 0:
                found[name] += value
    return tuple(f"{name} ({amount:,})" for name, amount in found.items())


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
