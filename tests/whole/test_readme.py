"""The README's own commands, word by word, on a running stack: a ticket from intake to its approved refund."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.data import load_tickets
from tests.live import Live
from tests.paths import ROOT
from tests.test_docs import README, commands

pytestmark = pytest.mark.runtime

TASK = "acme:T-1063"
# What needs a file of the reader's own, a whole stack at the usual ports, or minutes, or would change this checkout.
NOT_HERE = {("cost", "reconcile"), ("doctor",), ("submit",), ("experiment", "crash-cost"), ("provider", "use")}


def run(live: Live, *words: str) -> subprocess.CompletedProcess[str]:
    """A command as a person types it, told where this stack is."""
    stack = live.stack
    environ = os.environ | {
        "REFUND_AGENT_URL": stack.web_url,
        "REFUND_AGENT_STATE_DIR": str(stack.state),
        "DAPR_HTTP_PORT": str(stack.ports.dapr_http),
        "DAPR_GRPC_PORT": str(stack.ports.dapr_grpc),
    }
    words = (sys.executable, "-m", "app", *words)
    return subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_the_readmes_commands_do_what_it_says(live: Live, tmp_path: Path) -> None:
    ticket = next(each for each in load_tickets() if each.task_id == TASK)
    file = tmp_path / "tickets.jsonl"
    file.write_text(ticket.model_dump_json() + "\n")
    submitted = run(live, "submit", str(file), "--wait")
    assert submitted.returncode == 0, submitted.stderr
    assert "waiting 1" in submitted.stdout
    for words in commands(README):
        if tuple(words) in NOT_HERE or tuple(words[:2]) in NOT_HERE or tuple(words[:1]) == ("submit",):
            continue
        done = run(live, *words)
        # Other tests may have left refunds in the books that no ledger knows.
        assert done.returncode == 0 or words[:2] == ["ledger", "check"], (words, done.stdout, done.stderr)
    assert live.wait(TASK, "completed")["result"]["outcome"] == "refunded"


def test_the_history_of_a_task_is_told_event_by_event(live: Live) -> None:
    task_id = live.submit({"tenant": "acme", "ticket_id": "H-1", "customer_id": "C-1", "text": "Where is my parcel?"})
    live.wait(task_id)
    done = run(live, "task", "history", task_id, "--json")
    assert done.returncode == 0, done.stderr
    events = json.loads(done.stdout)["events"]
    assert len(events) == len(live.history(task_id))
    assert {each["name"] for each in events if each["kind"] == "taskCompleted"} >= {"classify", "retrieve_account"}
    assert "parcel" not in done.stdout
    unknown = run(live, "task", "history", "acme:H-0")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("error: Dapr knows no workflow instance acme:H-0")
