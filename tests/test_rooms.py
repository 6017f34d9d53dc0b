"""The house's rules about rooms: imports point one way, and one file reads the environment."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

APP = ROOT / "app"
PURE = (
    "models.py",
    "books.py",
    "errors.py",
    "reasons.py",
    "deadline.py",
    "decisions.py",
    "redaction.py",
    "standing.py",
    "textfiles.py",
    "texts.py",
    "history/model.py",
    "history/values.py",
    "history/times.py",
    "history/causes.py",
    "history/executions.py",
    "stages/guards.py",
    "stages/answers.py",
    "stages/prompts.py",
    *(f"amplification/{name}.py" for name in ("durations", "retrying", "resiliency", "targets", "steps", "worst")),
    *(f"amplification/{name}.py" for name in ("findings", "pricing", "views")),
    "telemetry/spans.py",
    "telemetry/attributes.py",
    "telemetry/costs.py",
    "telemetry/ids.py",
    "telemetry/names.py",
)
# What a pure file may not import, directly or through another of ours.
IMPURE = ("dapr", "grpc", "aiohttp", "httpx", "sqlalchemy", "flask", "waitress", "os", "socket", "subprocess")
# Which rooms each room may import from `app`, next to models, errors, policy and redaction.
ALLOWED = {
    "ledger": {"ledger", "cost", "history"},
    "gateway": {"gateway", "sidecar", "sdk_mends", "ledger", "history"},
    "stages": {"stages", "gateway", "ledger", "systems"},
    "cost": {"cost"},
    "history": {"history"},
    "telemetry": {"telemetry", "cost", "ledger", "history"},
    "web": {"web", "access", "cost", "ledger", "history"},
    "cli": {
        "cli",
        "settings",
        "bootstrap",
        "process",
        "sandbox",
        "access",
        "cost",
        "ledger",
        "history",
        "amplification",
    },
    "amplification": {"amplification", "cost"},
    "sandbox": {"sandbox"},
}
COMMON = {
    "__version__",
    "models",
    "books",
    "daprd",
    "deadline",
    "decisions",
    "errors",
    "policy",
    "private",
    "reasons",
    "redaction",
    "standing",
    "textfiles",
    "texts",
    "tokens",
    "yamlfile",
}


def imports(file: Path) -> set[str]:
    """The modules that a file names in its import statements."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("name", PURE)
def test_pure_files_bring_no_client_with_them(name: str) -> None:
    module = "app." + name.removesuffix(".py").replace("/", ".")
    # The package of the stages imports them all; a pure file among them is loaded without it.
    code = (
        "import sys, importlib.util as u; "
        f"spec = u.spec_from_file_location('pure', {str(APP / name)!r}); m = u.module_from_spec(spec); "
        "sys.modules['pure'] = m; spec.loader.exec_module(m); print('\\n'.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    third_party = set(IMPURE) - {"os", "socket", "subprocess"}
    assert not third_party & set(done.stdout.split()), module
    assert not set(IMPURE) & imports(APP / name), module


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_point_one_way(room: str) -> None:
    for file in (APP / room).rglob("*.py"):
        rooms = {name.split(".")[1] for name in imports(file) if name.startswith("app.")}
        assert rooms <= ALLOWED[room] | COMMON, f"{file.relative_to(ROOT)} imports {rooms - ALLOWED[room] - COMMON}"


def test_one_file_reads_the_environment() -> None:
    readers = []
    for file in APP.rglob("*.py"):
        if re.search(r"\benviron\b|\bgetenv\b|envvar=", file.read_text()):
            readers.append(str(file.relative_to(APP)))
    # settings.py reads it through pydantic-settings, and keeps proxies out of it; tiktoken is told its folder by the
    # environment and nothing else.
    assert sorted(readers) == ["settings.py", "tokens.py"]
