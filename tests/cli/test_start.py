"""The command line starts quickly, because it imports only what it needs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("dapr", "dapr_agents", "flask", "waitress", "sqlalchemy", "grpc", "litellm", "numpy", "opentelemetry")
MAX_START_SECONDS = 1.0  # 0.613 was seen on a busy machine

LOADED = """
import sys
from typer.testing import CliRunner
from app.cli.root import cli
CliRunner().invoke(cli, {words!r})
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["task", "list", "--url", "http://127.0.0.1:1", "--token", "t"],
        ["task", "show", "acme:T-1", "--url", "http://127.0.0.1:1", "--token", "t"],
        ["submit", "/dev/null", "--url", "http://127.0.0.1:1", "--token", "t"],
        ["doctor", "--url", "http://127.0.0.1:1", "--token", "t"],
        ["doctor", "retries"],
        ["record", "acme:T-1"],
        ["cost", "report"],
        ["cost", "failures"],
        ["experiment", "--help"],
        ["price", "show", "gpt-5-mini"],
        ["price", "check"],
        ["ledger", "check"],
    ],
)
def test_no_command_loads_the_agent_before_it_needs_it(words: list[str]) -> None:
    program = LOADED.format(words=words)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    assert not loaded.intersection(HEAVY)


def test_help_is_fast() -> None:
    assert min(start_seconds() for _ in range(5)) < MAX_START_SECONDS


def start_seconds() -> float:
    """The CPU time of a start, which other programs affect less than its duration."""
    with subprocess.Popen([sys.executable, "-m", "app.cli", "--help"], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert b"submit" in started.stdout.read()
        _, status, used = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
    assert started.returncode == 0
    return used.ru_utime + used.ru_stime


def test_each_command_has_a_help() -> None:
    for words in (
        ["serve"],
        ["submit"],
        ["record"],
        ["demo"],
        ["doctor"],
        ["task", "approve"],
        ["cost", "report"],
        ["price"],
    ):
        done = subprocess.run([sys.executable, "-m", "app.cli", *words, "--help"], capture_output=True, check=True)
        assert b"Usage:" in done.stdout
