"""Tools in words for components that cannot pass them on, and what is read from the answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.llm.conversation import Answer, Message, ToolRequest
from app.llm.json_actions import parse_tool_calls, tools_as_text
from app.pricing.charge_types import NOT_REPORTED
from app.workflow.activities import tools

TOOLS = tools.definitions()
CALLS = (
    ToolRequest("call_1_1", "lookup_order", '{"order_id": "AC-1"}'),
    ToolRequest("call_1_2", "lookup_refund_policy", '{"category": "damaged"}'),
)
CONVERSATION = (
    Message("system", "Stage: draft\nPrepare the answer."),
    Message("user", "my toaster"),
    Message("assistant", tool_calls=CALLS),
    Message("tool", '{"order": 1}', tool_call_id="call_1_1", name="lookup_order"),
    Message("tool", '{"policy": 2}', tool_call_id="call_1_2", name="lookup_refund_policy"),
    Message("user", "Your last answer was not usable."),
)


def answer(text: str) -> Answer:
    """An answer of text alone."""
    return Answer(text, (), "stop", "m", NOT_REPORTED)


def test_tools_calls_and_results_become_text() -> None:
    system, letter, request, results = tools_as_text(CONVERSATION, TOOLS)
    assert system.text.startswith("Stage: draft\n"), "the beginning stays: providers cache equal beginnings"
    for tool in TOOLS:
        assert f"- {tool.name}: {tool.description} Schema: {{" in system.text
    assert letter == CONVERSATION[1]
    assert [call["arguments"] for call in json.loads(request.text)["tool_calls"]] == [
        {"order_id": "AC-1"},
        {"category": "damaged"},
    ]
    assert results.text == (
        'Result of lookup_order (call_1_1):\n{"order": 1}\n\n'
        'Result of lookup_refund_policy (call_1_2):\n{"policy": 2}\n\n'
        "Your last answer was not usable."
    )


def test_nothing_native_is_left_and_roles_alternate() -> None:
    messages = tools_as_text(CONVERSATION, TOOLS)
    assert not any(message.tool_calls or message.tool_call_id or message.name for message in messages)
    assert [message.role for message in messages] == ["system", "user", "assistant", "user"]


def test_a_request_for_tools_is_read_also_in_a_code_fence() -> None:
    asked = {"tool_calls": [{"name": call.name, "arguments": json.loads(call.arguments)} for call in CALLS]}
    read = parse_tool_calls(answer(f"```json\n{json.dumps(asked)}\n```"))
    assert read.text == ""
    assert tools.check_requests(read.tool_calls, 1)[0].argument == "AC-1"


@pytest.mark.parametrize(
    "text", ["", "no", '{"action": "answer"}', '{"tool_calls": []}', '{"tool_calls": ["lookup_order"]}', "{broken"]
)
def test_any_other_text_stays_for_the_stage_to_judge(text: str) -> None:
    assert parse_tool_calls(answer(text)) == answer(text)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_no_json_breaks_the_reader(value: object) -> None:
    parse_tool_calls(answer(json.dumps({"tool_calls": value})))
    parse_tool_calls(answer(json.dumps({"tool_calls": [{"name": value, "arguments": value}]})))
