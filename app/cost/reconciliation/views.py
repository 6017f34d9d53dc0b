"""A reconciliation for programs, with stable keys, and its verdict in a sentence for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from app.cost.providers import UNBILLED, provider_id
from app.cost.reconciliation.counts import Count
from app.cost.reconciliation.values import Cause, Cell, Finding, Reconciliation

_WORDS = {
    Cause.ESTIMATE: "estimates",
    Cause.INTERRUPTED_CALL: "interrupted calls",
    Cause.FAILED_CALL: "failed calls",
    Cause.RUNNING_CALL: "calls under way",
    Cause.SIDECAR_RETRY: "sidecar retries",
    Cause.NEVER_BILLED: "estimates of calls that were never billed",
    Cause.UNKNOWN_PROVIDER: "calls whose provider is not known",
    Cause.PERIOD_EDGE: "calls at the edge of the bill's period",
    Cause.BUCKET_EDGE: "calls at the edge of two sums",
    Cause.DIFFERS: "calls billed with other tokens",
    Cause.NOT_ON_BILL: "calls that are not on the bill",
    Cause.UNKNOWN: "requests that no call accounts for",
}


def as_json(found: Reconciliation) -> dict[str, Any]:
    """The reconciliation as JSON values. Differences are the bill minus our record; null is not known."""
    return {
        "verdict": verdict(found),
        "unexplained_tokens": found.unexplained_tokens,
        "difference_tokens": found.difference.tokens,
        "bill": {
            "name": found.bill.name,
            "format": found.bill.format.value,
            "rows": len(found.bill.rows),
            "by_request": found.bill.by_request,
            "unbilled_requests": found.bill.unbilled,
            "unread_columns": list(found.bill.unread),
        },
        "since": _time(found.bill.since),
        "until": _time(found.bill.until),
        "calls": {
            "compared": found.compared,
            "agreeing": found.agreeing,
            "outside": found.outside,
            "other_providers": dict(found.others),
            "unknown_provider": {"calls": found.unknown_provider, "not_on_bill": found.absent},
        },
        "record": _count(found.record),
        "billed": _count(found.billed),
        "difference": _count(found.difference),
        "causes": {cause.value: _count(count) for cause, count in found.causes.items()},
        "cells": [_cell(cell) for cell in found.cells],
        "rows": [_finding(finding) for finding in found.findings],
        "unpriced": [
            {"provider": provider, "model": model, "tokens": tokens}
            for (provider, model), tokens in found.unpriced.items()
        ],
        "same_model": dict(found.same_model),
    }


def verdict(found: Reconciliation) -> str:
    """What a person wants to know first, in a sentence."""
    whose = f"{found.bill.name}: {found.billed.tokens:,} tokens billed, {found.record.tokens:,} in our record"
    if found.unexplained_tokens:
        return f"{whose}; {found.unexplained_tokens:,} tokens are unexplained."
    if not found.findings:
        return f"{whose}; they agree to the token."
    names = ", ".join(words(cause) for cause in found.causes)
    return f"{whose}; the difference of {found.difference.tokens:+,} tokens is explained by {names}."


def remarks(found: Reconciliation) -> Iterator[str]:
    """What a person has to know next to the verdict: what was compared, what was left out, what was taken for what."""
    calls = f"{found.compared} calls, {found.agreeing} of them on the bill to the token"
    yield calls + (f"; {found.outside} calls of another time were left out" if found.outside else "")
    for provider, count in found.others.items():
        yield f"{count} calls of {provider} are not on this bill and were left out: {_whose(provider)}"
    if found.unknown_provider:
        stand = found.unknown_provider - found.absent
        yield (
            f"{found.unknown_provider} calls of an unknown provider, for their component was changed while they were "
            f"under way: {stand} stand on this bill, {found.absent} do not and may stand on another one"
        )
    if found.bill.unbilled:
        yield f"{found.bill.unbilled} requests stand on the bill and cost nothing"
    if found.bill.unread:
        yield f"columns of the bill that were not looked at: {', '.join(found.bill.unread)}"
    for billed, ours in found.same_model.items():
        yield f"model {billed} of the bill is taken as {ours}"
    for (provider, model), tokens in found.unpriced.items():
        yield f"{tokens:,} tokens of model {model or '(none)'} of {provider or '(no provider)'} have no price"


def _whose(provider: str) -> str:
    return "nobody bills them" if provider_id(provider) in UNBILLED else "hold that provider's own bill against them"


def words(cause: Cause) -> str:
    """A cause for people."""
    return _WORDS[cause]


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "model": cell.model,
        "from": _time(cell.since),
        "to": _time(cell.until),
        "record": _count(cell.record)
        | {"reported_tokens": cell.reported.tokens, "estimated_tokens": cell.estimated.tokens},
        "billed": _count(cell.billed),
        "difference": _count(cell.difference),
        "difference_tokens": cell.difference.tokens,
        "causes": {cause.value: _count(count) for cause, count in cell.causes.items()},
        "unpriced_tokens": cell.unpriced,
        "unexplained_tokens": cell.unexplained,
        "certainty": cell.certainty.value,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    call = finding.call
    return {
        "cause": finding.cause.value,
        "explained": finding.cause.explains,
        "certainty": finding.certainty.value,
        "at": _time(finding.at),
        "model": finding.model,
        "task_id": call.task_id if call else None,
        "stage": call.stage if call else None,
        "turn": call.turn if call else None,
        "call_id": call.call_id if call else None,
        "state": call.state.value if call else None,
        "place": finding.place or None,
        "known": finding.known.value,
        "record": _count(finding.record),
        "billed": _count(finding.billed),
        "difference_tokens": finding.difference.tokens,
        "unexplained_tokens": finding.unexplained,
        "note": finding.note,
    }


def _count(count: Count) -> dict[str, int | None]:
    return {
        "requests": count.requests,
        "input_tokens": count.input_tokens,
        "cached_tokens": count.cached_tokens,
        "output_tokens": count.output_tokens,
        "tokens": count.tokens,
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()
