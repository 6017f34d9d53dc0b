"""The pricing room has no network, database or clock, and computes money without rounding."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

FILES = sorted(file for room in ("pricing", "finance") for file in (ROOT / "app" / room).glob("*.py"))
IO = {"os", "socket", "subprocess", "urllib", "http", "sqlite3", "asyncio", "threading", "shutil", "tempfile"}
# Who may read files (what they are handed), and who may import the published list.
LOADERS = {"price_file.py", "litellm_prices.py"}
LIST = "list_prices.py"


def imports(tree: ast.AST) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return modules


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_imports_only_what_is_pure(file: Path) -> None:
    names = imports(ast.parse(file.read_text()))
    ours = {name for name in names if name.split(".")[0] == "app"}
    assert all(name.startswith(("app.pricing", "app.finance", "app.domain", "app.config")) for name in ours), ours
    tops = {name.split(".")[0] for name in names} - {"app"}
    others = tops - set(sys.stdlib_module_names)
    assert others <= {"pydantic"} | ({"genai_prices"} if file.name == LIST else set())
    assert not tops & IO


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_only_loaders_read_files_and_no_module_reads_a_clock(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"\bopen\(|\.now\(|\butcnow\b|\benviron\b|\bgetenv\b|\btoday\(|\bprint\(", text)
    assert (".read_text(" in text or "yaml_file.read(" in text) <= (file.name in LOADERS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_money_is_never_a_float_and_rounded_in_one_place(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert not [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is float]
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not calls & {"float", "round"}
    assert "quantize" not in file.read_text() or file.name == "money.py"


def test_adding_up_charges_needs_no_price_list() -> None:
    names = {_module(file): imports(ast.parse(file.read_text())) for file in FILES}
    reached, todo = set(), {"app.finance.rollup"}
    while todo:
        name = todo.pop()
        reached.add(name)
        todo |= {module for module in names[name] if module in names} - reached
    assert reached == {"app.finance.rollup", "app.pricing.charge_types"}


def _module(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)
