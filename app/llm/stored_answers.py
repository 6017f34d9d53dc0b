"""An answer as JSON text at rest, and back. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict

from app.llm.conversation import Answer, ReportedUsage, ToolRequest


def answer_to_json(answer: Answer) -> str:
    """The answer as one line of JSON."""
    return json.dumps(asdict(answer), ensure_ascii=False, separators=(",", ":"))


def answer_from_json(text: str) -> Answer:
    """The answer that `answer_to_json` wrote."""
    values = json.loads(text)
    return Answer(
        text=values["text"],
        tool_calls=tuple(ToolRequest(**call) for call in values["tool_calls"]),
        finish_reason=values["finish_reason"],
        model=values["model"],
        usage=ReportedUsage(**values["usage"]),
    )
