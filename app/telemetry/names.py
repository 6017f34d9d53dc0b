"""The names and ids in spans. Attributes have the names of OpenTelemetry's conventions for generative AI (in
development), or begin with `refund_agent.` if the conventions have none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

OPERATION = "gen_ai.operation.name"
INVOKE_AGENT = "invoke_agent"
EXECUTE_TOOL = "execute_tool"
CHAT = "chat"
AGENT = "gen_ai.agent.name"
WORKFLOW = "gen_ai.workflow.name"
CONVERSATION = "gen_ai.conversation.id"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
FUNCTION = "function"  # a tool that our own code executes
ERROR_TYPE = "error.type"
OTHER_ERROR = "_OTHER"

TENANT = "refund_agent.tenant"
TASK_ID = "refund_agent.task.id"
TASK_STATUS = "refund_agent.task.status"
TASK_OUTCOME = "refund_agent.task.outcome"
TASK_CATEGORY = "refund_agent.task.category"
TASK_RERUN_OF = "refund_agent.task.rerun_of"
TASK_COST = "refund_agent.task.cost"
ACTIVE_SECONDS = "refund_agent.task.active_seconds"
WORKFLOW_VERSION = "refund_agent.workflow.version"
WORKFLOW_TURNS = "refund_agent.workflow.turns"
HISTORY_EVENTS = "refund_agent.history.events"
HISTORY_BYTES = "refund_agent.history.bytes"
STAGE = "refund_agent.stage"
STEP = "refund_agent.step"
STEP_ATTEMPTS = "refund_agent.step.attempts"
ANSWERED_BY = "refund_agent.answered_by"
CALL_STATE = "refund_agent.call.state"
CALL_TURN = "refund_agent.call.turn"
CALL_NUMBER = "refund_agent.call.number"
CALL_WASTED = "refund_agent.call.wasted"
CALL_END_KNOWN = "refund_agent.call.end_known"
COMPONENT = "refund_agent.component"
PROMPT_VERSION = "refund_agent.prompt.version"
WORKER = "refund_agent.worker"
TOKENS_BASIS = "refund_agent.tokens.basis"
COST = "refund_agent.cost"  # .amount, .currency, .amounts, .basis
PRICE = "refund_agent.price"
PRICE_BOOK = "refund_agent.price_book"
PAUSE = "refund_agent.pause"
PAUSE_FOR = "refund_agent.pause.event"

# Dapr's component types whose provider has another name in the conventions.
_PROVIDERS: Mapping[str, str] = {
    "googleai": "gcp.gemini",
    "mistral": "mistral_ai",
}
_PREFIX = "conversation."


def provider_name(component_type: str) -> str:
    """The conventions' name of the provider of a component type: `openai` for `conversation.openai`."""
    name = component_type.removeprefix(_PREFIX)
    return _PROVIDERS.get(name, name)


# Ids of traces and spans, computed from the record, so that exporting a task twice gives the same spans.

# https://www.w3.org/TR/trace-context/#traceparent-header; later versions may append further fields.
_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceParent:
    """A task's trace, and the span that started the task; None if that span is not exported."""

    trace_id: int
    span_id: int | None


def trace_of(task_id: str, trace_parent: str) -> TraceParent:
    """The trace of the W3C `traceparent`, or, without a valid one, a trace derived from the task's id.

    A parent that was not sampled reaches no collector, so the trace keeps its id but starts with the task.
    """
    match = _TRACE_PARENT.fullmatch(trace_parent)
    if match is None or not int(match[1], 16) or not int(match[2], 16):
        return TraceParent(_number(task_id, size=16), None)
    sampled = int(match[3], 16) & _SAMPLED
    return TraceParent(int(match[1], 16), int(match[2], 16) if sampled else None)


def span_id(*names: str) -> int:
    """The id of a span, derived from the names that identify it together."""
    return _number("\0".join(names), size=8)


def _number(text: str, size: int) -> int:
    # Zero is the only invalid id.
    return int.from_bytes(blake2b(text.encode(), digest_size=size).digest(), "big") or 1
