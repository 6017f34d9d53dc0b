"""`LLMGateway.ask`: one model call, journaled before and after. The stages call models through it and nowhere else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from app.config.policy import UNLIMITED, ComponentLimits
from app.domain.errors import FailureCause, ModelRefused, ModelUnavailable
from app.domain.models import AnsweredBy, ModelUse, ToolForm, UsageBasis
from app.llm import estimate, json_actions
from app.llm.admission import Admission
from app.llm.call import LimitReached, ModelCall, Reserve
from app.llm.conversation import Answer, Conversation
from app.llm.journal import Journal, SettledCall
from app.pricing.charge_types import TokenUsage, usage_columns

# Dapr drops max_tokens, so an answer has no limit; no answer of these stages has come near this many tokens.
_RESERVED_OUTPUT_TOKENS = 1_000
# How long to wait for the sidecar to name its component, which takes a millisecond. Before a call there is time, since
# nothing works without a sidecar; after it, an answer waits to be journaled.
_BEFORE_SECONDS, _AFTER_SECONDS = 60.0, 2.0
# No call is that large, and PostgreSQL's integer holds no more.
_MAX_TOKENS = 2**31 - 1
# Texts up to this length are counted on the event loop, longer ones in a thread.
_SHORT_CHARACTERS = 8_000

Counted = TypeVar("Counted")


@dataclass(frozen=True)
class ModelAnswer:
    """The answer, and its usage. Only `use` may go into the workflow's history."""

    answer: Answer
    use: ModelUse


class ModelComponent:
    """One Dapr component with its conversation, its limits and the queue before it."""

    def __init__(
        self,
        name: str,
        conversation: Conversation,
        limits: ComponentLimits = UNLIMITED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.conversation = conversation
        self.limits = limits
        self.admission = Admission(name, limits.longest_wait_seconds, clock)


class LLMGateway:
    """The only way to a model: queue, journal, then the Conversation API, then journal."""

    def __init__(
        self, component: ModelComponent, journal: Journal, stages: Mapping[str, ModelComponent] | None = None
    ) -> None:
        """`stages`: the components of stages that do not ask `component`."""
        self._component = component
        self._stages = stages or {}
        self._journal = journal
        self._in_flight: dict[tuple[str, int], asyncio.Future[ModelAnswer]] = {}

    async def ask(self, call: ModelCall) -> ModelAnswer:
        """The answer to a call. Concurrent executions of one step and turn in this process share one request; an answer
        in the journal is returned without a request.

        Raises ModelUnavailable (worth a retry), ModelRefused (not worth one) or ModelBusy (the task has to pause)."""
        key = (call.execution_id, call.turn)
        running = self._in_flight.get(key)
        if running is None:
            component = self._stages.get(call.stage, self._component)
            running = self._in_flight[key] = asyncio.ensure_future(self._ask(component, call))
            running.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return await asyncio.shield(running)

    async def _ask(self, component: ModelComponent, call: ModelCall) -> ModelAnswer:
        sized: dict[str, _Sized] = {}

        async def begin(has_turn: bool) -> _Started | LimitReached:
            return await self._begin(component, call, sized, has_turn)

        started: _Started = await component.admission.enter(call, begin)
        error: ModelUnavailable | ModelRefused | None = None
        try:
            if isinstance(started, SettledCall):
                return _model_answer(component, call, started, AnsweredBy.JOURNAL)
            settled = await self._send(component, call, started)
            return _model_answer(component, call, settled, AnsweredBy.PROVIDER)
        except (ModelUnavailable, ModelRefused) as failure:
            error = failure
            raise
        finally:
            component.admission.leave(error)

    async def _begin(
        self, component: ModelComponent, call: ModelCall, sized: dict[str, _Sized], has_turn: bool
    ) -> _Started | LimitReached:
        """Writes the call down. The provider is looked up each time, since it may change while the call waits; `sized`
        holds the request for each provider, since counting tokens takes time."""
        provider = await component.conversation.provider(_BEFORE_SECONDS) or ""
        if provider not in sized:
            sized[provider] = await _size(component, call, provider)
        request, reserve, form = sized[provider]
        started = await self._journal.begin(
            call, component.name, provider, reserve, form, limits=component.limits, has_turn=has_turn
        )
        return started if isinstance(started, SettledCall | LimitReached) else _Open(started, request, provider, form)

    async def _send(self, component: ModelComponent, call: ModelCall, started: _Open) -> SettledCall:
        """Sends the request and writes down how it ended."""
        request = started.request
        try:
            answer = await component.conversation.ask(request.messages, request.tools)
        except (ModelUnavailable, ModelRefused) as error:
            provider = await _confirm_provider(component, started.provider)
            if isinstance(error, ModelRefused) and not provider:
                error = _refused_while_changed(component)
            await self._journal.fail(started.call_id, error, provider)
            raise error from None
        provider = await _confirm_provider(component, started.provider)
        texts = [message.text for message in request.messages]
        usage = await _off_loop(
            [*texts, answer.text, *(tool_call.arguments for tool_call in answer.tool_calls)],
            lambda: reported_or_estimated(answer, request, provider),
        )
        if started.form is ToolForm.JSON:
            answer = json_actions.parse_tool_calls(answer)
        return await self._journal.settle(started.call_id, call, answer, usage, provider)


@dataclass(frozen=True)
class _Open:
    """A call that is written down and not answered yet: what is sent, and to which type of component."""

    call_id: str
    request: ModelCall
    provider: str
    form: ToolForm | None


_Started = SettledCall | _Open


class _Sized(NamedTuple):
    """What is sent to one type of component, the most that it may use, and how its tools are offered."""

    request: ModelCall
    reserve: Reserve
    form: ToolForm | None


async def _size(component: ModelComponent, call: ModelCall, provider: str) -> _Sized:
    form = None
    if call.tools:
        form = ToolForm.NATIVE if await component.conversation.passes_tools(provider) else ToolForm.JSON
    request = call
    if form is ToolForm.JSON:
        request = replace(call, messages=json_actions.tools_as_text(call.messages, call.tools), tools=())
    by, texts = estimate.counting(provider, ""), [message.text for message in request.messages]
    input_tokens = await _off_loop(texts, lambda: estimate.input_tokens(request.messages, request.tools, by))
    return _Sized(request, Reserve(input_tokens, _RESERVED_OUTPUT_TOKENS), form)


def _refused_while_changed(component: ModelComponent) -> ModelUnavailable:
    """The request was made for another provider than the one that may have refused it: worth a retry."""
    return ModelUnavailable(
        f"model component {component.name}: the request was refused while the component was being changed; "
        "it is asked again later",
        cause=FailureCause.STATUS,
    )


async def _confirm_provider(component: ModelComponent, before: str) -> str:
    """The component's type that served a call: the one from before it. Empty when the component was changed during
    the call, which may then have gone to either. A sidecar that no longer answers had the earlier type."""
    now = await component.conversation.provider(_AFTER_SECONDS)
    return before if now in (before, None) else ""


def _model_answer(component: ModelComponent, call: ModelCall, settled: SettledCall, by: AnsweredBy) -> ModelAnswer:
    use = ModelUse(
        answered_by=by,
        component=component.name,
        model=settled.answer.model,
        prompt_version=call.prompt_version,
        request_digest=call.digest,
        **usage_columns(settled.usage),
    )
    return ModelAnswer(settled.answer, use)


async def _off_loop(texts: Iterable[str], count: Callable[[], Counted]) -> Counted:
    """Runs `count`, which counts the tokens of `texts`, in a thread if they are long: 64,000 characters of unusual text
    take 20 ms."""
    return await asyncio.to_thread(count) if sum(map(len, texts)) > _SHORT_CHARACTERS else count()


def reported_or_estimated(answer: Answer, call: ModelCall, provider: str) -> TokenUsage:
    """The usage that the provider reported if it is plausible, else our own estimate, marked as such."""
    if _is_plausible(answer):
        return answer.usage
    by = estimate.counting(provider, answer.model)
    return TokenUsage(
        input_tokens=estimate.input_tokens(call.messages, call.tools, by),
        output_tokens=estimate.output_tokens(answer, by),
        basis=UsageBasis.ESTIMATED,
    )


def _is_plausible(answer: Answer) -> bool:
    """Whether both counts were reported, and neither a question nor an answer with content has zero tokens."""
    input_tokens, output_tokens = answer.usage.input_tokens, answer.usage.output_tokens
    if input_tokens is None or output_tokens is None:
        return False
    if not 0 < input_tokens <= _MAX_TOKENS or output_tokens > _MAX_TOKENS:
        return False
    return output_tokens > 0 or not (answer.text or answer.tool_calls)
