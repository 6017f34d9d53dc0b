"""`doctor retries` against what really happens: the worst that it names is what a target sees that fails for good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.ledger.reading.queries import LedgerQueries
from app.ledger.store import database
from runtime import paths
from runtime.stack_commands import worker_environment
from tests.live import Live, make_stack, repeat_model_calls, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime

ATTEMPTS = 3
NEVER = "consecutiveFailures >= 1000"


@pytest.fixture
def repeating(tmp_path: Path) -> Iterator[Live]:
    """A product whose sidecar asks a model once more and a system twice more, but orders under no policy; no breaker
    opens, and a step is parked after three attempts."""
    stack = repeat_model_calls(make_stack(tmp_path))
    _rewrite(stack.folder / "resiliency" / "llm.yaml", _never_open)
    _rewrite(stack.folder / "resiliency" / "systems.yaml", _never_open)
    _rewrite(stack.folder / "resiliency" / "systems.yaml", _forget_orders)
    _rewrite(stack.folder / "config" / "policy.yaml", _few_attempts)
    with stack:
        live = Live(stack)
        yield live
        live.close()


def _rewrite(file: Path, change: Any) -> None:
    content = yaml.safe_load(file.read_text())
    change(content)
    file.write_text(yaml.safe_dump(content))


def _never_open(resource: dict[str, Any]) -> None:
    for breaker in resource["spec"]["policies"]["circuitBreakers"].values():
        breaker["trip"] = NEVER


def _forget_orders(resource: dict[str, Any]) -> None:
    del resource["spec"]["targets"]["apps"]["orders"]


def _few_attempts(policy: dict[str, Any]) -> None:
    policy["retries"] = {"first_seconds": 0.2, "max_seconds": 0.5, "attempts": ATTEMPTS}


def doctor(live: Live) -> dict[str, dict[str, Any]]:
    """What the command says of each target, with the product's own folder and ledger."""
    environment = os.environ | worker_environment(live.stack.ports, live.stack.state)
    folder = live.stack.folder
    words = ["doctor", "retries", "--folder", str(folder), "--policy", str(folder / "config" / "policy.yaml"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *words],
        cwd=paths.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return {each["name"]: each for each in json.loads(done.stdout)["targets"]}


def failed_for_good(live: Live, task_id: str, target: str) -> int:
    """Waits until the task is parked, since the target fails; returns how often that was asked, and heals it."""
    until(lambda: live.fired(target), f"the task has gone on to {target}")
    live.wait(task_id, "parked")
    asked = live.fired(target)
    live.heal()
    return asked


def resume(live: Live, task_id: str) -> None:
    """A person goes on with the task."""
    assert live.web.post(f"/tasks/{task_id}/resume").status_code == 200


def test_what_fails_for_good_is_asked_as_often_as_the_command_says(repeating: Live) -> None:
    live = repeating
    live.fault("model", "status", status=503)
    task_id = live.submit(tickets.refund("worst", 57_000))
    asked = {"llm": failed_for_good(live, task_id, "model")}
    view = live.view(task_id)
    for target in ("accounts", "orders"):
        live.fault(target, "status", status=503)
        resume(live, task_id)
        asked[target] = failed_for_good(live, task_id, target)
    resume(live, task_id)
    assert live.wait(task_id, "completed")["result"]["outcome"] == "refunded"
    said = doctor(live)
    print({name: (asked[name], said[name]["requests_per_step"]) for name in asked})
    assert asked["llm"] == said["llm"]["requests_per_step"] == 2 * ATTEMPTS
    assert asked["accounts"] == said["accounts"]["requests_per_step"] == 3 * ATTEMPTS
    assert asked["orders"] == said["orders"]["requests_per_step"] == ATTEMPTS, "under no policy nothing is repeated"
    created, parked = (datetime.fromisoformat(view[name]) for name in ("created_at", "updated_at"))
    assert (parked - created).total_seconds() < said["llm"]["seconds_until_parked"]
    _is_measured_as_often(live)


def _is_measured_as_often(live: Live) -> None:
    """The record knows the calls of a model and the attempts of the other steps; what the sidecar repeats is apart."""
    until(lambda: (doctor(live)["llm"]["measured"] or {}).get("most") == ATTEMPTS, "the model's are measured", 30)
    until(lambda: (doctor(live)["accounts"]["measured"] or {}).get("most") == ATTEMPTS, "attempts are measured", 30)
    calls = int(doctor(live)["llm"]["measured"]["requests"])
    engine = database.connect(f"sqlite:///{live.stack.state / 'ledger.sqlite'}")
    records = LedgerQueries(engine)

    def all_told() -> int:
        return calls + sum(each.requests or 0 for each in records.unattributed_retries())

    until(lambda: all_told() == len(live.bill()), "each request on the bill is a call's or was counted as repeated", 30)
    engine.dispose()
