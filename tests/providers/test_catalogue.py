"""The templates of components/providers/, the table that documents them, and the one that is in use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.dapr.component_support import SUPPORT
from app.domain.errors import ConfigurationError
from app.providers.catalogue import LIVE, ProviderTemplate, find_in_use, read_component, read_templates
from app.providers.switch import plan_switch, write_switch
from tests.paths import ROOT
from tests.providers.folder import copy_project

TEMPLATES = read_templates(ROOT)
BY_NAME = {template.name: template for template in TEMPLATES}
each_template = pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)


def test_every_component_type_has_a_template() -> None:
    assert {template.component_type for template in TEMPLATES} == set(SUPPORT)


@each_template
def test_a_template_says_what_dapr_supports(template: ProviderTemplate) -> None:
    assert template.support is not None
    assert template.text.splitlines().count(f"# {template.support.sentence}.") == 1
    assert template.text.count("# Dapr 1.18:") == 1
    assert "Dapr 1.18:" not in template.description
    assert len(template.description) > 30


@each_template
def test_a_template_names_the_secrets_that_it_needs_and_where_to_put_them(template: ProviderTemplate) -> None:
    assert template.secret_store == ("secrets" if template.secrets else "")
    for secret in template.secrets:
        assert f'"{secret}"' in template.description
    assert (".state/secrets.json" in template.description) == bool(template.secrets)


@each_template
def test_a_template_whose_calls_are_not_openais_says_that_they_need_a_price(template: ProviderTemplate) -> None:
    elsewhere = template.component_type == "conversation.openai" and "prices.yaml" in template.description
    expected = template.name.endswith("-compatible") or template.name in ("vllm", "llama-cpp", "azure-openai")
    assert elsewhere == expected


def row(template: ProviderTemplate) -> str:
    """A template's row in docs/providers.md."""
    support = template.support
    assert support is not None
    usage, schema, cached = (
        "yes" if supported else "no" for supported in (support.usage, support.structured_output, support.cached_tokens)
    )
    tools = "yes" if support.tools else "from 1.19" if support.tools_from else "no"
    secrets = ", ".join(f"`{secret}`" for secret in template.secrets)
    return f"| `{template.name}` | `{template.component_type}` | {usage} | {tools} | {schema} | {cached} | {secrets} |"


def test_the_documents_table_is_the_catalogue() -> None:
    document = (ROOT / "docs" / "providers.md").read_text()
    rows = re.findall(r"^\| `[a-z-]+` \| `conversation\..*$", document, re.MULTILINE)
    assert [" ".join(line.split()) for line in rows] == [" ".join(row(template).split()) for template in TEMPLATES]


def test_the_sandbox_is_in_use_in_a_fresh_checkout() -> None:
    assert find_in_use(read_component(ROOT / LIVE), TEMPLATES) == BY_NAME["sandbox"]


@each_template
def test_a_switched_component_is_recognised_with_another_model_and_endpoint(
    template: ProviderTemplate, tmp_path: Path
) -> None:
    folder = copy_project(tmp_path)
    takes_endpoint = template.support is not None and "endpoint" in template.support.reads
    model = "another" if template.model else ""
    endpoint = "http://127.0.0.1:9/v1" if takes_endpoint else ""
    write_switch(folder, plan_switch(folder, template, model, endpoint))
    live = read_component(folder / LIVE)
    assert (live.model, live.endpoint, live.secrets) == (model, endpoint, template.secrets)
    assert find_in_use(live, TEMPLATES) == template


def test_without_its_comment_a_component_is_recognised_by_type_endpoint_and_secrets(tmp_path: Path) -> None:
    file = tmp_path / "llm.yaml"
    file.write_text(BY_NAME["ollama"].text.partition("apiVersion:")[2].join(("apiVersion:", "")))
    assert find_in_use(read_component(file), TEMPLATES) == BY_NAME["ollama"]
    file.write_text(file.read_text().replace("11434", "11435"))
    assert find_in_use(read_component(file), TEMPLATES) is None


def test_a_comment_that_names_another_type_than_the_file_has_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "llm.yaml"
    file.write_text(BY_NAME["ollama"].text.replace("conversation.ollama", "conversation.deepseek"))
    assert find_in_use(read_component(file), TEMPLATES) is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# ollama: ", "# Ollama. ", "ollama.yaml:1: begin the file with `# ollama: ...`"),
        ("type: conversation.ollama", "type: state.sqlite", r"ollama.yaml:\d+: spec.type: "),
        ("kind: Component", "kind: Resiliency", r"ollama.yaml:\d+: kind: "),
        ("  metadata:\n", "  metadata: [\n", r"ollama.yaml:\d+: not valid YAML"),
    ],
)
def test_a_wrong_template_is_named_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    folder = copy_project(tmp_path)
    file = folder / "components" / "providers" / "ollama.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigurationError, match=said):
        read_templates(folder)


def test_a_folder_without_templates_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no provider templates in .*name it with --folder"):
        read_templates(tmp_path)
