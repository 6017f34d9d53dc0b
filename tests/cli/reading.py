"""Runs reading commands and parses their output."""

from __future__ import annotations

import json
import re
from typing import Any

from typer.testing import CliRunner, Result

from app.cli.root import cli


def ask(*words: str) -> Result:
    """Runs one command, with stdout and stderr separate."""
    return CliRunner().invoke(cli, list(words))


def json_answer(*words: str) -> Any:
    """Runs one command with --json and parses its output."""
    result = ask(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def cells(line: str) -> list[str]:
    """The non-empty cells of one line of a table."""
    return [cell for cell in re.split(r"\s{2,}", line.strip()) if cell]


def row(output: str, name: str) -> list[str]:
    """The cells of the one line that begins with `name`."""
    lines = [line for line in output.splitlines() if line.strip().startswith(name)]
    assert len(lines) == 1, (name, output)
    return cells(lines[0])
