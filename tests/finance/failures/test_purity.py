"""The failures room does no I/O and computes no money with floats."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.pricing.test_purity import IO, imports

FILES = sorted((ROOT / "app" / "finance" / "failures").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_imports_only_pure_modules(file: Path) -> None:
    names = imports(ast.parse(file.read_text()))
    assert all(
        name.startswith(("app.pricing", "app.finance", "app.domain")) for name in names if name.split(".")[0] == "app"
    )
    assert not {name.split(".")[0] for name in names} & (IO | {"random", "sqlalchemy"})


@pytest.mark.parametrize("file", [file for file in FILES if file.name != "intervals.py"], ids=lambda file: file.name)
def test_only_intervals_use_floats(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is float]
    assert "float" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
