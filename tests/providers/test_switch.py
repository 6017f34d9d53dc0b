"""A switch writes the template with three changes, in one step, keeps what was there, and never reads a secret out."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import ConfigurationError
from app.providers.catalogue import LIVE, read_component, read_templates
from app.providers.switch import BACKUP, Unsuitable, missing_secrets, plan_switch, write_switch
from tests.paths import ROOT
from tests.providers.folder import copy_project

BY_NAME = {template.name: template for template in read_templates(ROOT)}


def metadata(text: str) -> dict[str, object]:
    """The metadata of a component by name."""
    return {entry["name"]: entry.get("value") for entry in yaml.safe_load(text)["spec"]["metadata"]}


def test_a_switch_writes_the_template_with_its_comments(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    before = (folder / LIVE).read_text()
    switch = plan_switch(folder, BY_NAME["ollama"])
    assert write_switch(folder, switch) == folder / BACKUP
    assert (folder / LIVE).read_text() == BY_NAME["ollama"].text
    assert (folder / BACKUP).read_text() == before
    assert "-  type: conversation.openai\n+  type: conversation.ollama\n" in switch.diff


def test_daprd_sees_neither_the_backup_nor_a_draft(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    before = set((folder / "components").rglob("*"))
    write_switch(folder, plan_switch(folder, BY_NAME["ollama"]))
    assert set((folder / "components").rglob("*")) - before == {folder / BACKUP}
    assert (BACKUP.parent.parent, BACKUP.suffix) == (LIVE.parent, ".bak")


def test_model_and_endpoint_are_the_only_lines_that_change(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    switch = plan_switch(folder, BY_NAME["vllm"], "Qwen/Qwen3-32B", "http://10.0.0.5:8000/v1")
    changed = set(switch.text.splitlines()) ^ set(BY_NAME["vllm"].text.splitlines())
    assert len(changed) == 4
    assert metadata(switch.text) == {"key": "none", "model": "Qwen/Qwen3-32B", "endpoint": "http://10.0.0.5:8000/v1"}
    assert (switch.model, switch.endpoint) == ("Qwen/Qwen3-32B", "http://10.0.0.5:8000/v1")


def test_an_endpoint_is_added_where_the_template_has_none(tmp_path: Path) -> None:
    switch = plan_switch(copy_project(tmp_path), BY_NAME["openai"], endpoint="https://eu.api.openai.com/v1")
    assert metadata(switch.text)["endpoint"] == "https://eu.api.openai.com/v1"
    assert switch.text.startswith(BY_NAME["openai"].text)


def test_the_component_keeps_its_name(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    (folder / LIVE).write_text((folder / LIVE).read_text().replace("  name: llm\n", "  name: chat\n", 1))
    write_switch(folder, plan_switch(folder, BY_NAME["vllm"]))
    assert read_component(folder / LIVE).component == "chat"


@given(model=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40))
def test_any_model_name_is_read_back_as_it_was_given(model: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    switch = plan_switch(tmp_path_factory.getbasetemp(), BY_NAME["ollama"], model)
    assert metadata(switch.text) == {"model": model, "endpoint": BY_NAME["ollama"].endpoint}


@pytest.mark.parametrize("model", ["yes", "1.5", "null", "a: b", "#1", 'say "x"', "us.claude-v1:0", "{}", " x"])
def test_a_name_that_yaml_takes_for_something_else_is_quoted(tmp_path: Path, model: str) -> None:
    assert metadata(plan_switch(tmp_path, BY_NAME["ollama"], model).text)["model"] == model


def test_what_is_in_use_already_is_not_written_again(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    switch = plan_switch(folder, BY_NAME["sandbox"])
    assert switch.diff == ""
    assert write_switch(folder, switch) is None
    assert not (folder / BACKUP).exists()


def test_a_file_that_is_missing_or_broken_is_replaced(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    (folder / LIVE).write_text("kind: [")
    assert write_switch(folder, plan_switch(folder, BY_NAME["ollama"])) == folder / BACKUP
    assert (folder / BACKUP).read_text() == "kind: ["
    (folder / LIVE).unlink()
    (folder / BACKUP).unlink()
    assert write_switch(folder, plan_switch(folder, BY_NAME["sandbox"])) is None
    assert (folder / LIVE).read_text() == BY_NAME["sandbox"].text


def test_the_file_keeps_its_mode(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    (folder / LIVE).chmod(0o640)
    write_switch(folder, plan_switch(folder, BY_NAME["ollama"]))
    assert (folder / LIVE).stat().st_mode & 0o777 == 0o640


def test_a_reader_sees_one_file_or_the_other_and_nothing_in_between(tmp_path: Path) -> None:
    folder, texts, over = copy_project(tmp_path), set[str](), threading.Event()

    def read() -> None:
        while not over.is_set():
            texts.add((folder / LIVE).read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        for name in ("ollama", "sandbox"):
            write_switch(folder, plan_switch(folder, BY_NAME[name]))
    over.set()
    reader.join()
    assert texts <= {BY_NAME["ollama"].text, BY_NAME["sandbox"].text}


@pytest.mark.parametrize(
    ("name", "model", "endpoint", "said"),
    [
        ("echo", "any", "", "echo has no model to choose"),
        ("ollama", "l\nama", "", "is no model's name"),
        ("mistral", "", "http://127.0.0.1:9/v1", "conversation.mistral takes no endpoint"),
        ("google-ai", "", "http://127.0.0.1:9/v1", "conversation.googleai takes no endpoint"),
        ("azure-openai", "", "", "needs your own address: add --endpoint"),
        ("vllm", "", "10.0.0.5:8000", "is no address; write it as in"),
        ("vllm", "", "http://[::1/v1", "is no address; write it as in"),
        ("vllm", "", "ftp://10.0.0.5/v1", "is no address; write it as in"),
        ("vllm", "", "http://me:secret@10.0.0.5/v1", "keep those in the secret store"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_remedy(
    tmp_path: Path, name: str, model: str, endpoint: str, said: str
) -> None:
    with pytest.raises(Unsuitable, match=said) as error:
        plan_switch(copy_project(tmp_path), BY_NAME[name], model, endpoint)
    assert "secret@" not in str(error.value)


def test_missing_secrets_are_named_with_the_stores_file(tmp_path: Path) -> None:
    folder = copy_project(tmp_path, aws_bedrock_access_key="AKIA")
    file = folder / ".state" / "secrets.json"
    assert missing_secrets(folder, BY_NAME["aws-bedrock"]) == (("aws-bedrock-secret-key",), file)
    assert missing_secrets(folder, BY_NAME["sandbox"]) == ((), None)
    file.unlink()
    assert missing_secrets(folder, BY_NAME["openai"]) == (("openai-api-key",), file)


def test_of_a_store_that_is_no_file_nothing_is_known(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    store = folder / "components" / "secrets.yaml"
    store.write_text(store.read_text().replace("secretstores.local.file", "secretstores.hashicorp.vault"))
    assert missing_secrets(folder, BY_NAME["openai"]) == ((), None)
    store.unlink()
    with pytest.raises(ConfigurationError, match="has the secret store secrets; restore it"):
        missing_secrets(folder, BY_NAME["openai"])


def test_a_secrets_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = copy_project(tmp_path, openai_api_key="sk-hidden")
    (folder / ".state" / "secrets.json").write_text('{"openai-api-key": "sk-hidden",}')
    with pytest.raises(ConfigurationError, match=r"secrets\.json:1: ") as error:
        missing_secrets(folder, BY_NAME["openai"])
    assert "sk-hidden" not in str(error.value)
