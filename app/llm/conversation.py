"""The client of Dapr's Conversation API: messages out, answers and usage in, and its errors as causes. No other file
talks to it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from dapr.aio.clients import DaprClient
from dapr.clients.exceptions import DaprGrpcError
from dapr.clients.grpc.conversation import (
    ConversationInputAlpha2,
    ConversationMessage,
    ConversationMessageContent,
    ConversationMessageOfAssistant,
    ConversationMessageOfTool,
    ConversationToolCalls,
    ConversationToolCallsOfFunction,
    ConversationTools,
    ConversationToolsFunction,
    create_system_message,
    create_user_message,
)
from dapr.clients.retry import RetryPolicy
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode

from app.dapr import sdk_patches, sidecar, workarounds
from app.dapr.component_support import passes_tools
from app.dapr.daprd import Daprd
from app.dapr.sidecar import READY_SECONDS, wait_until_ready
from app.domain.errors import FailureCause, ModelRefused, ModelUnavailable, Unreachable, is_final
from app.pricing.charge_types import NOT_REPORTED, TokenUsage

# The provider's HTTP status is only in the error's text, in the form of Dapr's client for that provider: OpenAI and
# Anthropic, Bedrock, Mistral.
_STATUS = re.compile(
    r"status ?code: (\d{3})\b|\(HTTP Error (\d{3})\)|\b(\d{3}) (?:Bad Request|Unauthorized|Forbidden|Not Found)",
    re.IGNORECASE,
)
# The remedy for a refused request, by status.
_REMEDY = {
    400: "check that the model takes such requests (their length, their tools)",
    401: "check the key",
    402: "check the account's balance",
    403: "check what the key may use",
    404: "check the model's name and the endpoint",
    413: "the request is too long for the model",
}
_REMEDY_ANY = "check key, model name and endpoint"

_PAUSE = re.compile(r"(?:again|retry) (?:in|after) ((?:\d+(?:\.\d+)? ?(?:ms|m|s) ?)+)")
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?(ms|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}

# Longer than any time-out of resiliency/llm.yaml should be. The sidecar decides when to give up; this catches a sidecar
# that hangs.
GIVE_UP_SECONDS = 600.0
_MESSAGE_BYTES = 16 * 1024 * 1024
# The SDK's own retries, which DAPR_API_MAX_RETRIES would switch on, would repeat a call whose sidecar went away, and
# the journal would see one request where there were several.
_NO_RETRY = RetryPolicy(max_attempts=0)

# 408, 502, 504 and 524 may come from a proxy before the provider; the model may have worked all the same.
_OF_STATUS = {
    408: FailureCause.NO_ANSWER_IN_TIME,
    429: FailureCause.RATE_LIMIT,
    502: FailureCause.CONNECTION_LOST,
    504: FailureCause.NO_ANSWER_IN_TIME,
    524: FailureCause.NO_ANSWER_IN_TIME,
}

_NOT_LOADED = "the sidecar has not loaded it (`refund-agent doctor` says why)"
# What Dapr and its provider client write (in lower case), its cause, and our wording.
_CAUSES = (
    ("circuit breaker is open", FailureCause.BREAKER_OPEN, "its circuit breaker is open"),
    ("too many requests", FailureCause.BREAKER_OPEN, "its circuit breaker lets one probe through at a time"),
    ("larger than max", FailureCause.TOO_LARGE, "the answer is larger than what the sidecar hands over"),
    ("deadline", FailureCause.NO_ANSWER_IN_TIME, "no answer in time"),
    ("timeout", FailureCause.NO_ANSWER_IN_TIME, "no answer in time"),
    ("failed to connect", FailureCause.SIDECAR_GONE, "the sidecar is not there"),
    ("failed finding conversation component", FailureCause.SIDECAR_GONE, _NOT_LOADED),
    ("failed to reach", FailureCause.CONNECTION_LOST, "the provider is not there, or cut the connection"),
    ("connection refused", FailureCause.REFUSED_CONNECTION, "the provider is not there"),
    ("connection reset", FailureCause.CONNECTION_LOST, "the connection was cut"),
    ("eof", FailureCause.CONNECTION_LOST, "the connection was cut"),
    ("invalid character", FailureCause.MALFORMED, "the answer was not JSON"),
    ("unexpected end of json", FailureCause.MALFORMED, "the answer was not JSON"),
)


@dataclass(frozen=True)
class ToolRequest:
    """A tool that the model wants to have called; `arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One message of a conversation. `tool_calls` go with role assistant, `tool_call_id` and `name` with role tool."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    tool_calls: tuple[ToolRequest, ...] = ()
    tool_call_id: str = ""
    name: str = ""


@dataclass(frozen=True)
class ToolDefinition:
    """A tool as the model sees it; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Answer:
    """The model's answer; `usage` as it was reported."""

    text: str
    tool_calls: tuple[ToolRequest, ...]
    finish_reason: str
    model: str
    usage: TokenUsage


class Conversation(Protocol):
    """A model behind a component. Tests have their own."""

    async def ask(self, messages: tuple[Message, ...], tools: tuple[ToolDefinition, ...]) -> Answer:
        """Sends one request. Raises ModelUnavailable, ModelRefused."""
        ...

    async def provider(self, seconds: float) -> str | None:
        """The current type of the component, such as `conversation.openai`; empty while it is being changed, None when
        the sidecar does not answer within `seconds`."""
        ...

    async def passes_tools(self, provider: str) -> bool:
        """Whether a component of this type passes tools on to its model."""
        ...


class DaprConversation:
    """Asks the model behind one Dapr component."""

    def __init__(self, component: str, daprd: Daprd) -> None:
        self._component = component
        self._daprd = daprd
        self._client: DaprClient | None = None
        self._connections = 0
        self._last_failure = ""
        self._connecting = asyncio.Lock()

    async def ask(
        self, messages: tuple[Message, ...], tools: tuple[ToolDefinition, ...], schema: dict[str, Any] | None = None
    ) -> Answer:
        """Sends the request once, without retries: those are the workflow's. `schema`: a JSON schema of the answer."""
        question = ConversationInputAlpha2(messages=[_outgoing(message) for message in messages])
        client = await self._connect()
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                response = await client.converse_alpha2(
                    name=self._component,
                    inputs=[question],
                    tools=[_tool(tool) for tool in tools] or None,
                    response_format=None if schema is None else ParseDict(schema, Struct()),
                )
        except TimeoutError:
            self._forget(client)
            raise ModelUnavailable(
                f"model component {self._component}: the sidecar has not answered for {GIVE_UP_SECONDS:.0f} s; "
                "it is asked again later",
                cause=FailureCause.NO_ANSWER_IN_TIME,
            ) from None
        except DaprGrpcError as error:
            if error.code() == StatusCode.UNAVAILABLE:
                self._forget(client)
            raise self._note_failure(_translate(self._component, str(error.details()), self._last_failure)) from None
        self._last_failure = ""
        return _answer(self._component, response)

    async def provider(self, seconds: float) -> str | None:
        """Asks the sidecar each time, since a component may change between two calls and no answer names it."""
        try:
            async with asyncio.timeout(seconds):
                metadata = await self._metadata(seconds)
        except (ModelUnavailable, DaprGrpcError, TimeoutError):
            return None
        return next(
            (
                registered_component.type
                for registered_component in metadata.registered_components
                if registered_component.name == self._component
            ),
            "",
        )

    async def passes_tools(self, provider: str) -> bool:
        """Asks daprd for its version only if the component's type makes it matter."""
        if passes_tools(provider, None):
            return True
        version = await asyncio.to_thread(sidecar.version, self._daprd)
        return passes_tools(provider, workarounds.parse(version))

    async def _metadata(self, seconds: float) -> Any:
        """The sidecar's metadata. A connection that lost its sidecar may not have noticed that it is back, so a failed
        request is repeated on a new connection."""
        client = await self._connect(seconds)
        try:
            return await client.get_metadata()
        except DaprGrpcError as error:
            if error.code() != StatusCode.UNAVAILABLE:
                raise
            self._forget(client)
            return await (await self._connect(seconds)).get_metadata()

    def _note_failure(self, error: ModelUnavailable | ModelRefused) -> ModelUnavailable | ModelRefused:
        """Keeps the reason of a failure, which is then added to errors of an open breaker: those do not name it."""
        if error.code not in (FailureCause.BREAKER_OPEN, FailureCause.SIDECAR_GONE):
            self._last_failure = str(error).partition(": ")[2].partition(";")[0]
        return error

    async def _connect(self, seconds: float = READY_SECONDS) -> DaprClient:
        """The client, made on the event loop that uses it, as gRPC requires. The SDK's constructor blocks until the
        sidecar is ready, so a thread waits for that first."""
        async with self._connecting:
            if self._client is None:
                await self._sidecar_ready(seconds)
                self._connections += 1
                limit = _MESSAGE_BYTES + self._connections
                sdk_patches.use_token(self._daprd.token)
                self._client = DaprClient(self._daprd.grpc, max_grpc_message_length=limit)
                self._client.retry_policy = _NO_RETRY  # its constructor takes none
            return self._client

    async def _sidecar_ready(self, seconds: float) -> None:
        try:
            await asyncio.to_thread(wait_until_ready, self._daprd.http, seconds=seconds)
        except Unreachable as error:
            raise ModelUnavailable(str(error), cause=FailureCause.SIDECAR_GONE) from None

    def _forget(self, client: DaprClient) -> None:
        """Drops a client whose sidecar was lost. gRPC shares its back-off between channels with equal options; the next
        client's size limit is one byte larger, which forces a new channel that connects at once."""
        if self._client is client:
            self._client = None


def _translate(component: str, details: str, before: str = "") -> ModelUnavailable | ModelRefused:
    """Dapr's error text as one of our errors. `before` is the reason of the previous call's failure, or empty."""
    match = _STATUS.search(details)
    status = next((int(group) for group in match.groups() if group), None) if match else None
    if status is not None and is_final(status):
        return ModelRefused(
            f"model component {component}: the provider refuses the request with status {status}: "
            f"{_REMEDY.get(status, _REMEDY_ANY)} in components/llm.yaml; then `task resume`"
        )
    cause, words = _cause(details, status)
    since = f" since {before}" if before and cause is FailureCause.BREAKER_OPEN else ""
    error = ModelUnavailable(f"model component {component}: {words}{since}; it is asked again later", cause=cause)
    if cause is FailureCause.RATE_LIMIT:
        error.retry_after = _retry_after(details)
    return error


def _retry_after(details: str) -> float | None:
    """The pause that a provider asks for in words, such as OpenAI's "Please try again in 1m20.5s", in seconds. Dapr
    drops the header Retry-After."""
    match = _PAUSE.search(details)
    if match is None:
        return None
    return sum(float(amount) * _SECONDS[unit] for amount, unit in _AMOUNT.findall(match[1])) or None


def _cause(details: str, status: int | None) -> tuple[FailureCause, str]:
    """The cause and our wording of it, without the provider's text, which may quote the prompt."""
    if status is not None:
        return _OF_STATUS.get(status, FailureCause.STATUS), f"the provider answers with status {status}"
    found = ((cause, words) for sign, cause, words in _CAUSES if sign in details.lower())
    return next(found, (FailureCause.OTHER, "the call failed"))


def _outgoing(message: Message) -> ConversationMessage:
    content = [ConversationMessageContent(text=message.text)]
    match message.role:
        case "system":
            return create_system_message(message.text)
        case "user":
            return create_user_message(message.text)
        case "tool":
            return ConversationMessage(
                of_tool=ConversationMessageOfTool(tool_id=message.tool_call_id, name=message.name, content=content)
            )
        case "assistant":
            calls = [
                ConversationToolCalls(
                    id=call.id,
                    function=ConversationToolCallsOfFunction(name=call.name, arguments=call.arguments),
                )
                for call in message.tool_calls
            ]
            return ConversationMessage(
                of_assistant=ConversationMessageOfAssistant(content=content if message.text else [], tool_calls=calls)
            )


def _tool(tool: ToolDefinition) -> ConversationTools:
    return ConversationTools(
        function=ConversationToolsFunction(name=tool.name, description=tool.description, parameters=tool.parameters)
    )


def _answer(component: str, response: Any) -> Answer:
    if not response.outputs or not response.outputs[0].choices:
        message = f"model component {component}: the answer is empty; it is asked again later"
        raise ModelUnavailable(message, cause=FailureCause.MALFORMED)
    output = response.outputs[0]
    choice = output.choices[0]
    calls = tuple(
        ToolRequest(call.id or "", call.function.name, call.function.arguments) for call in choice.message.tool_calls
    )
    return Answer(choice.message.content or "", calls, choice.finish_reason or "", output.model or "", _usage(output))


def _usage(output: Any) -> TokenUsage:
    """The usage that Dapr reports. Zero input tokens and impossible counts become NOT_REPORTED: Dapr writes zero when
    the provider sent no usage, and every call has input tokens."""
    usage = output.usage
    if usage is None or not usage.prompt_tokens:
        return NOT_REPORTED
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    try:
        return TokenUsage(
            input_tokens=int(usage.prompt_tokens),
            cached_tokens=int(prompt.cached_tokens) if prompt else None,
            output_tokens=int(usage.completion_tokens),
            reasoning_tokens=int(completion.reasoning_tokens) if completion else None,
        )
    except ValueError:
        return NOT_REPORTED
