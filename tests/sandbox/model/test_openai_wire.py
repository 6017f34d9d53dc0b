"""OpenAI's protocol as its official client speaks it, and the bill behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import openai
import pytest

from .conftest import Served, classify_messages

T = TypeVar("T")
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Looks up.",
            "parameters": {"type": "object", "properties": {argument: {"type": "string"}}},
        },
    }
    for name, argument in (("lookup_order", "order_id"), ("lookup_refund_policy", "category"))
]
ORDER = {
    "order_id": "AC-10442",
    "status": "delivered",
    "placed_days_ago": 9,
    "delivered_days_ago": 5,
    "currency": "USD",
    "total": "30.00",
    "charged": "30.00",
    "refunded": "0.00",
    "refundable": "30.00",
    "items": [{"sku": "L", "name": "Desk lamp", "quantity": 1, "unit_price": "30.00"}],
}
POLICY = {
    "category": "damaged",
    "window_days": 30,
    "counted_from": "delivery",
    "refund_percent": 90,
    "text": "Ninety percent.",
}
DRAFT: list[Any] = [
    {"role": "system", "content": "Stage: draft\nAnswer in JSON."},
    {
        "role": "user",
        "content": "Category: damaged\nOrder: AC-10442\nAccount: {}\nSubject: Lamp\n<ticket>\n"
        "The lamp arrived broken. Refund please.\n</ticket>",
    },
]


def asked(served: Served, work: Callable[[openai.AsyncOpenAI], Awaitable[T]], key: str = "any") -> T:
    """Runs `work` with an official client that does not retry."""

    async def run() -> T:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0) as client:
            return await work(client)

    return asyncio.run(run())


def completion(served: Served, messages: list[Any], **more: Any) -> Any:
    """One chat completion."""
    model = more.pop("model", "gpt-4.1-mini")
    return asked(served, lambda c: c.chat.completions.create(model=model, messages=messages, **more))


def test_a_plain_answer_and_its_bill(served: Served) -> None:
    answer = completion(served, classify_messages("My lamp AC-10442 arrived broken, I want a refund."))
    assert answer.choices[0].finish_reason == "stop"
    assert json.loads(answer.choices[0].message.content) == {
        "category": "damaged",
        "wants_refund": True,
        "order_id": "AC-10442",
        "language": "en",
        "confidence": 0.98,
    }
    (row,) = served.bill()
    assert (row["input_tokens"], row["output_tokens"]) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert answer.usage.total_tokens == row["input_tokens"] + row["output_tokens"]
    assert (row["status"], row["billed"], row["stage"], row["protocol"]) == (200, True, "classify", "openai")
    assert row["model"] == "gpt-4.1-mini"


def test_tool_calls_then_a_draft(served: Served) -> None:
    first = completion(served, DRAFT, tools=TOOLS)
    calls = first.choices[0].message.tool_calls
    assert first.choices[0].finish_reason == "tool_calls"
    assert [(c.function.name, json.loads(c.function.arguments)) for c in calls] == [
        ("lookup_order", {"order_id": "AC-10442"}),
        ("lookup_refund_policy", {"category": "damaged"}),
    ]
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": json.dumps(body)}
        for call, body in zip(calls, (ORDER, POLICY), strict=True)
    ]
    second = completion(served, [*DRAFT, first.choices[0].message.model_dump(exclude_none=True), *results], tools=TOOLS)
    draft = json.loads(second.choices[0].message.content)
    assert (draft["action"], draft["order_id"], draft["amount"], draft["currency"]) == (
        "refund",
        "AC-10442",
        "27.00",
        "USD",
    )
    assert "27.00" in draft["reply"]
    total = served.call("GET", "/bill/total")[1]
    assert total["input_tokens"] == first.usage.prompt_tokens + second.usage.prompt_tokens
    assert total["output_tokens"] == first.usage.completion_tokens + second.usage.completion_tokens
    assert (total["requests"], total["billed_requests"]) == (2, 2)


def test_a_correction_gets_the_same_answer_again(served: Served) -> None:
    messages: list[Any] = classify_messages("Where is my parcel AC-10442?")
    first = completion(served, messages).choices[0].message.content
    fix = [{"role": "assistant", "content": "hm"}, {"role": "user", "content": "Your last answer was not usable: hm"}]
    assert completion(served, messages + fix).choices[0].message.content == first


def test_without_a_key_nothing_is_answered_or_billed(served: Served, chat: dict[str, Any]) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        asked(served, lambda c: c.with_options(default_headers={"Authorization": ""}).models.list())
    assert refused.value.status_code == 401
    status, body = served.call("POST", "/v1/chat/completions", chat, headers={})
    assert (status, body["error"]["code"], body["error"]["type"]) == (401, "invalid_api_key", "invalid_request_error")
    (row,) = served.bill()
    assert (row["status"], row["billed"], row["input_tokens"], row["output_tokens"]) == (401, False, 0, 0)


def test_a_429_has_the_shape_of_one(served: Served) -> None:
    served.fault(kind="status", status=429)
    with pytest.raises(openai.RateLimitError) as refused:
        completion(served, classify_messages("Hi"))
    assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")
    assert [(row["status"], row["billed"]) for row in served.bill()] == [(429, False)]


@pytest.mark.parametrize(
    ("messages", "more", "word"),
    [
        ([{"role": "user", "content": "x"}], {"stream": True}, "stream"),
        ([{"role": "tool", "tool_call_id": "c", "content": "{}"}], {}, "answers no tool call"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], {}, "content"),
        ([], {}, "messages"),
    ],
)
def test_bad_requests_say_what_is_wrong(served: Served, messages: list[Any], more: dict[str, Any], word: str) -> None:
    with pytest.raises(openai.BadRequestError, match=word):
        completion(served, messages, **more)
    assert [row["billed"] for row in served.bill()] == [False]


def test_an_unanswered_tool_call_is_refused(served: Served) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "lookup_order", "arguments": "{}"}}
    with pytest.raises(openai.BadRequestError, match="c1"):
        completion(served, [*DRAFT, {"role": "assistant", "tool_calls": [call]}, {"role": "user", "content": "?"}])


def test_content_may_come_in_parts(served: Served) -> None:
    plain = classify_messages("It arrived broken, order AC-10442")
    parts: list[Any] = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in plain]
    assert completion(served, parts).choices[0].message == completion(served, [*plain]).choices[0].message


def test_a_repeated_long_prompt_is_read_from_the_cache_for_five_minutes(served: Served) -> None:
    messages = classify_messages("The lamp arrived broken. " * 400)
    usages = [completion(served, messages).usage for _ in range(2)]
    served.now += timedelta(minutes=5, seconds=1)
    usages.append(completion(served, messages).usage)
    cached = [usage.prompt_tokens_details.cached_tokens for usage in usages]
    assert cached[0] == cached[2] == 0
    assert cached[1] % 128 == 0
    assert 0 < cached[1] <= usages[1].prompt_tokens
    assert [row["cached_tokens"] for row in served.bill()] == cached


def test_a_short_prompt_is_never_cached(served: Served) -> None:
    usages = [completion(served, classify_messages("Hello there")).usage for _ in range(2)]
    assert [usage.prompt_tokens_details.cached_tokens for usage in usages] == [0, 0]


def test_a_reasoning_model_bills_its_thoughts_as_output(served: Served) -> None:
    messages = classify_messages("The lamp arrived broken")
    plain, thinking = (completion(served, messages, model=model).usage for model in ("gpt-4.1", "gpt-5-nano"))
    thoughts = thinking.completion_tokens_details.reasoning_tokens
    assert plain.completion_tokens_details.reasoning_tokens == 0
    assert thoughts > 0
    assert thinking.completion_tokens == plain.completion_tokens + thoughts


def test_the_token_limit_cuts_the_text(served: Served) -> None:
    answer = completion(served, classify_messages("The lamp arrived broken"), max_completion_tokens=5)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 5)


def test_models_are_listed(served: Served) -> None:
    async def ids(client: openai.AsyncOpenAI) -> list[str]:
        return [model.id async for model in client.models.list()]

    assert "gpt-5-nano" in asked(served, ids)
