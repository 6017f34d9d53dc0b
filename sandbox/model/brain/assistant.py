"""What the sandbox's model answers outside the stages: it calls a tool that it is offered, fits a schema, or greets."""

from __future__ import annotations

import json
import re
from typing import Any

from sandbox.model.exchange import Answer, Question, Tool, make_call

GREETING = "This is the sandbox's model. It works the stages classify and draft; it has nothing to say without one."
_REFERENCE = re.compile(r"\b[A-Z]{1,4}-\d{1,8}\b")
_SAMPLES: dict[str, Any] = {"string": "yes", "integer": 90, "number": 0.9, "boolean": True, "array": [], "object": {}}


def assist(question: Question) -> Answer:
    """A tool call if the request forces one, or names what a tool can look up; else an answer that fits the schema."""
    turn = len(question.messages)
    forced = next((tool for tool in question.tools if tool.name == question.forced_tool), None)
    if forced is not None:
        return Answer(tool_calls=(make_call(forced.name, _sample(_schema_of(forced)), turn),))
    reference = _REFERENCE.search(question.text_of("user"))
    has_results = any(message.role == "tool" for message in question.messages)
    if question.tools and reference and not has_results:
        tool = question.tools[0]
        names = _schema_of(tool).get("required", [])
        return Answer(tool_calls=(make_call(tool.name, dict.fromkeys(names, reference[0]), turn),))
    if question.schema is not None:
        return Answer(text=json.dumps(_sample(question.schema)))
    return Answer(text=GREETING)


def _schema_of(tool: Tool) -> dict[str, Any]:
    """The JSON schema of a tool's arguments, from its definition in whichever protocol, or in words."""
    _, _, text = tool.definition.partition("Schema: ")
    definition = json.loads(text or tool.definition)
    schema: dict[str, Any] = definition.get("parameters") or definition.get("input_schema") or definition
    return schema


def _sample(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties", {})
    return {name: _SAMPLES.get(str(properties.get(name, {}).get("type")), "yes") for name in properties}
