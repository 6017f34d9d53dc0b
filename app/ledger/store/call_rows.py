"""The journal's rows as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from app.domain.models import CallState, UsageBasis
from app.ledger.store.tables import MODEL_CALLS
from app.pricing.call_record import CallRecord
from app.pricing.charge_types import TokenUsage

_OF_USAGE = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "known")
_MAY_BE_NULL = ("model", "finish_reason", "error")
UNKNOWN = TokenUsage(None, None, known=UsageBasis.UNREPORTED)


def call_record(row: Mapping[Any, Any]) -> CallRecord:
    """One row of `model_calls`. What an impossible count says is not believed."""
    return CallRecord(
        call_id=row["call_id"],
        task_id=row["task_id"],
        tenant=row["tenant"],
        execution_id=row["execution_id"],
        stage=row["stage"],
        turn=row["turn"],
        number=row["number"],
        worker=row["worker"],
        component=row["component"],
        provider=row["provider"],
        model=row["model"] or "",
        prompt_version=row["prompt_version"],
        request_digest=row["request_digest"],
        state=CallState(row["state"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        reserve_input=row["reserve_input"],
        reserve_output=row["reserve_output"],
        usage=_usage(row),
        finish_reason=row["finish_reason"] or "",
        error=row["error"] or "",
        retries=row["retries"],
    )


def call_row(call: CallRecord) -> dict[str, Any]:
    """The row of a call whose answer is not kept."""
    names = [column.name for column in MODEL_CALLS.c if column.name not in (*_OF_USAGE, *_MAY_BE_NULL, "answer")]
    row = {name: getattr(call, name) for name in names}
    row |= {name: getattr(call.usage, name) for name in _OF_USAGE}
    row |= {name: getattr(call, name) or None for name in _MAY_BE_NULL}
    return {name: str(value) if isinstance(value, StrEnum) else value for name, value in row.items()}


def call_records(rows: Iterable[Mapping[Any, Any]]) -> tuple[CallRecord, ...]:
    """Many of them, oldest first."""
    return oldest_first(map(call_record, rows))


def oldest_first(calls: Iterable[CallRecord]) -> tuple[CallRecord, ...]:
    """In the order in which they were begun."""
    return tuple(sorted(calls, key=lambda call: (call.started_at, call.number, call.call_id)))


def _usage(row: Mapping[Any, Any]) -> TokenUsage:
    try:
        return TokenUsage(
            row["input_tokens"],
            row["output_tokens"],
            cached_tokens=row["cached_tokens"],
            reasoning_tokens=row["reasoning_tokens"],
            known=UsageBasis(row["known"]),
        )
    except ValueError:
        return UNKNOWN
