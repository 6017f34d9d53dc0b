"""`provider check`: what a provider really does behind the running sidecar, question by question, with the evidence."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from app.domain.errors import FailureCause, ModelRefused, ModelUnavailable
from app.llm.conversation import Answer, Message, ToolDefinition, ToolRequest
from app.llm.json_actions import parse_tool_calls, tools_as_text
from app.llm.json_answer import InvalidAnswer, json_object
from app.pricing.book import PriceBook
from app.pricing.charge_types import TokenUsage
from app.pricing.litellm_prices import LiteLLMPrices
from app.pricing.model_facts import model_facts
from app.pricing.schedule import NoPrice

_LOADED_SECONDS = 5.0
_ANSWERS = "answers"
# OpenAI and others cache prefixes from 1,024 tokens on.
_LONG = "The shop sells lamps, chairs, tables, books and toys. " * 160
_ORDER = ToolDefinition(
    "lookup_order",
    "Looks an order up.",
    {
        "type": "object",
        "properties": {"order_id": {"type": "string", "description": "The order's number."}},
        "required": ["order_id"],
    },
)
_ASK_TOOL = (
    Message("system", "You answer questions about orders. Look each order up with the tool before you answer."),
    Message("user", "Has my order AC-10442 been delivered?"),
)
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"verdict": {"type": "string"}, "score": {"type": "integer"}},
    "required": ["verdict", "score"],
}
_ASK_SCHEMA = (Message("user", "Is 17 a prime number? Give a verdict in one word, and your certainty from 0 to 100."),)
_SAY = (Message("user", "Answer with the single word: ready"),)
# A tool's result that answers no call: every provider whose protocol has tools refuses it.
_IMPOSSIBLE = (Message("user", "Hello"), Message("tool", "42", tool_call_id="call_9", name="lookup_order"))


class ProbeVerdict(StrEnum):
    """The outcome of one question."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    UNTESTED = "cannot be tested here"

    @property
    def short(self) -> str:
        """For a table with many providers."""
        return "untested" if self is ProbeVerdict.UNTESTED else self.value


@dataclass(frozen=True)
class ProbeResult:
    """One question about a provider with its verdict and the evidence, which quotes no answer."""

    question: str
    verdict: ProbeVerdict
    evidence: str


class Candidate(Protocol):
    """The component to be checked, as `DaprConversation` asks it."""

    async def ask(
        self,
        messages: tuple[Message, ...],
        tools: tuple[ToolDefinition, ...],
        schema: dict[str, Any] | None = None,
    ) -> Answer:
        """Sends one request. Raises ModelUnavailable, ModelRefused."""
        ...

    async def provider(self, seconds: float) -> str | None:
        """The component's type."""
        ...


class _Schema(BaseModel):
    model_config = ConfigDict(strict=True)
    verdict: str
    score: int


Failure = ModelUnavailable | ModelRefused


class ProviderCheck:
    """Asks one candidate all questions, about ten requests. `used` is what the answers used; `requests` counts what was
    sent."""

    def __init__(self, candidate: Candidate, model: str, guarded_seconds: float | None) -> None:
        """`guarded_seconds`: the time-out that the sidecar's policies give the component beside a breaker; None without
        both."""
        self._candidate = candidate
        self._model = model
        self._guarded_seconds = guarded_seconds
        self.used: list[TokenUsage] = []
        self.requests = 0

    async def run(self, book: PriceBook, litellm_prices: LiteLLMPrices | None) -> tuple[ProbeResult, ...]:
        """All results, in the order of the questions. The others are skipped if the component is not loaded."""
        kind = await self._candidate.provider(_LOADED_SECONDS)
        if not kind:
            why = "the sidecar does not answer" if kind is None else "the sidecar has not loaded it (`doctor` says why)"
            return (ProbeResult("loads", ProbeVerdict.FAIL, why),)
        results = [ProbeResult("loads", ProbeVerdict.PASS, kind)]
        answers = True
        for question, probe in self._probes():
            try:
                verdict, evidence = await probe() if answers else (ProbeVerdict.UNTESTED, "it does not answer")
            except (ModelUnavailable, ModelRefused) as error:
                verdict, evidence = ProbeVerdict.FAIL, f"{error.code}: {_reason(error)}"
            answers = answers and (question, verdict) != (_ANSWERS, ProbeVerdict.FAIL)
            results.append(ProbeResult(question, verdict, evidence))
        return (*results, *self._facts(kind, book, litellm_prices))

    def _probes(self) -> Sequence[tuple[str, Callable[[], Awaitable[tuple[ProbeVerdict, str]]]]]:
        return (
            (_ANSWERS, self._answers),
            ("reports usage", self._reports_usage),
            ("counts cached tokens", self._counts_cached_tokens),
            ("takes tools", self._takes_tools),
            ("takes tools in words", self._takes_tools_in_words),
            ("honours a schema", self._honours_a_schema),
            ("names its errors", self._names_its_errors),
        )

    async def _ask(
        self,
        messages: tuple[Message, ...],
        tools: tuple[ToolDefinition, ...] = (),
        schema: dict[str, Any] | None = None,
    ) -> Answer:
        self.requests += 1
        answer = await self._candidate.ask(messages, tools, schema)
        self.used.append(answer.usage)
        return answer

    async def _answers(self) -> tuple[ProbeVerdict, str]:
        started = time.monotonic()
        answer = await self._ask(_SAY)
        took = f"{time.monotonic() - started:.1f} s"
        if answer.text:
            return ProbeVerdict.PASS, f"{len(answer.text)} characters in {took}"
        return ProbeVerdict.FAIL, f"an empty answer after {took}"

    async def _reports_usage(self) -> tuple[ProbeVerdict, str]:
        usage = (await self._ask(_SAY)).usage
        if usage.input_tokens and usage.output_tokens:
            return ProbeVerdict.PASS, f"{usage.input_tokens} tokens in, {usage.output_tokens} out"
        return ProbeVerdict.FAIL, "no token counts; usage is estimated and marked so"

    async def _counts_cached_tokens(self) -> tuple[ProbeVerdict, str]:
        """The same long prefix twice: the second request can come from the provider's cache."""
        long = (Message("system", _LONG), *_SAY)
        await self._ask(long)
        usage = (await self._ask(long)).usage
        if usage.cached_tokens:
            return ProbeVerdict.PASS, f"{usage.cached_tokens} of {usage.input_tokens} tokens were cached"
        if usage.cached_tokens is None:
            return ProbeVerdict.FAIL, "cached tokens are not reported"
        return ProbeVerdict.UNTESTED, "it reported 0 cached tokens: it has no cache, or did not use it"

    async def _takes_tools(self) -> tuple[ProbeVerdict, str]:
        return _tool_verdict(await self._ask(_ASK_TOOL, (_ORDER,)))

    async def _takes_tools_in_words(self) -> tuple[ProbeVerdict, str]:
        return _tool_verdict(parse_tool_calls(await self._ask(tools_as_text(_ASK_TOOL, (_ORDER,)))))

    async def _honours_a_schema(self) -> tuple[ProbeVerdict, str]:
        answer = await self._ask(_ASK_SCHEMA, schema=_SCHEMA)
        try:
            _Schema.model_validate(json_object(answer.text))
        except (InvalidAnswer, ValidationError) as problem:
            why = problem if isinstance(problem, InvalidAnswer) else f"{problem.error_count()} fields do not fit"
            return ProbeVerdict.FAIL, f"the answer does not fit the schema: {why}"
        return ProbeVerdict.PASS, "the answer fits the schema"

    async def _names_its_errors(self) -> tuple[ProbeVerdict, str]:
        """A refusal must be read as one: it is not repeated, and opens the breaker like any failure."""
        try:
            await self._ask(_IMPOSSIBLE)
        except ModelRefused as error:
            return ProbeVerdict.PASS, f"{error.code}: {_reason(error)}"
        except ModelUnavailable as error:
            if error.code == FailureCause.BREAKER_OPEN:
                return ProbeVerdict.UNTESTED, "its circuit breaker is open"
            return ProbeVerdict.FAIL, f"an impossible request is repeated: {error.code}: {_reason(error)}"
        return ProbeVerdict.UNTESTED, "it answers an impossible request instead of refusing it"

    def _facts(self, kind: str, book: PriceBook, litellm_prices: LiteLLMPrices | None) -> tuple[ProbeResult, ...]:
        price = book.find(kind, self._model, datetime.now(UTC))
        limit = model_facts(book, litellm_prices, kind, self._model).context_tokens
        seconds = self._guarded_seconds
        return (
            _fact(
                "times out",
                None if seconds is None else f"after {seconds:.0f} s in the sidecar, with a breaker",
                "without time-out or breaker: add them to resiliency/llm.yaml",
            ),
            ProbeResult("has a price", ProbeVerdict.FAIL, f"{price.reason}; {price.remedy}")
            if isinstance(price, NoPrice)
            else ProbeResult("has a price", ProbeVerdict.PASS, price.id),
            _fact(
                "has a known context limit",
                None if limit is None else f"{limit:,} tokens",
                "add it to `models:` in config/prices.yaml",
            ),
        )


def _fact(question: str, known: str | None, remedy: str) -> ProbeResult:
    return ProbeResult(question, ProbeVerdict.FAIL if known is None else ProbeVerdict.PASS, known or remedy)


def _tool_verdict(answer: Answer) -> tuple[ProbeVerdict, str]:
    if not answer.tool_calls:
        return ProbeVerdict.FAIL, "it answered in text and called no tool"
    call: ToolRequest = answer.tool_calls[0]
    try:
        fits = call.name == _ORDER.name and "AC-10442" in str(json_object(call.arguments).get("order_id"))
    except InvalidAnswer:
        fits = False
    if fits:
        return ProbeVerdict.PASS, f"it called {call.name} with the order's number"
    return ProbeVerdict.FAIL, "it called a tool with other arguments than asked for"


def _reason(error: Failure) -> str:
    """The error's own words, without the component's name and the remedy."""
    return str(error).partition(": ")[2].partition(";")[0]
