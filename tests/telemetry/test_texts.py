"""The journal's answers in the conventions' form, redacted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from app.ledger.store import database
from app.ledger.store.tables import MODEL_CALLS
from app.llm.call import answer_to_json
from app.llm.conversation import Answer, ToolRequest
from app.pricing.charge_types import TokenUsage
from app.telemetry.export import StoredAnswers, output_messages
from tests.records import call_record

USAGE = TokenUsage(input_tokens=1, output_tokens=1)


def answer(text: str, *calls: ToolRequest) -> str:
    return answer_to_json(Answer(text, calls, "stop", "m", USAGE))


def test_an_answer_is_one_message_of_the_assistant() -> None:
    assert json.loads(output_messages(answer("Grüße"))) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Grüße"}], "finish_reason": "stop"}
    ]


def test_tool_calls_are_parts() -> None:
    messages = json.loads(output_messages(answer("", ToolRequest("c1", "lookup_order", '{"order_id":"AC-1"}'))))
    part = {"type": "tool_call", "id": "c1", "name": "lookup_order", "arguments": '{"order_id":"AC-1"}'}
    assert messages[0]["parts"] == [part]


def test_answers_are_redacted() -> None:
    call = ToolRequest("c1", "lookup_order", '{"order_id":"eva@example.com"}')
    messages = output_messages(answer("write to bob@example.com, card 4111 1111 1111 1111", call))
    assert "@" not in messages
    assert "4111" not in messages
    assert messages.count("[e-mail]") == 2


def test_the_journal_is_asked_for_the_calls_answer(tmp_path: Path) -> None:
    engine = database.connect(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with engine.begin() as connection:
        connection.execute(insert(MODEL_CALLS), [_row("a", answer("yes")), _row("b", None)])
    texts = StoredAnswers(engine)
    assert json.loads(texts(call_record(call_id="a")) or "")[0]["parts"][0]["content"] == "yes"
    assert texts(call_record(call_id="b")) is None
    assert texts(call_record(call_id="c")) is None
    engine.dispose()


def _row(call_id: str, stored: str | None) -> dict[str, Any]:
    call = call_record(call_id=call_id, turn=1 if call_id == "a" else 2)
    names = (
        "call_id",
        "execution_id",
        "turn",
        "task_id",
        "tenant",
        "stage",
        "number",
        "component",
        "provider",
        "model",
    )
    row: dict[str, Any] = {name: getattr(call, name) for name in names}
    row |= {"request_digest": "d", "prompt_version": "p", "worker": "w", "state": "settled", "usage_basis": "reported"}
    row |= {"started_at": call.started_at, "reserve_input": 1, "reserve_output": 1, "answer": stored}
    return row
