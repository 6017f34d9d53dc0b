"""What a model wrote becomes a value or a named problem, and the problem never quotes the model."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.models import Category, Classification
from app.llm.conversation import ToolRequest
from app.llm.json_answer import InvalidAnswer, json_object, validate
from app.workflow.activities import tools

GOOD = '{"category": "damaged", "wants_refund": true, "order_id": null, "language": "en", "confidence": 0.9}'


@pytest.mark.parametrize("wrapped", [GOOD, f"```json\n{GOOD}\n```", f"Here it is: {GOOD} I hope it helps."])
def test_an_object_is_found_in_its_wrapping(wrapped: str) -> None:
    found = validate(Classification, json_object(wrapped))
    assert found.category is Category.DAMAGED
    assert found.confidence == Decimal("0.9")


@pytest.mark.parametrize("text", ["", "I cannot help with that.", "{not json}", "[1, 2]", "}{", "{'a': 1}"])
def test_prose_and_broken_json_are_nonsense(text: str) -> None:
    with pytest.raises(InvalidAnswer):
        json_object(text)


def test_the_problem_names_the_fields_and_not_their_content() -> None:
    with pytest.raises(InvalidAnswer) as problem:
        validate(Classification, {"category": "jane@example.com", "confidence": 3, "language": "en"})
    assert str(problem.value) == "category: enum; confidence: less_than_equal; wants_refund: missing"


def test_keys_that_a_model_adds_are_dropped() -> None:
    extra = json_object(GOOD) | {"explanation": "because"}
    assert validate(Classification, extra).language == "en"


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(InvalidAnswer):
        assert isinstance(json_object(text), dict)


def test_tools_are_offered_with_a_schema_that_names_their_argument() -> None:
    offered = {tool.name: tool.parameters for tool in tools.definitions()}
    assert offered["lookup_order"]["required"] == ["order_id"]
    assert "double_charge" in offered["lookup_refund_policy"]["properties"]["category"]["enum"]


def test_tool_requests_become_calls_with_our_own_ids() -> None:
    requests = (
        ToolRequest("x", "lookup_order", '{"order_id": "AC-10442"}'),
        ToolRequest("x", "lookup_refund_policy", '{"category": "damaged"}'),
    )
    calls = tools.check_requests(requests, turn=2)
    assert [(call.id, call.tool, call.argument) for call in calls] == [
        ("call_2_1", "lookup_order", "AC-10442"),
        ("call_2_2", "lookup_refund_policy", "damaged"),
    ]


@pytest.mark.parametrize(
    "request_",
    [
        ToolRequest("1", "delete_everything", "{}"),
        ToolRequest("1", "lookup_order", "{}"),
        ToolRequest("1", "lookup_order", "not json"),
        ToolRequest("1", "lookup_order", '{"order_id": "a; drop table orders"}'),
        ToolRequest("1", "lookup_refund_policy", '{"category": "question"}'),
        ToolRequest("1", "lookup_order", '{"order_id": "AC-1", "tenant": "other"}'),
    ],
)
def test_tool_requests_that_do_not_fit_are_nonsense(request_: ToolRequest) -> None:
    with pytest.raises(InvalidAnswer):
        tools.check_requests((request_,), turn=1)


def test_a_flood_of_tool_requests_is_nonsense() -> None:
    flood = tuple(ToolRequest(str(number), "lookup_order", '{"order_id": "AC-1"}') for number in range(5))
    with pytest.raises(InvalidAnswer, match="more than 4"):
        tools.check_requests(flood, turn=1)
