"""The whole command line: version, help, completion, and errors for people and for programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.core import TyperGroup

from app import __version__
from app.cli.root import cli
from tests.cli.conftest import CommandLine
from tests.cli.reading import ask
from tests.ledgers import FakeRecords
from tests.paths import ROOT

PROBLEM = ["code", "title", "detail", "status", "exit_code"]


def paths(group: TyperGroup, *before: str) -> Iterator[tuple[str, ...]]:
    """The words of every command and group."""
    yield before
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from paths(command, *before, name)
        else:
            yield (*before, name)


EVERY = list(paths(typer.main.get_command(cli)))  # type: ignore[arg-type]  # the root is a group


def test_the_version_is_printed() -> None:
    assert ask("--version").stdout == f"refund-agent {__version__}\n"


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_names_the_program_and_cuts_nothing(words: tuple[str, ...]) -> None:
    result = ask(*words, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(" ".join(["Usage: refund-agent", *words]))
    assert "python -m" not in result.stdout
    # A metavar may contain dots; a truncated sentence ends with them.
    assert not re.search(r"[a-z](\.\.\.|…)\s*$", result.stdout, re.MULTILINE)


def test_the_shell_completes_commands() -> None:
    asked = {"_REFUND_AGENT_COMPLETE": "complete_bash", "COMP_WORDS": "refund-agent co", "COMP_CWORD": "1"}
    words = [sys.executable, "-m", "app"]
    done = subprocess.run(words, env=os.environ | asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cost"]


@pytest.mark.parametrize(
    ("words", "exit_code", "detail"),
    [
        (("record", "acme:T-9"), 1, "task acme:T-9 has no record"),
        (("cost", "report", "--tenant", "nosuch"), 1, "nothing is recorded for tenant nosuch; the ledger has acme"),
        (("cost", "report", "--since", "soon"), 2, "'soon' is not a day"),
        (("cost", "report", "--by", "colour"), 2, "unknown dimension 'colour'"),
        (("task", "show", "acme:T-1", "--url", "http://127.0.0.1:1", "--token", "t"), 1, "does not answer"),
        (("task", "show"), 2, "Missing argument"),
        (("explode",), 2, "No such command"),
    ],
)
def test_a_program_gets_an_error_as_one_object(
    ledger: FakeRecords, words: tuple[str, ...], exit_code: int, detail: str
) -> None:
    as_json = ask(*words, "--json")
    assert (as_json.exit_code, as_json.stdout) == (exit_code, "")
    problem = json.loads(as_json.stderr)
    assert list(problem) == PROBLEM
    assert problem["exit_code"] == exit_code
    assert detail in problem["detail"]
    plain = ask(*words)
    assert (plain.exit_code, plain.stdout) == (exit_code, "")
    assert detail in " ".join(plain.stderr.split())
    assert '{"' not in plain.stderr


def test_programs_get_the_agents_status(run: CommandLine) -> None:
    problem = json.loads(run("task", "show", "acme:T-9", "--json").stderr)
    assert (problem["status"], problem["exit_code"]) == (404, 1)
    assert json.loads(run("task", "list", "--json", who="nobody").stderr)["status"] == 401


@pytest.mark.parametrize(
    "words",
    [
        ("cost", "report", "--since", "tomorrow"),
        ("cost", "report", "--since", "2026-02-30"),
        ("cost", "failures", "--until", "99999999999d"),
        ("cost", "reconcile", "--since", "2026-11-30T25:00"),
        ("price", "show", "--at", "now"),
        ("cost", "report", "--tenant", "ACME"),
        ("task", "list", "--tenant", "a b"),
        ("submit", "/dev/null", "--tenant", "Globex"),
        ("submit", "/dev/null", "--rate", "x"),
        ("task", "list", "--status", "done"),
        ("task", "list", "--limit", "0"),
        ("task", "list", "--limit", "201"),
        ("cost", "report", "--by", "task", "--top", "1.5"),
        ("cost", "report", "--sort", "size"),
        ("task", "approve", "acme:T-1", "--order", "O-2", "--amount", "9,99", "--currency", "EUR"),
    ],
)
def test_wrong_usage_is_reworded(ledger: FakeRecords, words: tuple[str, ...]) -> None:
    result = ask(*words)
    assert result.exit_code == 2
    for library_text in ("Value error", "does not match", "Input should", "String should", "strptime", "isoformat"):
        assert library_text not in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("cost", "report", "--prices", "missing.yaml"),
        ("price", "show", "--prices", "missing.yaml"),
        ("price", "check", "--prices", "config"),
        ("doctor", "retries", "--prices", "missing.yaml"),
        ("doctor", "retries", "--policy", "missing.yaml"),
    ],
)
def test_a_missing_file_of_an_option_is_wrong_usage(ledger: FakeRecords, words: tuple[str, ...]) -> None:
    result = ask(*words)
    assert result.exit_code == 2
    assert f"Invalid value for {words[2]}: {words[3]} is" in result.stderr
    assert "restore it" not in result.stderr
