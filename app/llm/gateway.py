"""Puts one model call to the model and says how it was answered. Stages come here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from app.domain.errors import ModelRefused, ModelUnavailable
from app.domain.models import AnsweredBy, ModelUse, UsageBasis
from app.llm import estimate
from app.llm.call import ModelCall, Reserve
from app.llm.conversation import Answer, Conversation
from app.llm.journal import Journal, SettledCall
from app.pricing.charge_types import TokenUsage, usage_columns

# Dapr drops max_tokens, so an answer has no set limit; no answer of these stages has come near this.
_RESERVED_OUTPUT_TOKENS = 1_000
# How long the sidecar has to name its component, which takes it a millisecond: before a call there is time, for nothing
# works without a sidecar; after it, the answer waits to be written down.
_BEFORE_SECONDS, _AFTER_SECONDS = 60.0, 2.0
# No call is that large; PostgreSQL keeps no larger number of tokens.
_MOST_TOKENS = 2**31 - 1
# Counted on the event loop; whatever is longer, beside it.
_SHORT_CHARACTERS = 8_000

Counted = TypeVar("Counted")


@dataclass(frozen=True)
class ModelAnswer:
    """The answer and what it used; only `use` may travel into history."""

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
        """Answers once for each step and turn, however often and however concurrently it is executed here.

        Raises ModelUnavailable (worth a retry) or ModelRefused (not)."""
        key = (call.execution_id, call.turn)
        running = self._in_flight.get(key)
        if running is None:
            running = self._in_flight[key] = asyncio.ensure_future(self._ask(call))
            running.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return await asyncio.shield(running)

    async def _ask(self, call: ModelCall) -> ModelAnswer:
        provider = await self._conversation.provider(_BEFORE_SECONDS) or ""
        by, texts = estimate.counting(provider, ""), [message.text for message in call.messages]
        asked = await _aside(texts, lambda: estimate.input_tokens(call.messages, call.tools, by))
        begun = await self._journal.begin(call, self._component, provider, Reserve(asked, _RESERVED_OUTPUT_TOKENS))
        if isinstance(begun, SettledCall):
            return self._answered(call, begun, AnsweredBy.JOURNAL)
        try:
            answer = await self._conversation.ask(call.messages, call.tools)
        except (ModelUnavailable, ModelRefused) as error:
            await self._journal.fail(begun, error, await self._still(provider))
            raise
        provider = await self._still(provider)
        usage = await _aside(
            [*texts, answer.text, *(tool_call.arguments for tool_call in answer.tool_calls)],
            lambda: used(answer, call, provider),
        )
        settled = await self._journal.settle(begun, call, answer, usage, provider)
        return self._answered(call, settled, AnsweredBy.PROVIDER)

    async def _still(self, before: str) -> str:
        """Whose call it was: the component's type from before, empty when it is another now, for then the call may
        have gone to either. A sidecar that went away took its component with it, which was that of before."""
        now = await self._conversation.provider(_AFTER_SECONDS)
        return before if now in (before, None) else ""

    def _answered(self, call: ModelCall, settled: SettledCall, by: AnsweredBy) -> ModelAnswer:
        use = ModelUse(
            answered_by=by,
            component=self._component,
            model=settled.answer.model,
            prompt_version=call.prompt_version,
            request_digest=call.digest,
            **usage_columns(settled.usage),
        )
        return ModelAnswer(settled.answer, use)


async def _aside(texts: Iterable[str], count: Callable[[], Counted]) -> Counted:
    """Counts the tokens of `texts` beside the event loop where that takes a while: 64,000 characters that nobody would
    write take twenty milliseconds."""
    return await asyncio.to_thread(count) if sum(map(len, texts)) > _SHORT_CHARACTERS else count()


def used(answer: Answer, call: ModelCall, provider: str) -> TokenUsage:
    """What the provider reported, if that can be; else what we count ourselves, marked as such."""
    if _can_be(answer):
        return answer.usage
    by = estimate.counting(provider, answer.model)
    return TokenUsage(
        input_tokens=estimate.input_tokens(call.messages, call.tools, by),
        output_tokens=estimate.output_tokens(answer, by),
        basis=UsageBasis.ESTIMATED,
    )


def _can_be(answer: Answer) -> bool:
    """Whether what was reported is whole, and neither a question nor an answer is for nothing."""
    asked, said = answer.usage.input_tokens, answer.usage.output_tokens
    if asked is None or said is None or not 0 < asked <= _MOST_TOKENS or said > _MOST_TOKENS:
        return False
    return said > 0 or not (answer.text or answer.tool_calls)
