"""The answers of model calls as the conventions want them, redacted: only read when texts are switched on."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Engine, select

from app.domain.redaction import redact
from app.ledger.store.tables import MODEL_CALLS
from app.pricing.call_record import CallRecord


class StoredAnswers:
    """Reads the journal's answer to a call. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, call: CallRecord) -> str | None:
        """The answer as `gen_ai.output.messages`; None when there is none, or its retention time is over."""
        wanted = select(MODEL_CALLS.c.answer).where(MODEL_CALLS.c.call_id == call.call_id)
        with self._engine.connect() as connection:
            stored = connection.execute(wanted).scalar_one_or_none()
        return output_messages(stored) if stored else None


def output_messages(stored: str) -> str:
    """The conventions' JSON of one answer, made from the journal's JSON of it, redacted."""
    answer = json.loads(stored)
    parts: list[dict[str, Any]] = []
    if answer["text"]:
        parts.append({"type": "text", "content": redact(answer["text"])})
    parts += [
        {"type": "tool_call", "id": call["id"], "name": call["name"], "arguments": redact(call["arguments"])}
        for call in answer["tool_calls"]
    ]
    message = {"role": "assistant", "parts": parts, "finish_reason": answer["finish_reason"]}
    return json.dumps([message], ensure_ascii=False, separators=(",", ":"))
