"""Every Dapr file says what it is: daprd only warns of a file it cannot read, and skips what it does not know."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import policy
from app.finance.retry_bounds import worst
from sandbox.faults import SYSTEMS
from tests.paths import ROOT

FILES = sorted(
    [*(ROOT / "components").rglob("*.yaml"), *(ROOT / "resiliency").glob("*.yaml"), ROOT / "config/dapr.yaml"]
)
KINDS = {"Component", "HTTPEndpoint", "Resiliency", "Configuration"}
PROVIDERS = sorted((ROOT / "components" / "providers").glob("*.yaml"))


def documents(file: Path) -> list[dict[str, Any]]:
    """The YAML documents of a file."""
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_says_what_it_is(file: Path) -> None:
    for document in documents(file):
        assert document["apiVersion"] == "dapr.io/v1alpha1"
        assert document["kind"] in KINDS
        assert document["metadata"]["name"]
        if document["kind"] != "Configuration":
            assert document["scopes"] == ["agent"], "least privilege: only the agent sees it"


@pytest.mark.parametrize("file", PROVIDERS, ids=lambda file: file.stem)
def test_every_provider_can_be_copied_over_the_live_one(file: Path) -> None:
    (component,) = documents(file)
    assert component["metadata"]["name"] == "llm"
    assert component["spec"]["type"].startswith("conversation.")
    for entry in component["spec"]["metadata"]:
        if entry["name"] in ("key", "accessKey", "secretKey"):
            assert entry.get("secretKeyRef") or entry["value"] in ("sandbox", "none"), "keys are in the secret store"
        assert entry["name"] not in ("responseCacheTTL", "cacheTTL"), "a cached answer repeats its usage"


def test_the_live_provider_is_the_sandbox_in_a_fresh_checkout() -> None:
    live = (ROOT / "components" / "llm.yaml").read_text()
    assert live == (ROOT / "components" / "providers" / "sandbox.yaml").read_text()


def policies() -> tuple[dict[str, Any], dict[str, Any]]:
    """All resiliency policies, and all targets by name."""
    merged: dict[str, Any] = {}
    targets: dict[str, Any] = {}
    for file in (ROOT / "resiliency").glob("*.yaml"):
        (document,) = documents(file)
        for kind, named in document["spec"]["policies"].items():
            merged.setdefault(kind, {}).update(named)
        given = document["spec"]["targets"]
        targets |= given.get("apps", {}) | {
            name: each["outbound"] for name, each in given.get("components", {}).items()
        }
    return merged, targets


def test_the_model_and_every_tool_have_time_out_and_breaker_and_only_the_tools_retries() -> None:
    defined, targets = policies()
    assert set(targets) == {"llm", *SYSTEMS}
    for name, target in targets.items():
        assert target["timeout"] in defined["timeouts"], name
        assert target["circuitBreaker"] in defined["circuitBreakers"], name
        if name == "llm":
            assert "retry" not in target, "a refused request would be repeated, unseen and perhaps billed"
        else:
            assert defined["retries"][target["retry"]]["matching"], f"{name}: a refusal would be repeated"


def test_the_product_of_fast_and_slow_retries_is_as_the_files_say() -> None:
    """That it is within its limits is for tests/finance/retry_bounds/test_worst.py."""
    defined, targets = policies()
    rules = policy.load(ROOT / "config" / "policy.yaml")
    for name, target in targets.items():
        repeats = defined["retries"][target["retry"]]["maxRetries"] if "retry" in target else 0
        product = rules.retries.attempts * (1 + repeats)
        assert product == (30 if name == "llm" else 90), f"{name}: the files say otherwise"
    design, operations = ((ROOT / "docs" / name).read_text() for name in ("design.md", "operations.md"))
    assert "1 x 30 = 30" in design
    assert "3 x 30 = 90" in design
    hours = worst.pauses(rules.retries).total_seconds() / 3600
    assert f"{hours:.1f}" == "1.9"
    assert "1.8 hours" in operations


def test_every_number_of_a_policy_stands_beside_its_reason() -> None:
    for file in (ROOT / "resiliency").glob("*.yaml"):
        lines = file.read_text().splitlines()
        numbered = [n for n, line in enumerate(lines) if re.search(r":\s*(\d+(ms|s)\b|\d+$)", line)]
        for number in numbered:
            around = lines[max(0, number - 6) : number + 1]
            assert any("#" in line for line in around), f"{file.name}:{number + 1}"
