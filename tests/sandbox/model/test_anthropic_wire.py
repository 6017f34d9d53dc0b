"""Anthropic's protocol as its official client speaks it, and the bill behind it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import pytest

from .conftest import Served
from .test_openai_wire import ORDER, POLICY

SYSTEM = "Stage: draft\nAnswer in JSON."
USER = (
    "Category: damaged\nOrder: AC-10442\nAccount: {}\nSubject: Lampe\n<ticket>\n"
    "Die Lampe kam zerbrochen an, ich möchte mein Geld zurück.\n</ticket>"
)
TOOLS: list[Any] = [
    {"name": "lookup_order", "input_schema": {"type": "object"}},
    {"name": "lookup_refund_policy", "input_schema": {"type": "object"}},
]


def message(served: Served, messages: list[Any], **more: Any) -> Any:
    """One message of the model, by an official client that does not retry."""

    async def run() -> Any:
        async with anthropic.AsyncAnthropic(base_url=served.url, api_key="any", max_retries=0) as client:
            arguments = {"model": "claude-haiku-4-5", "max_tokens": 2048, "system": SYSTEM, **more}
            return await client.messages.create(messages=messages, **arguments)

    return asyncio.run(run())


def test_tool_use_then_a_draft_and_their_bill(served: Served) -> None:
    first = message(served, [{"role": "user", "content": USER}], tools=TOOLS)
    assert first.stop_reason == "tool_use"
    assert [(block.name, block.input) for block in first.content] == [
        ("lookup_order", {"order_id": "AC-10442"}),
        ("lookup_refund_policy", {"category": "damaged"}),
    ]
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": json.dumps(body)}
        for block, body in zip(first.content, (ORDER, POLICY), strict=True)
    ]
    conversation = [
        {"role": "user", "content": USER},
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {"role": "user", "content": results},
    ]
    second = message(served, conversation, tools=TOOLS)
    assert second.stop_reason == "end_turn"
    draft = json.loads(second.content[0].text)
    assert (draft["action"], draft["amount"]) == ("refund", "27.00")
    assert draft["reply"].startswith("Guten Tag")
    rows = served.bill()
    assert [row["input_tokens"] for row in rows] == [first.usage.input_tokens, second.usage.input_tokens]
    assert [row["output_tokens"] for row in rows] == [first.usage.output_tokens, second.usage.output_tokens]
    assert {(row["protocol"], row["stage"], row["status"]) for row in rows} == {("anthropic", "draft", 200)}


def test_a_marked_prefix_is_written_to_the_cache_and_then_read(served: Served) -> None:
    system = [{"type": "text", "text": SYSTEM + " Be kind." * 800, "cache_control": {"type": "ephemeral"}}]
    usages = [message(served, [{"role": "user", "content": USER}], system=system).usage for _ in range(2)]
    written, read = usages[0].cache_creation_input_tokens, usages[1].cache_read_input_tokens
    assert written == read > 1024
    assert (usages[0].cache_read_input_tokens, usages[1].cache_creation_input_tokens) == (0, 0)
    billed = [row["input_tokens"] for row in served.bill()]
    assert billed == [usages[0].input_tokens + written, usages[1].input_tokens + read]
    assert [row["cached_tokens"] for row in served.bill()] == [0, read]


def test_without_marks_nothing_is_cached(served: Served) -> None:
    usages = [
        message(served, [{"role": "user", "content": USER}], system=SYSTEM + " Be kind." * 800).usage for _ in range(2)
    ]
    assert [usage.cache_read_input_tokens for usage in usages] == [0, 0]


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.APIStatusError, "overloaded_error"),
    ],
)
def test_status_faults_have_the_shape_of_the_real_ones(
    served: Served, status: int, error: type[anthropic.APIStatusError], kind: str
) -> None:
    served.fault(kind="status", status=status)
    with pytest.raises(error) as refused:
        message(served, [{"role": "user", "content": USER}])
    body: Any = refused.value.body
    assert (refused.value.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert [row["billed"] for row in served.bill()] == [False]


def test_a_missing_key_is_401(served: Served) -> None:
    body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    status, answer = served.call("POST", "/v1/messages", body, headers={})
    assert (status, answer["error"]["type"]) == (401, "authentication_error")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"max_tokens": None}, "max_tokens"),
        ({"stream": True}, "stream"),
    ],
)
def test_what_the_real_server_refuses_is_refused(served: Served, more: dict[str, Any], word: str) -> None:
    body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]} | more
    status, answer = served.call("POST", "/v1/messages", body)
    assert status == 400
    assert word in answer["error"]["message"]


def test_a_tool_result_must_come_first(served: Served) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "lookup_order", "input": {}}
    late = [{"type": "text", "text": "well"}, {"type": "tool_result", "tool_use_id": "t1", "content": "{}"}]
    conversation = [
        {"role": "user", "content": USER},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": late},
    ]
    with pytest.raises(anthropic.BadRequestError, match="t1"):
        message(served, conversation, tools=TOOLS)


def test_models_are_listed(served: Served) -> None:
    async def ids() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=served.url, api_key="any") as client:
            return [model.id async for model in client.models.list()]

    assert "claude-haiku-4-5" in asyncio.run(ids())
