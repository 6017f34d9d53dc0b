"""`doctor` finds what is wrong, names the remedy, and never fails itself."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.cli import client as http
from app.cli.checks import (
    FOLDERS,
    _last_init_error,
    metrics,
    policy_file,
    prerequisites,
    probe,
    resource_files,
    sdk,
    secrets_file,
    sidecar_retries,
    token_works,
    version_findings,
)
from app.config.settings import Settings
from app.dapr.workarounds import PATCHED
from runtime.errors import UserError
from runtime.state import check_secrets
from tests.cli.books import RefundBookServer
from tests.cli.conftest import CommandLine
from tests.paths import ROOT
from tests.web.fakes import secret

COMPONENT = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: x}\nspec: {type: a.b, version: v1}\n"


def component(name: str) -> str:
    """A component of that name."""
    return COMPONENT.replace("name: x", f"name: {name}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FOLDERS:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "good.yaml").write_text(COMPONENT, encoding="utf-8")
    return tmp_path


def faults(folder: Path) -> list[tuple[str, str]]:
    return [(finding.name, finding.found) for finding in resource_files(folder) if not finding.ok]


def test_this_projects_own_files_are_fine() -> None:
    assert faults(ROOT) == []
    assert policy_file(ROOT / "config" / "policy.yaml").ok


def test_good_files_are_counted(folder: Path) -> None:
    (folder / "components" / "two.yml").write_text(component("y") + "---\n" + component("z"), encoding="utf-8")
    (folder / "components" / "kustomization.yaml").write_text("kind: Kustomization\n", encoding="utf-8")
    assert [(finding.name, finding.found) for finding in resource_files(folder)] == [
        ("components", "3 files can be read"),
        ("components/providers", "1 files can be read"),
        ("resiliency", "1 files can be read"),
        ("config", "1 files can be read"),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [1\n", "line 2: "),
        ("\ta: 1\n", "line 1: "),
        ("", "is empty"),
        ("- a\n", "is not a mapping"),
        (COMPONENT.replace("dapr.io", "dapr.oi"), "apiVersion 'dapr.oi/v1alpha1' is not one of dapr.io/..."),
        (COMPONENT.replace("kind: Component", "kind: Componnt"), "kind 'Componnt' is unknown to daprd"),
        (COMPONENT.replace("name: x", "nam: x"), "Component without metadata.name"),
        (COMPONENT.partition("spec")[0], "Component x without spec"),
        (COMPONENT + "---\n- a\n", "is not a mapping"),
        ("a: \x00\n", "cannot be read"),
    ],
)
def test_a_file_that_daprd_would_ignore_is_named(folder: Path, text: str, fault: str) -> None:
    path = folder / "resiliency" / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    ((name, fault_text),) = faults(folder)
    assert name == "resiliency"
    assert fault_text.startswith(f"{path}: {fault}")


def test_a_file_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "components" / "bad.yaml").write_bytes(b"a: \xff\n")
    ((_, fault_text),) = faults(folder)
    assert "cannot be read" in fault_text


def test_our_own_files_under_config_need_not_be_daprs(folder: Path) -> None:
    (folder / "config" / "policy.yaml").write_text("approval: {}\n", encoding="utf-8")
    assert faults(folder) == []
    (folder / "config" / "dapr.yaml").write_text("kind: Confguration\n", encoding="utf-8")
    assert len(faults(folder)) == 1


def test_unknown_metadata_and_an_invalid_duration_are_named(folder: Path) -> None:
    model = "spec: {type: conversation.openai, version: v1, ignoreErrors: true, metadata: [{name: modle, value: x}]}"
    (folder / "components" / "llm.yaml").write_text(COMPONENT.partition("spec")[0].replace("x", "llm") + model)
    policies = "spec: {policies: {timeouts: {llm: 10x}}, targets: {}}"
    resiliency = COMPONENT.partition("spec")[0].replace("kind: Component", "kind: Resiliency") + policies
    (folder / "resiliency" / "llm.yaml").write_text(resiliency)
    (of_model, of_policies) = (text for _, text in faults(folder))
    assert "llm: metadata 'modle' is not among those that conversation.openai reads (key, model, " in of_model
    assert "10x" in of_policies
    assert "daprd ignores the rest" in of_policies


@pytest.mark.parametrize("text", ['{"a": "b",}', "{", "[]", "", b"\xff"])
def test_a_secrets_file_that_would_end_the_sidecar_is_named(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "secrets.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    finding = secrets_file(Settings(state_dir=tmp_path))
    assert (finding.ok, str(path) in finding.found, bool(finding.remedy)) == (False, True, True)
    with pytest.raises(UserError, match=r"secrets\.json"):
        check_secrets(tmp_path)
    path.write_text('{"openai-api-key": "x"}')
    assert secrets_file(Settings(state_dir=tmp_path)).ok
    check_secrets(tmp_path)


def test_the_last_error_of_a_component_is_taken_from_the_newest_log(tmp_path: Path) -> None:
    logs = tmp_path / ".dapr" / "logs"
    logs.mkdir(parents=True)
    for age, why in ((100, "missing the key"), (0, "no such type")):
        log = logs / f"agent_daprd_{age}.log"
        log.write_text(f'level=error msg="Failed to init component llm (conversation.openai/v1): {why}"\n')
        os.utime(log, (1_000_000 - age, 1_000_000 - age))
    assert _last_init_error("llm", tmp_path) == "no such type"


def test_the_wrong_folder_is_reported(tmp_path: Path) -> None:
    assert [name for name, _ in faults(tmp_path)] == list(FOLDERS)


@pytest.mark.parametrize("content", [None, b"a: \x00", b"\xff", b"approval: 3"])
def test_a_policy_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "policy.yaml"
    if content is not None:
        path.write_bytes(content)
    assert not policy_file(path).ok


def test_the_machine_is_checked_against_the_list_of_the_set_up() -> None:
    names = [finding.name for finding in prerequisites()]
    assert {"python", "make", "disk"} <= set(names)


def test_a_check_that_fails_is_a_finding_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("no such disk")

    monkeypatch.setattr("runtime.prerequisites.checks", broken)
    assert [(finding.ok, finding.found) for finding in prerequisites()] == [(False, "OSError: no such disk")]
    monkeypatch.setitem(sys.modules, "runtime.prerequisites", None)
    (finding,) = prerequisites()
    assert (finding.ok, finding.remedy) == (False, "run this in the project's folder")


def test_an_address_is_probed() -> None:
    with RefundBookServer([]) as server:
        assert probe("it", f"{server.url}/healthz").ok
        refused = probe("it", f"{server.url}/other")
    assert (refused.ok, refused.found) == (False, f"{server.url}/other answers 404")
    silent = probe("it", "http://127.0.0.1:1/healthz")
    assert (silent.ok, "make up" in silent.remedy) == (False, True)
    assert not probe("it", "http://[").ok


@pytest.mark.parametrize(
    ("version", "ok", "lacks"),
    [
        ("1.18.2", True, True),
        ("1.18.3", True, True),
        ("1.18.5", True, True),
        ("1.18.6-rc.1", True, True),
        ("1.18.6", True, False),
        ("1.18.12-rc.1", True, False),
        ("1.18.1", False, True),
        ("1.17.9", False, True),
        ("1.19.0", False, False),
        ("edge", False, True),
    ],
)
def test_what_a_version_of_dapr_lacks_is_named(version: str, *, ok: bool, lacks: bool) -> None:
    by_name = {finding.name: finding for finding in version_findings(version)}
    dapr = by_name["Dapr"]
    assert (dapr.ok, dapr.found, dapr.remedy) == (
        (True, version, "") if ok else (False, version, "this agent works with Dapr 1.18, from 1.18.2 on")
    )
    assert ("Dapr's security" in by_name) == lacks
    for fix in ("scheduler authorisation", "path encoding", "caller headers") if lacks else ():
        assert fix in by_name["Dapr's security"].found
        assert "1.18.6" in by_name["Dapr's security"].found


@pytest.mark.parametrize(
    ("version", "active"),
    [
        ("1.18.2", ["torn history (until 1.18.3)", "false tampering verdict (until 1.18.4)"]),
        ("1.18.4", ["lost metrics (until 1.18.5)", "locked-up sidecar (until 1.19.0)"]),
        ("edge", ["torn history (until 1.18.3)", "locked-up sidecar (until 1.19.0)"]),
        ("1.19.0", ["none is known"]),
    ],
)
def test_what_is_worked_around_is_named(version: str, active: list[str]) -> None:
    (defects,) = (finding for finding in version_findings(version) if finding.name == "Dapr's defects")
    assert defects.ok
    assert [workaround for workaround in active if workaround in defects.found] == active
    assert ("tampering" in defects.found) == (version not in ("1.18.4", "1.19.0"))


def test_an_sdk_that_the_patches_were_not_written_for_is_wrong() -> None:
    version, defects = sdk(PATCHED.least)
    assert (version.ok, version.found, defects.ok) == (True, "1.18.3", True)
    assert "names of steps" in defects.found
    version, defects = sdk(PATCHED.below)
    assert (version.ok, defects.ok) == (False, False)
    assert "the patches are untested with 1.20.0: pauses, events from outside" in defects.found
    assert "requirements.lock" in defects.remedy
    (unknown,) = sdk(None)
    assert not unknown.ok


def test_outside_of_a_checkout_no_file_is_asked_for(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("doctor", "--no-sandbox", "--json")
    names = {finding["name"] for finding in json.loads(result.stdout)}
    assert {"daprd", "Dapr", "Python SDK", "agent", "token", "policy"} <= names
    assert not names & {"machine", "components", "resiliency", "config"}


def test_the_token_is_tried(run: CommandLine) -> None:
    assert token_works(run.url, secret("root")).ok
    assert not token_works(run.url, "another").ok
    assert "no role" in token_works(run.url, secret("acme-submit")).found
    assert not token_works("http://127.0.0.1:1", "t").ok


def findings(run: CommandLine, *options: str) -> tuple[int, dict[str, Any]]:
    result = run("doctor", "--folder", str(ROOT), "--json", *options)
    return result.exit_code, {finding["name"]: finding for finding in json.loads(result.stdout)}


def test_all_checks_together(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with RefundBookServer([]) as server:
        sandbox = ("--model-url", server.url, "--systems-url", server.url)
        code, by_name = findings(run, *sandbox)
        running = {name: by_name[name]["ok"] for name in ("agent", "token", "sandbox: model", "sandbox: systems")}
        assert running == dict.fromkeys(running, True)
        assert by_name["daprd"]["ok"] is False
        assert code == 1
        assert list(by_name["agent"]) == ["name", "ok", "found", "remedy"]


def test_without_the_sandbox_it_is_not_checked(run: CommandLine) -> None:
    _, by_name = findings(run, "--no-sandbox")
    assert not [name for name in by_name if name.startswith("sandbox")]


def test_people_see_a_table_with_the_remedy(run: CommandLine) -> None:
    result = run("doctor", "--folder", str(ROOT))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0].split() == ["what", "is", "found", "remedy"]
    assert "make up" in result.stdout


def copy_project_files(folder: Path) -> Path:
    """Copies the project's own components and policies."""
    for name in ("components", "resiliency"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    return folder


def test_the_shipped_policies_let_the_sidecar_repeat_no_model_call(tmp_path: Path) -> None:
    assert sidecar_retries(ROOT).ok
    assert sidecar_retries(copy_project_files(tmp_path)).ok


@pytest.mark.parametrize("named", ["llm", "DefaultComponentOutboundRetryPolicy"])
def test_policies_that_let_the_sidecar_repeat_model_calls_are_named_with_the_remedy(tmp_path: Path, named: str) -> None:
    file = copy_project_files(tmp_path) / "resiliency" / "llm.yaml"
    resource = yaml.safe_load(file.read_text())
    retry = {"policy": "constant", "duration": "1s", "maxRetries": 1}
    resource["spec"]["policies"]["retries"] = {named: retry}
    if named == "llm":
        resource["spec"]["targets"]["components"]["llm"]["outbound"]["retry"] = "llm"
    else:
        del resource["spec"]["targets"]["components"]["llm"]
    file.write_text(yaml.safe_dump(resource))
    finding = sidecar_retries(tmp_path)
    assert not finding.ok
    assert "repeat requests to llm" in finding.found
    assert "resiliency/" in finding.remedy


@pytest.mark.parametrize(("count", "ok"), [(0, True), (3, False)])
def test_a_sidecar_that_has_repeated_model_calls_is_wrong(
    monkeypatch: pytest.MonkeyPatch, count: int, *, ok: bool
) -> None:
    labels = 'app_id="agent",policy="retry",target="Conversation_llm"'
    page = f"dapr_resiliency_activations_total{{{labels}}} {count}\n"
    monkeypatch.setattr(http, "get", lambda *_: httpx.Response(200, text=page))
    finding = metrics(Settings())
    assert (finding.ok, "3 calls of llm" in finding.found) == (ok, not ok)
    assert bool(finding.remedy) is not ok


def test_two_components_of_one_name_are_reported(folder: Path) -> None:
    (folder / "components" / "backup.yaml").write_text(COMPONENT, encoding="utf-8")
    good, backup = folder / "components" / "good.yaml", folder / "components" / "backup.yaml"
    assert faults(folder) == [("components", f"{good} and {backup} both define Component x")]


def test_a_model_component_that_could_end_the_sidecar_is_found(folder: Path) -> None:
    text = component("own").replace("a.b", "conversation.openai")
    (folder / "components" / "own.yaml").write_text(text, encoding="utf-8")
    ((name, fault_text),) = faults(folder)
    assert (name, fault_text.rpartition(": ")[2]) == ("components", "a mistake in it would end the sidecar")
