"""The names that spans use: the conventions' where they have one, ours below `refund_agent.` where they have none.

The conventions are OpenTelemetry's for generative AI, all of them still in development.
"""

from __future__ import annotations

from collections.abc import Mapping

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
CALL_RERUN = "refund_agent.call.rerun"
CALL_RETRIES = "refund_agent.call.retries"
CALL_END_KNOWN = "refund_agent.call.end_known"
COMPONENT = "refund_agent.component"
PROMPT_VERSION = "refund_agent.prompt.version"
WORKER = "refund_agent.worker"
TOKENS_KNOWN = "refund_agent.tokens.known"
COST = "refund_agent.cost"  # .amount, .currency, .amounts, .known
PRICE = "refund_agent.price"
PRICE_BOOK = "refund_agent.price_book"
PAUSE = "refund_agent.pause"
PAUSE_FOR = "refund_agent.pause.event"

# Dapr's component types, where the conventions call the provider by another name.
_PROVIDERS: Mapping[str, str] = {
    "googleai": "gcp.gemini",
    "mistral": "mistral_ai",
}
_PREFIX = "conversation."


def provider_name(component_type: str) -> str:
    """The conventions' name for what is behind a component of that type; empty when the type is not known."""
    name = component_type.removeprefix(_PREFIX)
    return _PROVIDERS.get(name, name)
