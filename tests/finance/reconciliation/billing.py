"""Calls, and the bills that a provider would send for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from app.domain.models import CallState
from app.finance.reconciliation.bill import Bill, BillFormat, BillRow, Count, total
from app.pricing.charge_types import NOT_REPORTED, CallRecord, TokenUsage
from tests.pricing.makers import NOW, OPENAI

MODEL = "model-a"
HOUR = timedelta(hours=1)


def at(seconds: float) -> datetime:
    """So many seconds after noon."""
    return NOW + timedelta(seconds=seconds)


def call(number: int = 1, start: float = 0.0, seconds: float | None = 1.0, **changes: Any) -> CallRecord:
    """A paid call of a step of its own: `number` x 100 input tokens, 40 of them cached, and 10 of output."""
    entered = changes.pop("entered", number * 100)
    values: dict[str, Any] = {
        "call_id": f"c-{number}",
        "task_id": f"acme:T-{number}",
        "tenant": "acme",
        "execution_id": f"e-{number}",
        "stage": "classify",
        "turn": 1,
        "number": 1,
        "worker": "w-1",
        "component": "llm",
        "provider": OPENAI,
        "model": MODEL,
        "prompt_version": "p",
        "request_digest": f"q-{number}",
        "state": CallState.SETTLED,
        "started_at": at(start),
        "ended_at": None if seconds is None else at(start + seconds),
        "reserve_input": entered,
        "reserve_output": 1000,
        "usage": TokenUsage(input_tokens=entered, output_tokens=10, cached_tokens=min(40, entered)),
    }
    return CallRecord(**values | changes)


def failed(number: int = 1, start: float = 0.0, seconds: float | None = 1.0, **changes: Any) -> CallRecord:
    """A call that brought no answer in time."""
    values: dict[str, Any] = {
        "state": CallState.FAILED,
        "usage": NOT_REPORTED,
        "error": "no_answer_in_time: model component llm: no answer in time",
        "call_id": f"f-{number}",
        "model": "",
    }
    return call(number, start, seconds, **values | changes)


def interrupted(number: int = 1, start: float = 0.0, **changes: Any) -> CallRecord:
    """A call whose worker was lost."""
    values: dict[str, Any] = {"state": CallState.INTERRUPTED, "error": "the step was executed again"}
    return failed(number, start, None, **values | changes)


def again(of: CallRecord, start: float, seconds: float = 1.0, **changes: Any) -> CallRecord:
    """The paid call that repeats another one of the same step's turn."""
    paid = call(1, start, seconds)
    values: dict[str, Any] = {
        "call_id": f"{of.call_id}-again",
        "number": of.number + 1,
        "state": CallState.SETTLED,
        "model": MODEL,
        "started_at": paid.started_at,
        "ended_at": paid.ended_at,
        "usage": TokenUsage(input_tokens=of.reserve_input, output_tokens=10, cached_tokens=min(40, of.reserve_input)),
        "error": "",
    }
    return replace(of, **values | changes)


def request(
    place: str, seconds: float, entered: int, *, cached: int | None = 40, output: int = 10, model: str = MODEL
) -> BillRow:
    """One request on a bill."""
    when = at(seconds)
    cached = None if cached is None else min(cached, entered)
    return BillRow(place, model, when, when, Count(1, entered, cached, output))


def billed(call: CallRecord, place: str = "", share: float = 0.5) -> BillRow:
    """What the provider bills for a call that it reported: somewhere in the call's time."""
    usage = call.usage
    when = call.started_at + ((call.ended_at or call.started_at) - call.started_at) * share
    count = Count(1, usage.input_tokens or 0, usage.cached_tokens, usage.output_tokens or 0)
    return BillRow(place or f"row {call.call_id}", call.model, when, when, count)


def bill_of(*rows: BillRow, **changes: Any) -> Bill:
    """A bill of requests."""
    values: dict[str, Any] = {"name": "bill.json", "format": BillFormat.SANDBOX, "rows": tuple(rows)}
    return Bill(**values | changes)


def summed(rows: Iterable[BillRow], width: timedelta = HOUR, **changes: Any) -> Bill:
    """The same requests as a bill of sums."""
    groups: defaultdict[tuple[str, datetime], list[Count]] = defaultdict(list)
    for row in rows:
        groups[row.model, NOW + (row.since - NOW) // width * width].append(row.count)
    made = [
        BillRow(f"{model} {since:%H:%M}", model, since, since + width, total(counts))
        for (model, since), counts in sorted(groups.items())
    ]
    values: dict[str, Any] = {"name": "usage.json", "format": BillFormat.OPENAI_USAGE, "rows": tuple(made)}
    return Bill(**values | changes)
