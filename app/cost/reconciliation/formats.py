"""Bills in JSON: the sandbox's, and OpenAI's usage export. Every row is read or named in an error. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from app.cost.reconciliation.bill import BadBill, Bill, BillFormat, BillRow, refuse_overlaps
from app.cost.reconciliation.counts import Count

_Tokens = Annotated[int, Field(ge=0, strict=True)]
_Name = Annotated[str, Field(min_length=1)]
_Model = TypeVar("_Model", bound=BaseModel)
USAGE_EXPORT = "GET /v1/organization/usage/completions with group_by=model"


class _SandboxRow(BaseModel):
    id: int | str
    at: AwareDatetime
    protocol: str = ""
    model: str
    input_tokens: _Tokens
    cached_tokens: _Tokens
    output_tokens: _Tokens
    billed: bool


class _Result(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model: _Name
    input_tokens: _Tokens
    output_tokens: _Tokens
    input_cached_tokens: _Tokens | None = None
    num_model_requests: _Tokens


class _Bucket(BaseModel):
    start_time: Annotated[int, Field(ge=0, strict=True)]
    end_time: Annotated[int, Field(ge=0, strict=True)]
    results: list[dict[str, Any]]


def read_json(name: str, text: str) -> Bill:
    """The bill in one or more JSON values, one after the other. Raises BadBill."""
    values = list(_values(name, text))
    if len(values) == 1 and isinstance(values[0], dict) and "rows" in values[0]:
        return _sandbox(name, values[0]["rows"])
    pages = [page for value in values for page in (value if isinstance(value, list) else [value])]
    if pages and all(isinstance(page, dict) and "data" in page for page in pages):
        return _usage_export(name, pages)
    if pages and all(isinstance(page, dict) and "start_time" in page for page in pages):
        return _usage_export(name, [{"data": pages}])
    raise BadBill(
        name,
        "",
        "its JSON is no bill that is known here",
        f'give the sandbox\'s bill ({{"rows": [...]}}), the answer of {USAGE_EXPORT}, or CSV with a header',
    )


def _values(name: str, text: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            found = text[error.pos : error.pos + 20].splitlines()
            raise BadBill(
                name, place, f"no JSON ({error.msg}) at {found[0] if found else 'its end'!r}", "export it again, whole"
            ) from None
        yield value
        while at < len(text) and (text[at].isspace() or text[at] == ","):
            at += 1


def _sandbox(name: str, rows: Any) -> Bill:
    if not isinstance(rows, list):
        raise BadBill(name, "rows", f"{rows!r} is no list", "give the answer of the sandbox's GET /bill as it is")
    read = [_checked(name, f"rows[{number}]", _SandboxRow, row) for number, row in enumerate(rows)]
    seen: dict[int | str, int] = {}
    for number, row in enumerate(read):
        if row.id in seen:
            raise BadBill(
                name, f"rows[{number}]", f"id {row.id} stands in rows[{seen[row.id]}] already", "give each row once"
            )
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
        raise BadBill(name, f"rows[{number}]", f"row {row.id} is billed and names no model", "add its model")
    at = row.at.astimezone(UTC)
    cached = _part(name, f"rows[{number}].cached_tokens", row.cached_tokens, row.input_tokens)
    count = Count(1, row.input_tokens, cached, row.output_tokens)
    return BillRow(f"row {row.id}", row.model, at, at, count, provider=row.protocol)


def _usage_export(name: str, pages: list[dict[str, Any]]) -> Bill:
    last = pages[-1]
    if last.get("has_more"):
        raise BadBill(
            name,
            f"page {len(pages)} of {len(pages)}",
            f"has_more is true: the export goes on at page {last.get('next_page')!r}",
            "fetch the pages that follow, and put all of them into one file",
        )
    buckets = list(_buckets(name, pages))
    rows = tuple(row for place, bucket in buckets for row in _sums(name, place, bucket))
    refuse_overlaps(name, rows)
    return Bill(
        name,
        BillFormat.OPENAI_USAGE,
        rows,
        since=min((_time(bucket.start_time) for _, bucket in buckets), default=None),
        until=max((_time(bucket.end_time) for _, bucket in buckets), default=None),
        providers=frozenset({"openai"}),
    )


def _buckets(name: str, pages: Iterable[dict[str, Any]]) -> Iterator[tuple[str, _Bucket]]:
    seen: dict[tuple[int, int], str] = {}
    for page_number, page in enumerate(pages, start=1):
        data = page["data"]
        if not isinstance(data, list):
            raise BadBill(
                name, f"page {page_number}", f"data is {data!r}, no list", f"give the answer of {USAGE_EXPORT}"
            )
        for number, value in enumerate(data):
            place = f"page {page_number} data[{number}]"
            bucket = _checked(name, place, _Bucket, value)
            key = (bucket.start_time, bucket.end_time)
            if bucket.end_time <= bucket.start_time:
                raise BadBill(name, place, f"it ends at {key[1]} and begins at {key[0]}", "export it again")
            if key in seen:
                raise BadBill(name, place, f"bucket {key[0]} to {key[1]} stands in {seen[key]} too", "give it once")
            seen[key] = place
            yield place, bucket


def _sums(name: str, place: str, bucket: _Bucket) -> Iterator[BillRow]:
    for number, value in enumerate(bucket.results):
        where = f"{place}.results[{number}]"
        if "amount" in value:
            raise BadBill(name, where, f"it holds money ({value['amount']}) and no tokens", f"export {USAGE_EXPORT}")
        if value.get("model") is None:
            raise BadBill(name, where, "its model is null: the export sums over all models", f"export {USAGE_EXPORT}")
        result = _checked(name, where, _Result, value)
        cached = _part(name, f"{where}.input_cached_tokens", result.input_cached_tokens, result.input_tokens)
        yield BillRow(
            where,
            result.model,
            _time(bucket.start_time),
            _time(bucket.end_time),
            Count(result.num_model_requests, result.input_tokens, cached, result.output_tokens),
            provider="openai",
        )


def _checked(name: str, place: str, model: type[_Model], value: Any) -> _Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        found = "" if first["type"] == "missing" else f", not {first['input']!r:.60}"
        raise BadBill(name, f"{place}{path}", f"{first['msg']}{found}", "mend it, or export the bill again") from None


def _part(name: str, place: str, part: int | None, whole: int) -> int | None:
    if part is not None and part > whole:
        raise BadBill(
            name, place, f"{part} cached tokens are more than {whole} of input", "mend it, or export the bill again"
        )
    return part


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
