"""What a span says of a task, a step or a model call. Pure.

What is not known is not there. Of an error there is only its type, since its message may hold a text.
"""

from __future__ import annotations

import re
from datetime import timedelta

from app.dapr.history.history_values import AttemptOutcome
from app.dapr.history.times import Part
from app.domain.errors import FailureCause
from app.domain.models import CallState, UsageBasis
from app.ledger.store.task_record import StepRecord, TaskRecord
from app.pricing.call_record import CallRecord
from app.telemetry import names
from app.telemetry.costs import Value

# An exception's class name; anything else may be a text.
_ERROR_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}")


def task_attributes(record: TaskRecord) -> dict[str, Value]:
    """Of the task, without its cost."""
    providers = {call.provider for call in record.calls}
    found: dict[str, Value] = {
        names.OPERATION: names.INVOKE_AGENT,
        names.AGENT: record.agent,
        names.WORKFLOW: record.workflow,
        names.CONVERSATION: record.task_id,
        names.PROVIDER: names.provider_name(providers.pop()) if len(providers) == 1 else "",
        names.WORKFLOW_VERSION: record.version,
        names.WORKFLOW_TURNS: record.turns,
        names.HISTORY_EVENTS: record.events,
        names.HISTORY_BYTES: record.size,
        names.TASK_STATUS: record.status.value,
        names.TASK_OUTCOME: record.outcome.value if record.outcome else "",
        names.TASK_CATEGORY: record.category,
        names.TASK_RERUN_OF: record.rerun_of or "",
        names.ACTIVE_SECONDS: record.parts.get(Part.ACTIVE, timedelta(0)).total_seconds(),
    }
    return _told(found)


def step_attributes(step: StepRecord) -> dict[str, Value]:
    """Of a step, without its cost."""
    found: dict[str, Value] = {names.STAGE: step.stage, names.STEP: step.step, names.STEP_ATTEMPTS: len(step.attempts)}
    if step.answered_by is not None:
        found[names.ANSWERED_BY] = step.answered_by.value
    if step.tool:
        found |= {names.OPERATION: names.EXECUTE_TOOL, names.TOOL: step.tool, names.TOOL_TYPE: names.FUNCTION}
    return found


def call_attributes(call: CallRecord) -> dict[str, Value]:
    """Of a model call, without its cost."""
    found: dict[str, Value] = {
        names.OPERATION: names.CHAT,
        names.PROVIDER: names.provider_name(call.provider),
        names.CONVERSATION: call.task_id,
        names.REQUEST_MODEL: call.model,
        names.RESPONSE_MODEL: call.model if call.finish_reason else "",
        names.STAGE: call.stage,
        names.CALL_STATE: call.state.value,
        names.CALL_TURN: call.turn,
        names.CALL_NUMBER: call.number,
        names.CALL_RERUN: call.rerun,
        names.COMPONENT: call.component,
        names.PROMPT_VERSION: call.prompt_version,
        names.WORKER: call.worker,
        names.TOKENS_KNOWN: call.usage.known.value,
    }
    if call.finish_reason:
        found[names.FINISH_REASONS] = (call.finish_reason,)
    if call.retries:
        found[names.CALL_RETRIES] = call.retries
    if call.rerun:
        found[names.ERROR_TYPE] = _error_type_of(call)
    return _told(found) | _token_attributes(call)


def _token_attributes(call: CallRecord) -> dict[str, Value]:
    """What is not reported is not there: it is not zero."""
    usage = call.usage
    if usage.known is UsageBasis.UNREPORTED:
        return {}
    counts = {
        names.INPUT_TOKENS: usage.input_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.CACHE_READ_TOKENS: usage.cached_tokens,
        names.CACHE_CREATION_TOKENS: usage.cache_write_tokens,
        names.REASONING_TOKENS: usage.reasoning_tokens,
    }
    return {name: tokens for name, tokens in counts.items() if tokens is not None}


def _told(attributes: dict[str, Value]) -> dict[str, Value]:
    """Without what is empty, that is: not known, or none."""
    return {name: value for name, value in attributes.items() if value != ""}


def _error_type_of(call: CallRecord) -> str:
    if call.state is CallState.INTERRUPTED:
        return call.state.value
    cause = FailureCause.told(call.error)
    return names.OTHER_ERROR if cause is FailureCause.OTHER else cause.value


def error_of(step: StepRecord) -> str:
    """The type of the error that a step ended with; empty when it ended well."""
    if not step.attempts or step.attempts[-1].outcome is not AttemptOutcome.FAILED:
        return ""
    name, colon, _ = step.attempts[-1].error.partition(":")
    return name if colon and _ERROR_TYPE.fullmatch(name) else names.OTHER_ERROR


def failure_of(record: TaskRecord) -> str:
    """The type of the error that a task failed with: that of the last step that failed."""
    return next((error for step in reversed(record.steps) if (error := error_of(step))), names.OTHER_ERROR)
