"""A component that cannot be loaded costs time and nothing else: the sidecar runs on, doctor and task say why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from app.cli.checks import MissingComponent, missing_components
from app.cli.root import cli
from app.config.settings import Settings
from runtime.reload import reload
from tests.live import Live, make_stack, until
from tests.paths import ROOT
from tests.whole import tickets

pytestmark = [pytest.mark.runtime, pytest.mark.whole]
SECRET = "own-model-key"  # noqa: S105 - the name of one


@pytest.fixture
def model(live: Live) -> Iterator[str]:
    """The model's component as it was, and is again afterwards."""
    file = live.stack.components / "llm.yaml"
    before = file.read_text()
    yield before
    file.write_text(before)
    until(lambda: not lost(live), "everything is loaded again")


def lost(live: Live) -> list[MissingComponent]:
    """What doctor says is missing."""
    settings = Settings(
        state_dir=live.stack.state,
        dapr_http_port=live.stack.ports.dapr_http,
        dapr_grpc_port=live.stack.ports.dapr_grpc,
    )
    return list(missing_components(settings, live.stack.folder))


def change(live: Live, text: str) -> MissingComponent:
    """Writes the model's component and waits until it is gone."""
    (live.stack.components / "llm.yaml").write_text(text)
    (found,) = until(lambda: lost(live), "the component is gone")
    return MissingComponent(found.name, found.why, found.remedy)


def with_key(text: str) -> str:
    """The same component, its key from the secret store."""
    document = yaml.safe_load(text)
    for entry in document["spec"]["metadata"]:
        if entry["name"] == "key":
            entry.pop("value")
            entry["secretKeyRef"] = {"name": SECRET, "key": SECRET}
    return yaml.safe_dump(document | {"auth": {"secretStore": "secrets"}})


def test_a_missing_secret_is_named_and_the_task_goes_on_once_it_is_there(live: Live, model: str) -> None:
    pid = live.stack.pid("daprd")
    found = change(live, with_key(model))
    assert (found.name, found.why) == ("llm", f"secret {SECRET} is not in the secret store secrets")
    assert "make reload" in found.remedy
    task_id = live.submit(tickets.refund("no-component", 61_500))
    log = live.stack.log("worker")
    said = "model component llm: the sidecar has not loaded it (`refund-agent doctor` says why)"
    until(lambda: said in log.read_text(), "the task says what is missing")
    secrets = live.stack.state / "secrets.json"
    secrets.write_text(json.dumps(json.loads(secrets.read_text()) | {SECRET: "sandbox"}))
    assert reload(live.stack.ports.dapr_http) == pid
    assert live.wait(task_id)["status"] == "completed"
    assert (live.stack.pid("daprd"), live.stack.alive("daprd")) == (pid, True)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("conversation.openai", "conversation.nosuch", "couldn't find conversation conversation.nosuch/v1"),
        ("apiVersion: dapr.io/v1alpha1", "apiVersion: [", "no readable file of components/ defines it"),
    ],
)
def test_a_component_that_is_wrong_is_named_and_loaded_once_it_is_right(
    live: Live, model: str, old: str, new: str, why: str
) -> None:
    pid = live.stack.pid("daprd")
    found = change(live, model.replace(old, new))
    assert found.name == "llm"
    until(lambda: why in lost(live)[0].why, lambda: f"{lost(live)} says why")
    assert (live.stack.pid("daprd"), live.stack.alive("daprd")) == (pid, True)


def test_a_start_with_a_provider_whose_key_is_missing_is_a_start(tmp_path: Path) -> None:
    """The README's way to another model, without the key: everything is up, and says what is missing."""
    stack = make_stack(tmp_path)
    (stack.components / "llm.yaml").write_text((ROOT / "components" / "providers" / "openai.yaml").read_text())
    with stack:
        live = Live(stack)
        task_id = live.submit(tickets.question("no-key", 61_600))
        (found,) = lost(live)
        assert (found.name, found.why) == ("llm", "secret openai-api-key is not in the secret store secrets")
        until(lambda: live.view(task_id)["retrying"], "the task says what it waits for")
        assert stack.alive("daprd")
        live.close()


def test_a_person_gets_a_token_and_loses_it_while_the_agent_runs_and_the_local_one_stays(live: Live) -> None:
    def ask(*words: str) -> str:
        done = CliRunner().invoke(cli, list(words), env={"REFUND_AGENT_STATE_DIR": str(live.stack.state)})
        assert done.exit_code == 0, done.stderr
        return done.stdout.strip()

    def status(secret: str) -> int:
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx.get(f"{live.stack.web_url}/tasks", headers=headers, trust_env=False, timeout=30).status_code

    secret = ask("token", "create", "dana", "--role", "read", "--tenant", "acme")
    assert status(secret) == 401
    reload(live.stack.ports.dapr_http)
    until(lambda: status(secret) == 200, "the new token is known")
    ask("task", "list", "--url", live.stack.web_url)  # with the local token
    ask("token", "revoke", "dana")
    reload(live.stack.ports.dapr_http)
    until(lambda: status(secret) == 401, "the revoked token is refused")
    ask("task", "list", "--url", live.stack.web_url)
