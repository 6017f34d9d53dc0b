"""`provider list`, `show` and `use`: what there is, what is in use, and what a switch would do or has done."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from app.providers.catalogue import LIVE, read_templates
from app.providers.provider_schemas import CatalogueView, ProviderView, SwitchView
from tests.cli.reading import ask, json_answer, row
from tests.cli.test_documented_keys import keys
from tests.paths import ROOT
from tests.providers.folder import copy_project

KEY = "sk-never-shown"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder with a key for Anthropic, and no other."""
    return copy_project(tmp_path, anthropic_api_key=KEY)


def test_the_list_has_every_template_and_marks_the_one_in_use(folder: Path) -> None:
    shown = ask("provider", "list", "--folder", str(folder)).stdout
    for template in read_templates(ROOT):
        assert re.search(rf"^{template.name} ", shown, re.MULTILINE)
    assert row(shown, "sandbox ")[:6] == ["sandbox", "yes", "conversation.openai", "sandbox-small", "0.4", "1.6"]
    assert row(shown, "anthropic ")[-2:] == ["schema", "there"]
    assert row(shown, "openai ")[-2:] == ["usage, tools, schema, cached", "missing"]
    assert KEY not in shown


def test_the_row_in_use_has_the_model_that_is_in_use(folder: Path) -> None:
    assert ask("provider", "use", "sandbox", "--model", "sandbox-large", "--folder", str(folder)).exit_code == 0
    shown = ask("provider", "list", "--folder", str(folder)).stdout
    assert row(shown, "sandbox ")[1:4] == ["yes", "conversation.openai", "sandbox-large"]


def test_a_component_of_the_users_own_is_named(folder: Path) -> None:
    text = (folder / LIVE).read_text()
    (folder / LIVE).write_text(text.replace("# sandbox: ", "# ").replace("8091", "9999"))
    shown = ask("provider", "list", "--folder", str(folder))
    assert "note: components/llm.yaml is none of these: conversation.openai sandbox-small" in shown.stdout
    (folder / LIVE).write_text("kind: [")
    shown = ask("provider", "list", "--folder", str(folder))
    assert "is none of these: a file that cannot be read" in shown.stdout


def test_one_provider_is_shown_with_price_limits_support_and_secrets(folder: Path) -> None:
    shown = ask("provider", "show", "anthropic", "--folder", str(folder)).stdout
    assert "in 1, cached in 0.1, cache write 1.25, out 5 USD per million tokens (genai-prices-0.2.3" in shown
    assert "200,000 tokens (litellm)" in shown
    assert "schema; tools from Dapr 1.19.0" in shown
    assert "anthropic-api-key (there)" in shown
    assert "cannot pass tools on, so they are offered in words" in shown
    assert KEY not in shown


def test_facts_of_finances_file_are_shown_with_their_line(folder: Path) -> None:
    prices = folder / "config" / "prices.yaml"
    facts = "context_tokens: 8192, retires: 2030-01-01, source: us, checked: 2026-11-22"
    more = f"models:\n  - {{provider: ollama, model: llama3.2, {facts}}}\n"
    prices.write_text(prices.read_text() + more)
    view = json_answer("provider", "show", "ollama", "--folder", str(folder))
    assert (view["context_tokens"], view["retires"]) == (8192, "2030-01-01")
    assert view["context_source"] == f"{prices}:{len(prices.read_text().splitlines())}"
    assert row(ask("provider", "list", "--folder", str(folder)).stdout, "ollama ")[-2] == "2030-01-01"


def test_a_switch_is_written_and_says_what_it_means(folder: Path) -> None:
    result = ask("provider", "use", "anthropic", "--folder", str(folder))
    assert result.exit_code == 0
    assert "+  type: conversation.anthropic\n" in result.stdout
    assert f"what it held is in {folder}/components/providers/llm.yaml.bak" in result.stdout
    assert "conversation.anthropic cannot pass tools on until Dapr 1.19.0: they are offered in words" in result.stdout
    assert "tokens are estimated" in result.stdout
    assert KEY not in result.stdout + (folder / LIVE).read_text()
    again = ask("provider", "use", "anthropic", "--folder", str(folder))
    assert "has that already; nothing was written" in again.stdout


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    before = (folder / LIVE).read_text()
    result = ask("provider", "use", "vllm", "--model", "m", "--dry-run", "--folder", str(folder))
    assert "nothing was written (--dry-run)" in result.stdout
    assert "+      value: m\n" in result.stdout
    assert "note: its calls have no price: model m of provider conversation.openai" in result.stdout
    assert (folder / LIVE).read_text() == before
    assert not list((folder / "components").rglob("*.bak"))


def test_a_missing_secret_is_refused_with_its_name_and_the_file(folder: Path) -> None:
    before = (folder / LIVE).read_text()
    result = ask("provider", "use", "aws-bedrock", "--folder", str(folder))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"aws-bedrock-access-key, aws-bedrock-secret-key is not in {folder}/.state/secrets.json" in result.stderr
    assert '"aws-bedrock-access-key": "..."' in result.stderr
    assert "make reload" in result.stderr
    assert KEY not in result.stderr
    assert (folder / LIVE).read_text() == before


@pytest.mark.parametrize("command", ["show", "use"])
def test_an_unknown_name_gets_the_nearest(folder: Path, command: str) -> None:
    result = ask("provider", command, "antropic", "--folder", str(folder))
    assert result.exit_code == 2
    assert "there is no provider 'antropic'; near it: anthropic" in result.stderr


def test_what_a_provider_does_not_take_is_wrong_usage(folder: Path) -> None:
    result = ask("provider", "use", "echo", "--model", "m", "--folder", str(folder), "--json")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["detail"].endswith("echo has no model to choose; leave out --model")


def test_without_templates_the_remedy_is_the_folder(tmp_path: Path) -> None:
    for words in (("list",), ("show", "openai"), ("use", "openai")):
        result = ask("provider", *words, "--folder", str(tmp_path))
        assert result.exit_code == 1
        assert "run this in the project's folder, or name it with --folder" in result.stderr


def test_of_a_secret_store_that_is_no_file_nothing_is_said_and_nothing_is_refused(folder: Path) -> None:
    store = folder / "components" / "secrets.yaml"
    store.write_text(store.read_text().replace("secretstores.local.file", "secretstores.hashicorp.vault"))
    assert row(ask("provider", "list", "--folder", str(folder)).stdout, "openai ")[-1] == "unknown"
    assert json_answer("provider", "show", "openai", "--folder", str(folder))["missing_secrets"] is None
    assert ask("provider", "use", "openai", "--folder", str(folder)).exit_code == 0


def test_prices_are_those_of_the_time_that_is_asked_for(folder: Path) -> None:
    words = ("provider", "show", "sandbox", "--folder", str(folder))
    assert json_answer(*words, "--at", "2026-11-30")["price"]["input"] == "0.4"
    assert json_answer(*words, "--at", "2019-12-31")["price"] is None


def test_json_answers_have_their_models(folder: Path) -> None:
    listed = CatalogueView.model_validate(json_answer("provider", "list", "--folder", str(folder)))
    assert (listed.in_use, listed.component_type, listed.model) == ("sandbox", "conversation.openai", "sandbox-small")
    shown = ProviderView.model_validate(json_answer("provider", "show", "anthropic", "--folder", str(folder)))
    assert shown == next(provider for provider in listed.providers if provider.name == "anthropic")
    used = SwitchView.model_validate(json_answer("provider", "use", "anthropic", "--folder", str(folder)))
    assert (used.written, used.backup) == (True, f"{folder}/components/providers/llm.yaml.bak")
    assert len(used.notes) == 2


@pytest.mark.parametrize("view", [CatalogueView, SwitchView])
def test_every_key_is_documented(view: type[BaseModel]) -> None:
    section = (ROOT / "docs" / "providers.md").read_text().split("## JSON\n")[1]
    assert set(keys(view)) <= set(re.findall(r"`([a-z_]+)`", section))
