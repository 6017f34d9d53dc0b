"""Model calls that a history proves and the journal lacks: a ledger that was restored from an older backup. Pure.

A step's result carries what its model call used (`ModelUse`). Which provider it was, the history does not say.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from app.dapr.history.model import Step, WorkflowRun
from app.domain.models import CallState, ModelUse, UsageBasis
from app.ledger.store.call_rows import UNKNOWN, oldest_first
from app.pricing.call_record import CallRecord
from app.pricing.charge_types import TokenUsage

_CALLS = uuid.UUID("0c5b2f0e-6a36-5a57-8a55-6f3f5d1a7c11")
_OPEN = frozenset({CallState.STARTED, CallState.INTERRUPTED})


def proven_calls(run: WorkflowRun, calls: Sequence[CallRecord]) -> tuple[CallRecord, ...]:
    """The rows that the journal should have: new ones, and those of `calls` that it holds as open or in vain although
    their answer stands in the history."""
    settled = {call.execution_id for call in calls if call.state is CallState.SETTLED}
    return tuple(_proven(run, calls, settled))


def with_proven(run: WorkflowRun, calls: Sequence[CallRecord]) -> tuple[CallRecord, ...]:
    """All calls of a run."""
    proven = {call.call_id: call for call in proven_calls(run, calls)}
    return oldest_first((*(call for call in calls if call.call_id not in proven), *proven.values()))


def _proven(run: WorkflowRun, calls: Sequence[CallRecord], settled: set[str]) -> Iterator[CallRecord]:
    for step in run.steps:
        if step.execution_id not in settled and not step.last.inherited:
            use = _use(step)
            if use is not None:
                yield _call(run, step, use, [call for call in calls if call.execution_id == step.execution_id])


def _use(step: Step) -> ModelUse | None:
    result = step.last.result
    if result is None or "answered_by" not in result.text:  # most results are a tool's; parsing them takes longer
        return None
    value = result.json()
    try:
        return ModelUse.model_validate(value.get("use")) if isinstance(value, dict) else None
    except ValidationError:
        return None


def _call(run: WorkflowRun, step: Step, use: ModelUse, known: Sequence[CallRecord]) -> CallRecord:
    """One that the journal has begun is taken as the one that was answered; the last, since it answered the step."""
    turn = _turn(step)
    usage = _usage(use)
    answered: dict[str, Any] = {
        "state": CallState.SETTLED,
        "model": use.model,
        "usage": usage,
        "ended_at": step.last.ended_at,
        "error": "",
    }
    begun = [call for call in known if call.turn == turn and call.state in _OPEN and call.usage in (usage, UNKNOWN)]
    if begun:
        return replace(_likeliest(begun, usage), **answered)
    return CallRecord(
        call_id=str(uuid.uuid5(_CALLS, f"{step.execution_id}|{turn}")),
        task_id=run.instance_id,
        tenant=run.instance_id.partition(":")[0],
        execution_id=step.execution_id,
        stage=step.name,
        turn=turn,
        number=1 + max((call.number for call in known), default=0),
        worker="",
        component=use.component,
        provider="",
        prompt_version=use.prompt_version,
        request_digest=use.request_digest,
        started_at=step.last.scheduled_at,
        reserve_input=use.input_tokens or 0,
        reserve_output=use.output_tokens or 0,
        **answered,
    )


def _likeliest(begun: Sequence[CallRecord], usage: TokenUsage) -> CallRecord:
    return next((call for call in reversed(begun) if call.usage == usage), begun[-1])


def _turn(step: Step) -> int:
    turn = step.input.at("turn") if step.input else None
    return turn if isinstance(turn, int) else 1


def _usage(use: ModelUse) -> TokenUsage:
    try:
        return TokenUsage(
            use.input_tokens,
            use.output_tokens,
            cached_tokens=use.cached_tokens,
            reasoning_tokens=use.reasoning_tokens,
            known=use.known,
        )
    except ValueError:  # what an impossible count says is not believed
        return UNKNOWN


def told(call: CallRecord) -> str:
    """A call in words, for a difference."""
    if call.usage.known is UsageBasis.UNREPORTED:
        return f"{call.model}, tokens that nobody reported"
    return f"{call.model}, {call.usage.input_tokens} tokens in, {call.usage.output_tokens} out"
