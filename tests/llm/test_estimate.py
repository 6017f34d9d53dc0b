"""What we count where a provider reports nothing: never zero, near what providers publish, and never a crash."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.models import UsageBasis
from app.llm import estimate
from app.llm.call import ModelCall
from app.llm.conversation import Answer, Message, ToolDefinition, ToolRequest
from app.llm.estimate import PLAIN
from app.llm.gateway import reported_or_estimated
from app.pricing.charge_types import NOT_REPORTED, TokenUsage

NOTHING = NOT_REPORTED
ANTHROPIC = "conversation.anthropic"
WEATHER = ToolDefinition(
    "get_weather",
    "Get the current weather in a given location",
    {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
        },
        "required": ["location"],
    },
)
IN_SAN_FRANCISCO = ToolRequest("t1", "get_weather", '{"location": "San Francisco, CA", "unit": "fahrenheit"}')
CALL = ModelCall(
    tenant="acme",
    task_id="acme:T-1",
    stage="classify",
    turn=1,
    execution_id="e1",
    prompt_version="p1",
    messages=(Message("system", "You sort letters."), Message("user", "My toaster arrived broken.")),
)


def answer(usage: TokenUsage = NOTHING, **changes: Any) -> Answer:
    """An answer of the model, with what was reported for it."""
    values: dict[str, Any] = {"text": "It is damaged.", "tool_calls": (), "finish_reason": "stop", "model": "m"}
    return Answer(**(values | changes), usage=usage)


def test_openais_framing_is_counted_as_it_is_published() -> None:
    messages = (Message("system", "hello world"), Message("user", "hello world"))
    assert estimate.input_tokens(messages, ()) == 2 * (3 + 1 + 2) + 3
    assert estimate.output_tokens(answer(text="hello world")) == 2


@pytest.mark.parametrize(
    ("messages", "tools", "published"),
    [
        ((Message("system", "You are a scientist"), Message("user", "Hello, Claude")), (), 14),
        ((Message("user", "What's the weather like in San Francisco?"),), (WEATHER,), 403),
    ],
)
def test_the_counts_that_anthropic_prints_in_its_guide(
    messages: tuple[Message, ...], tools: tuple[ToolDefinition, ...], published: int
) -> None:
    """From its page on token counting, whose figures are those of the models before Opus 4.7."""
    by = estimate.counting(ANTHROPIC, "claude-opus-4-20250514")
    assert estimate.input_tokens(messages, tools, by) == pytest.approx(published, rel=0.05, abs=1)


def test_a_tool_call_as_anthropic_prints_it_in_its_guide() -> None:
    """From its page on streaming: 89 tokens. The published form of a call gives fewer; JSON alone would give half."""
    said = answer(text="Okay, let's check the weather for San Francisco, CA:", tool_calls=(IN_SAN_FRANCISCO,))
    by = estimate.counting(ANTHROPIC, "claude-opus-4-20250514")
    assert estimate.output_tokens(said, by) == pytest.approx(89, rel=0.2)


@pytest.mark.parametrize(
    ("provider", "model", "percent", "tools_prompt"),
    [
        ("conversation.openai", "gpt-5-mini", 100, 0),
        ("conversation.mistral", "mistral-large-latest", 100, 0),
        ("", "", 100, 0),
        (ANTHROPIC, "", 156, 354),
        (ANTHROPIC, "claude-2.1", 106, 264),
        (ANTHROPIC, "sandbox-small", 106, 264),
        ("", "claude-3-haiku-20240307", 120, 264),
        ("", "claude-3-7-sonnet-latest", 120, 313),
        ("", "claude-opus-4-20250514", 120, 313),
        ("", "claude-opus-4-1-20250805", 120, 313),
        ("", "claude-sonnet-4-5-20250929", 120, 497),
        ("", "claude-haiku-4-5", 120, 497),
        ("", "claude-opus-4-7", 156, 675),
        ("", "claude-opus-4-8", 156, 290),
        ("", "claude-sonnet-5", 156, 354),
        ("conversation.aws.bedrock", "anthropic.claude-3-5-haiku-20241022-v1:0", 120, 264),
    ],
)
def test_each_family_counts_its_own_way(provider: str, model: str, percent: int, tools_prompt: int) -> None:
    found = estimate.counting(provider, model)
    assert (found.percent, found.tools_prompt) == (percent, tools_prompt)


def test_tools_cost_their_prompt_only_when_offered() -> None:
    by = estimate.counting(ANTHROPIC, "claude-opus-4-8")
    without, offered = (estimate.input_tokens(CALL.messages, tools, by) for tools in ((), (WEATHER,)))
    assert offered - without > by.tools_prompt


@pytest.mark.parametrize("arguments", ["", "no json", "[1]", '{"a": "\\ud800"}'])
def test_arguments_that_are_none_are_counted_as_they_stand(arguments: str) -> None:
    said = answer(text="", tool_calls=(ToolRequest("t1", "lookup_order", arguments),))
    assert estimate.output_tokens(said, estimate.counting(ANTHROPIC, "")) > 0


def test_a_result_is_read_as_the_provider_frames_it() -> None:
    by = estimate.counting(ANTHROPIC, "claude-opus-4-8")
    as_user, as_result = (estimate.input_tokens((Message(role, "{}"),), (), by) for role in ("user", "tool"))
    assert as_result > as_user
    assert estimate.input_tokens((Message("tool", "{}"),), ()) == estimate.input_tokens((Message("user", "{}"),), ())


def reported(asked: int, said: int | None, **more: Any) -> TokenUsage:
    """What a provider reported."""
    return TokenUsage(input_tokens=asked, output_tokens=said, **more)


@pytest.mark.parametrize(
    "possible",
    [
        reported(811, 32, cached_tokens=100, reasoning_tokens=8),
        reported(811, 32),
        reported(811, 32, cached_tokens=811, reasoning_tokens=32),
    ],
)
def test_what_can_be_is_taken_as_reported(possible: TokenUsage) -> None:
    assert reported_or_estimated(answer(possible), CALL, ANTHROPIC) == possible


@pytest.mark.parametrize(
    "impossible", [NOT_REPORTED, reported(0, 0), reported(0, 32), reported(811, None), reported(811, 0)]
)
@pytest.mark.parametrize("said", [{}, {"text": "", "tool_calls": (IN_SAN_FRANCISCO,)}])
def test_what_cannot_be_is_counted_and_marked(impossible: TokenUsage, said: dict[str, Any]) -> None:
    found = reported_or_estimated(answer(impossible, **said), CALL, ANTHROPIC)
    assert found.basis is UsageBasis.ESTIMATED
    assert found.input_tokens == estimate.input_tokens(CALL.messages, (), estimate.counting(ANTHROPIC, "m"))
    assert found.output_tokens is not None
    assert found.output_tokens > 0
    assert found.cached_tokens is None
    assert found.reasoning_tokens is None


def test_an_empty_answer_may_have_cost_no_output() -> None:
    found = reported_or_estimated(
        answer(reported(811, 0), text=""),
        CALL,
        "conversation.openai",
    )
    assert (found.basis, found.output_tokens) == (UsageBasis.REPORTED, 0)


def test_the_answers_model_decides_over_the_components_type() -> None:
    newer, older = (reported_or_estimated(answer(model=model), CALL, "") for model in ("claude-sonnet-5", "claude-2.1"))
    assert newer.input_tokens is not None
    assert older.input_tokens is not None
    assert newer.input_tokens > older.input_tokens > estimate.input_tokens(CALL.messages, (), PLAIN) - 8
