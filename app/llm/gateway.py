"""`LLMGateway.ask`: one model call, journaled before and after. The stages call models through it and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from app.domain.errors import FailureCause, ModelRefused, ModelUnavailable
from app.domain.models import AnsweredBy, ModelUse, ToolForm, UsageBasis
from app.llm import estimate, json_actions
from app.llm.call import ModelCall, Reserve
from app.llm.conversation import Answer, Conversation
from app.llm.journal import Journal, SettledCall
from app.pricing.charge_types import TokenUsage, usage_columns

# Dapr drops max_tokens, so an answer has no limit; no answer of these stages has come near this many tokens.
_RESERVED_OUTPUT_TOKENS = 1_000
# How long to wait for the sidecar to name its component, which takes a millisecond. Before a call there is time, since
# nothing works without a sidecar; after it, an answer waits to be journaled.
_BEFORE_SECONDS, _AFTER_SECONDS = 60.0, 2.0
# No call is that large, and PostgreSQL's integer holds no more.
_MOST_TOKENS = 2**31 - 1
# Texts up to this length are counted on the event loop, longer ones in a thread.
_SHORT_CHARACTERS = 8_000

Counted = TypeVar("Counted")


@dataclass(frozen=True)
class ModelAnswer:
    """The answer, and its usage. Only `use` may go into the workflow's history."""

    answer: Answer
    use: ModelUse


class LLMGateway:
    """The only way to a model: journal, then the Conversation API, then journal."""

    def __init__(self, conversation: Conversation, component: str, journal: Journal) -> None:
        self._conversation = conversation
        self._component = component
        self._journal = journal
        self._in_flight: dict[tuple[str, int], asyncio.Future[ModelAnswer]] = {}

    async def ask(self, call: ModelCall) -> ModelAnswer:
        """The answer to a call. Concurrent executions of one step and turn in this process share one request; an answer
        in the journal is returned without a request.

        Raises ModelUnavailable (worth a retry) or ModelRefused (not worth one)."""
        key = (call.execution_id, call.turn)
        running = self._in_flight.get(key)
        if running is None:
            running = self._in_flight[key] = asyncio.ensure_future(self._ask(call))
            running.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return await asyncio.shield(running)

    async def _ask(self, call: ModelCall) -> ModelAnswer:
        provider = await self._conversation.provider(_BEFORE_SECONDS) or ""
        form = await self._tool_form(call, provider)
        request = call
        if form is ToolForm.JSON:
            request = replace(call, messages=json_actions.in_words(call.messages, call.tools), tools=())
        by, texts = estimate.counting(provider, ""), [message.text for message in request.messages]
        input_tokens = await _off_loop(texts, lambda: estimate.input_tokens(request.messages, request.tools, by))
        reserve = Reserve(input_tokens, _RESERVED_OUTPUT_TOKENS)
        call_id = await self._journal.begin(call, self._component, provider, reserve, form)
        if isinstance(call_id, SettledCall):
            return self._model_answer(call, call_id, AnsweredBy.JOURNAL)
        try:
            answer = await self._conversation.ask(request.messages, request.tools)
        except (ModelUnavailable, ModelRefused) as error:
            provider = await self._confirm_provider(provider)
            if isinstance(error, ModelRefused) and not provider:
                error = self._refused_while_changed()
            await self._journal.fail(call_id, error, provider)
            raise error from None
        provider = await self._confirm_provider(provider)
        usage = await _off_loop(
            [*texts, answer.text, *(tool_call.arguments for tool_call in answer.tool_calls)],
            lambda: reported_or_estimated(answer, request, provider),
        )
        if form is ToolForm.JSON:
            answer = json_actions.with_tool_calls(answer)
        settled = await self._journal.settle(call_id, call, answer, usage, provider)
        return self._model_answer(call, settled, AnsweredBy.PROVIDER)

    async def _tool_form(self, call: ModelCall, provider: str) -> ToolForm | None:
        """How the call's tools are offered to this type of component."""
        if not call.tools:
            return None
        return ToolForm.NATIVE if await self._conversation.passes_tools(provider) else ToolForm.JSON

    def _refused_while_changed(self) -> ModelUnavailable:
        """The request was made for another provider than the one that may have refused it: worth a retry."""
        return ModelUnavailable(
            f"model component {self._component}: the request was refused while the component was being changed; "
            "it is asked again later",
            cause=FailureCause.STATUS,
        )

    async def _confirm_provider(self, before: str) -> str:
        """The component's type that served a call: the one from before it. Empty when the component was changed during
        the call, which may then have gone to either. A sidecar that no longer answers had the earlier type."""
        now = await self._conversation.provider(_AFTER_SECONDS)
        return before if now in (before, None) else ""

    def _model_answer(self, call: ModelCall, settled: SettledCall, by: AnsweredBy) -> ModelAnswer:
        use = ModelUse(
            answered_by=by,
            component=self._component,
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
    if not 0 < input_tokens <= _MOST_TOKENS or output_tokens > _MOST_TOKENS:
        return False
    return output_tokens > 0 or not (answer.text or answer.tool_calls)
