"""The tools are what dapr-agents would make of them, though the worker does without its two seconds of import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from app.llm.conversation import ToolDefinition, ToolRequest
from app.llm.json_answer import InvalidAnswer
from app.workflow.activities.tools import TOOLS, check_requests, definitions
from tests.paths import ROOT

# In a process of its own: importing dapr-agents warns, and starts more than a test wants.
_AS_DAPR_AGENTS = """
import json
from dapr_agents.tool import AgentTool
from app.workflow.activities.tools import TOOLS
tools = [AgentTool(name=t.name, description=t.description, args_model=t.arguments) for t in TOOLS.values()]
print(json.dumps([tool.to_function_call()["function"] for tool in tools]))
"""


def test_they_are_what_dapr_agents_makes_of_the_same_arguments() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _AS_DAPR_AGENTS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    theirs = [ToolDefinition(each["name"], each["description"], each["parameters"]) for each in json.loads(done.stdout)]
    assert definitions() == tuple(theirs)


def test_the_worker_does_not_import_it() -> None:
    code = "import sys, app.bootstrap; print('dapr_agents' in sys.modules, 'litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_request_becomes_a_call_with_an_id_of_our_own() -> None:
    (call,) = check_requests((ToolRequest("theirs", "lookup_order", '{"order_id": "AC-1"}'),), turn=2)
    assert (call.id, call.tool, call.argument) == ("call_2_1", "lookup_order", "AC-1")


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("wire_money", "{}", "no such tool"),
        ("lookup_order", "{", "do not fit"),
        ("lookup_order", '{"order_id": "AC-1", "tenant": "other"}', "do not fit"),
        ("lookup_refund_policy", '{"category": "fraud"}', "do not fit"),
    ],
)
def test_nonsense_is_told(name: str, arguments: str, problem: str) -> None:
    with pytest.raises(InvalidAnswer, match=problem):
        check_requests((ToolRequest("x", name, arguments),), turn=1)
    assert "wire_money" not in TOOLS
