"""Every provider template in a real daprd, and `provider use` while tickets are worked: no task fails, nothing
restarts, and each call is booked under the component and the model that answered it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
from typer.testing import CliRunner

from app.cli.root import cli
from app.domain.models import CallState, ToolForm
from app.finance.reconciliation.comparison import reconcile
from app.finance.reconciliation.parsing import parse_bill
from app.providers.catalogue import read_templates
from runtime.stack_commands import project_ports, repoint, worker_environment
from sandbox.data import load_expected, load_tickets
from tests.live import SETTLED, Live, daprd_of, make_stack, until
from tests.paths import ROOT

pytestmark = [pytest.mark.runtime, pytest.mark.whole]

TEMPLATES = read_templates(ROOT)
BY_NAME = {template.name: template for template in TEMPLATES}
SECRETS = sorted({secret for template in TEMPLATES for secret in template.secrets})
ROUND = ("sandbox-anthropic", "sandbox-ollama", "sandbox-deepseek", "sandbox-huggingface", "sandbox")
TICKETS, MORE = 100, 10  # in flight at the first switch, and sent after each


@pytest.fixture(scope="module")
def stack_with_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A running product whose folder has the templates, with the sandbox's port, and an invented secret for each."""
    stack = make_stack(tmp_path_factory.mktemp("providers"))
    target = stack.components / "providers"
    target.mkdir()
    for file in (ROOT / "components" / "providers").glob("*.yaml"):
        (target / file.name).write_text(repoint(file.read_text(), {project_ports()[0]: stack.ports.model}))
    file = stack.state / "secrets.json"
    secrets = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(secrets | dict.fromkeys(SECRETS, "invented")))
    file.chmod(0o600)
    with stack:
        live = Live(stack)
        yield live
        live.close()


def loaded(live: Live) -> list[str]:
    """The types of the conversation components that the sidecar has loaded."""
    url = f"{live.stack.dapr_url}/v1.0/metadata"
    metadata = live.outside.get(url, headers=daprd_of(live.stack).headers).raise_for_status().json()
    return [entry["type"] for entry in metadata["components"] if entry["type"].startswith("conversation.")]


def use(live: Live, name: str, *options: str) -> None:
    """`refund-agent provider use`, as a person types it in that folder; returns when the sidecar has loaded it."""
    words = ["provider", "use", name, "--folder", str(live.stack.folder), *options]
    prices = {"REFUND_AGENT_PRICES_FILE": str(ROOT / "config" / "prices.yaml")}
    log, loads = live.stack.log("daprd"), f"Component loaded: llm ({BY_NAME[name].component_type}/v1)"
    before = log.read_text().count(loads)
    result = CliRunner().invoke(cli, words, env=prices)
    assert result.exit_code == 0, (result.output, result.stderr)
    until(lambda: log.read_text().count(loads) > before, f"{name} is loaded")
    assert loaded(live) == [BY_NAME[name].component_type]


def processes(live: Live) -> dict[str, int]:
    """The process ids of the agent and its sidecar."""
    return {name: live.stack.pid(name) for name in ("daprd", "worker")}


def test_daprd_loads_no_template_from_its_folder(stack_with_templates: Live) -> None:
    assert loaded(stack_with_templates) == ["conversation.openai"]


def test_every_template_is_loaded_by_a_running_sidecar(stack_with_templates: Live) -> None:
    live = stack_with_templates
    before = processes(live)
    for template in TEMPLATES:
        endpoint = ("--endpoint", "https://acme.openai.azure.com") if template.name == "azure-openai" else ()
        use(live, template.name, *endpoint)
    use(live, "sandbox")
    log = live.stack.log("daprd").read_text()
    assert "Failed to init component llm" not in log
    assert not re.search(r"non-YAML \S+ file \.?llm", log), "daprd sees neither the backup nor a draft"
    assert processes(live) == before


def test_bedrock_fails_on_tools_before_it_sends_a_request(stack_with_templates: Live) -> None:
    """When this fails, Dapr has corrected it: change the row of app/dapr/component_support.py."""
    live = stack_with_templates
    use(live, "aws-bedrock", "--endpoint", live.stack.model_url)
    function = {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object", "properties": {}}}
    message = {"ofUser": {"content": [{"text": "Hello"}]}}
    question = {"inputs": [{"messages": [message]}], "tools": [{"function": function}]}
    url = f"{live.stack.dapr_url}/v1.0-alpha2/conversation/llm/converse"
    answer = live.outside.post(url, json=question, headers=daprd_of(live.stack).headers)
    use(live, "sandbox")
    assert "unsupported tool choice type: *string" in answer.text


def test_the_documented_table_is_what_provider_check_finds(stack_with_templates: Live) -> None:
    live, document = stack_with_templates, (ROOT / "docs" / "providers.md").read_text()
    command, _, table = document.partition("$ refund-agent provider check ")[2].partition("```")[0].partition("\n")
    environment = {
        **os.environ,
        **worker_environment(live.stack.ports, live.stack.state),
        "REFUND_AGENT_PRICES_FILE": str(ROOT / "config" / "prices.yaml"),
        "COLUMNS": "200",
    }
    before = processes(live)
    words = ["provider", "check", *command.split(), "--folder", str(live.stack.folder)]
    done = subprocess.run(
        [sys.executable, "-m", "app", *words], env=environment, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    found = [line.split() for line in done.stdout.splitlines()]
    documented = [line.split() for line in table.splitlines() if line.strip()]
    assert documented == found[: len(documented)]
    assert loaded(live) == ["conversation.openai"], "the candidate is gone"
    assert processes(live) == before


def has_answered(live: Live, model: str) -> bool:
    """Whether a call of that model is in the journal."""
    return any(call.model == model for call in live.calls())


@pytest.mark.timeout(400)
def test_a_switch_with_tasks_in_flight_fails_none_and_each_call_names_its_model(stack_with_templates: Live) -> None:
    live, before, billed_before = (
        stack_with_templates,
        processes(stack_with_templates),
        len(stack_with_templates.bill()),
    )
    live.outside.put(f"{live.stack.model_url}/latency", json={"seconds": 2}).raise_for_status()
    try:
        tickets = [ticket.model_dump(mode="json") for ticket in load_tickets()]
        sent = [live.submit(ticket) for ticket in tickets[:TICKETS]]
        for number, name in enumerate(ROUND):
            use(live, name)
            first = TICKETS + number * MORE
            sent += [live.submit(ticket) for ticket in tickets[first : first + MORE]]
            until(partial(has_answered, live, BY_NAME[name].model), f"a call is booked under {name}")
    finally:
        live.outside.put(f"{live.stack.model_url}/latency", json={"seconds": 0}).raise_for_status()
    views = live.wait_all(sent, *SETTLED)
    expected = load_expected()
    assert [view["status"] for view in views] == [expected[task_id].status.value for task_id in sent]
    assert processes(live) == before

    calls, bill = live.calls(), live.bill()[billed_before:]  # without those of `provider check`
    settled = [call for call in calls if call.state is CallState.SETTLED]
    types = {template.model: template.component_type for template in map(BY_NAME.__getitem__, ROUND)}
    assert {call.model for call in settled} == set(types)
    for call in settled:  # a call during which the component changed is booked under no component
        assert call.provider in (types[call.model or ""], ""), call
    forms = {(call.provider, call.tool_form) for call in settled if call.stage == "draft_refund" and call.provider}
    assert ("conversation.anthropic", ToolForm.JSON) in forms
    assert ("conversation.anthropic", ToolForm.NATIVE) not in forms
    billed = Counter(row["model"] for row in bill if row["billed"])
    assert Counter(call.model for call in settled) <= billed, "no answer is booked under a model that gave none"
    comparison = reconcile(calls, parse_bill("the sandbox's bill", json.dumps({"rows": bill})))
    assert comparison.unexplained_tokens == 0, [str(row) for row in comparison.findings if not row.cause.explains]
