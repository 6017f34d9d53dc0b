"""The questions of `provider check`, each asked of a candidate that can do it and of one that cannot."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.domain.errors import FailureCause, ModelRefused, ModelUnavailable
from app.llm.conversation import Answer, Message, ToolDefinition, ToolRequest
from app.pricing import book
from app.pricing.charge_types import NOT_REPORTED, TokenUsage
from app.providers.provider_check import ProbeVerdict, ProviderCheck
from tests.paths import ROOT

PASS, FAIL, UNTESTED = ProbeVerdict.PASS, ProbeVerdict.FAIL, ProbeVerdict.UNTESTED
REFUSAL = ModelRefused("model component llm-candidate: the provider refuses the request with status 400; correct it")


class Candidate:
    """One that can do everything, but for what a test changes."""

    type: str | None = "conversation.openai"
    usage = TokenUsage(input_tokens=2_000, cached_tokens=1_024, output_tokens=5)
    takes_tools = True
    takes_words = True
    fits_schema = True
    refusal: Exception | None = REFUSAL
    failure: Exception | None = None
    text = "ready"

    async def provider(self, seconds: float) -> str | None:
        """Its type."""
        return self.type

    async def ask(
        self, messages: tuple[Message, ...], tools: tuple[ToolDefinition, ...], schema: dict[str, Any] | None = None
    ) -> Answer:
        """Answers as the attributes say."""
        if self.failure is not None:
            raise self.failure
        if any(message.role == "tool" for message in messages) and self.refusal is not None:
            raise self.refusal
        calls: tuple[ToolRequest, ...] = ()
        text = self.text
        if tools and self.takes_tools:
            calls = (ToolRequest("1", "lookup_order", '{"order_id": "AC-10442"}'),)
        if messages[0].role == "system" and "tool_calls" in messages[0].text and self.takes_words:
            text = json.dumps({"tool_calls": [{"name": "lookup_order", "arguments": {"order_id": "AC-10442"}}]})
        if schema is not None and self.fits_schema:
            text = json.dumps({"verdict": "yes", "score": 99})
        return Answer(text, calls, "stop", "m", self.usage)


def verdicts(model: str = "gpt-5-mini", seconds: float | None = 60.0, **changes: Any) -> dict[str, ProbeVerdict]:
    """The verdict of each question about a candidate with these changes."""
    candidate = Candidate()
    for name, value in changes.items():
        setattr(candidate, name, value)
    prices = book.load(ROOT / "config" / "prices.yaml")
    results = asyncio.run(ProviderCheck(candidate, model, seconds).run(prices, None))
    assert all(result.evidence for result in results)
    return {result.question: result.verdict for result in results}


def test_a_provider_that_can_do_everything_passes_every_question() -> None:
    assert set(verdicts().values()) == {PASS}
    assert len(verdicts()) == 11


@pytest.mark.parametrize(
    ("question", "verdict", "changes"),
    [
        ("reports usage", FAIL, {"usage": NOT_REPORTED}),
        ("counts cached tokens", FAIL, {"usage": TokenUsage(input_tokens=9, output_tokens=1)}),
        ("counts cached tokens", UNTESTED, {"usage": TokenUsage(input_tokens=9, output_tokens=1, cached_tokens=0)}),
        ("takes tools", FAIL, {"takes_tools": False}),
        ("takes tools in words", FAIL, {"takes_words": False}),
        ("honours a schema", FAIL, {"fits_schema": False}),
        ("names its errors", UNTESTED, {"refusal": None}),
        ("names its errors", FAIL, {"refusal": ModelUnavailable("m: cut; later", cause=FailureCause.CONNECTION_LOST)}),
        (
            "names its errors",
            UNTESTED,
            {"refusal": ModelUnavailable("m: open; later", cause=FailureCause.BREAKER_OPEN)},
        ),
        ("times out", FAIL, {"seconds": None}),
        ("has a price", FAIL, {"model": "no-such-model"}),
        ("has a known context limit", FAIL, {"model": "no-such-model"}),
        ("answers", FAIL, {"text": ""}),
    ],
)
def test_each_question_finds_the_provider_that_cannot(
    question: str, verdict: ProbeVerdict, changes: dict[str, Any]
) -> None:
    assert verdicts(**changes)[question] is verdict


@pytest.mark.parametrize("kind", [None, ""])
def test_a_component_that_is_not_loaded_is_asked_nothing(kind: str | None) -> None:
    assert verdicts(type=kind, failure=AssertionError("asked")) == {"loads": FAIL}


def test_one_that_does_not_answer_is_asked_no_further() -> None:
    away = verdicts(failure=ModelUnavailable("m: nobody is there; later", cause=FailureCause.REFUSED_CONNECTION))
    assert away["answers"] is FAIL
    assert {away[name] for name in ("reports usage", "takes tools", "names its errors")} == {UNTESTED}
    assert away["has a price"] is PASS, "that needs no answer"
