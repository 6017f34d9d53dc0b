"""Asks a reading command and takes its output apart."""

from __future__ import annotations

import json
import re
from typing import Any

from typer.testing import CliRunner, Result

from app.cli.root import cli


def ask(*words: str) -> Result:
    """One command; output and errors apart."""
    return CliRunner().invoke(cli, list(words))


def told(*words: str) -> Any:
    """What the command says with --json."""
    result = ask(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def cells(line: str) -> list[str]:
    """The cells of a table's line that hold something."""
    return [cell for cell in re.split(r"\s{2,}", line.strip()) if cell]


def row(output: str, name: str) -> list[str]:
    """The cells of the one line that begins with `name`."""
    found = [line for line in output.splitlines() if line.strip().startswith(name)]
    assert len(found) == 1, (name, output)
    return cells(found[0])
