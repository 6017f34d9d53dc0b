"""The names of attributes and metrics agree with the conventions and the documentation."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from opentelemetry.semconv._incubating.attributes import error_attributes, gen_ai_attributes
from prometheus_client import CollectorRegistry, Counter

from app.telemetry import names
from app.telemetry.metrics import Families, Live, LiveCollector
from app.telemetry.names import provider_name
from tests.paths import ROOT

DOCUMENT = (ROOT / "docs" / "operations.md").read_text().partition("## Traces and metrics")[2].partition("\n## ")[0]
PARTS = ("amount", "currency", "amounts", "basis")
OURS = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str) and "." in value}
CONVENTIONS = {
    value
    for module in (gen_ai_attributes, error_attributes)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}


def test_every_name_of_the_conventions_is_one() -> None:
    foreign = {name for name in OURS if not name.startswith(("refund_agent.", "conversation."))}
    assert len(foreign) >= 17
    assert foreign <= CONVENTIONS, foreign - CONVENTIONS


def test_every_attribute_is_documented_and_every_documented_one_exists() -> None:
    documented = set(re.findall(r"`((?:gen_ai|error|refund_agent)\.[a-z_.]+)`", DOCUMENT))
    costs = {f"{prefix}.{part}" for prefix in (names.COST, names.TASK_COST) for part in PARTS}
    existing = (OURS - {names.COST, names.TASK_COST, "conversation."}) | costs
    assert documented == existing, (documented - existing, existing - documented)


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    documented = set(re.findall(r"`(refund_agent_[a-z_]+)`", DOCUMENT))
    registry = CollectorRegistry()
    Families(registry)
    registry.register(LiveCollector(Live(*[lambda: 0] * len(fields(Live)))))
    existing = {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}
    assert documented == existing, (documented - existing, existing - documented)


def test_every_label_is_documented() -> None:
    rows = {line.split("`")[1]: line.split("|")[3] for line in DOCUMENT.splitlines() if line.startswith("| `")}
    for family in vars(Families(CollectorRegistry())).values():
        name = family._name + ("_total" if isinstance(family, Counter) else "")
        assert set(re.findall(r"`([a-z_]+)`", rows[name])) == set(family._labelnames), name


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        ("conversation.openai", "openai"),
        ("conversation.anthropic", "anthropic"),
        ("conversation.aws.bedrock", "aws.bedrock"),
        ("conversation.mistral", "mistral_ai"),
        ("conversation.googleai", "gcp.gemini"),
        ("conversation.deepseek", "deepseek"),
        ("conversation.ollama", "ollama"),
        ("", ""),
    ],
)
def test_a_component_type_is_a_provider(component: str, expected: str) -> None:
    assert provider_name(component) == expected
